"""Tissue-parameter maps are no images: a model that is given a phantom's maps alone says what it expects."""

import shutil

import pytest


@pytest.fixture
def maps(cohort, tmp_path):
    """Two cases whose only scans are tissue-parameter maps."""
    folder = tmp_path / "maps"
    for case in ("case0", "case1"):
        (folder / case).mkdir(parents=True)
        for name in ("t1_map", "pd_map"):
            shutil.copy(cohort / case / "t1.nii.gz", folder / case / f"{name}.nii.gz")
    return folder


def test_cases_of_maps_alone_are_refused_with_what_was_expected(run, maps, synth, out):
    answer = synth(run, maps)
    assert "(pd_map, t1_map)" in answer.refusal
    assert "voxlate phantom --modalities t1" in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not out.exists()


def test_a_map_given_alone_is_not_taken_as_the_source(run, maps, synth):
    answer = synth(run, maps / "case0/t1_map.nii.gz").refusal
    assert "expected an image (t1), found tissue-parameter maps (t1_map)" in answer


def test_a_cohort_with_an_image_beside_the_maps_is_synthesised(run, maps, cohort, synth, out):
    shutil.copy(cohort / "case0/t1.nii.gz", maps / "case0/t1.nii.gz")
    assert "left out case1" in synth(run, maps).err
    assert (out / "case0/t2.nii.gz").is_file()
