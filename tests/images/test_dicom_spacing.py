"""DICOM series whose files are missing by a rule, and sound ones whose headers look as if they were."""

import json

import numpy as np
import pytest

from rows import every_row
from voxlate.formats.io import read_volume, write_volume
from voxlate.system.errors import BadInput

pydicom = pytest.importorskip("pydicom")
from test_dicom import FIRST, NORMAL, write_slice  # noqa: E402 - needs pydicom


def write(folder, step=3.0, count=6, number=1, numbers=None, **tags):
    """Slices `step` mm apart; number: what InstanceNumber counts by (0: none is written)."""
    for k in range(count):
        place = [f"{v:.8f}" for v in FIRST + step * k * NORMAL]
        named = (
            {"InstanceNumber": numbers[k] if numbers else 7 + number * k}
            if number or numbers
            else {}
        )
        write_slice(folder, str(k), k, ImagePositionPatient=place, **named, **tags)
    return folder


MISSING = {  # every second, third ... file was deleted
    "half": {"step": 6.0, "SpacingBetweenSlices": 3, "SliceThickness": 3},
    "half, numbered": {"step": 6.0, "number": 2, "SpacingBetweenSlices": 3, "SliceThickness": 3},
    "half, numbered downward": {"step": 6.0, "number": -2, "count": 4, "SpacingBetweenSlices": 3},
    "half, downward spacing": {"step": 6.0, "number": 2, "SpacingBetweenSlices": -3},
    "half, rounded spacing": {
        "step": 1.25,
        "number": 2,
        "SpacingBetweenSlices": 0.6,
        "SliceThickness": 0.6,
    },
    "two of three": {"step": 9.0, "number": 3, "SpacingBetweenSlices": 3, "SliceThickness": 2.5},
    "two slices": {"step": 6.0, "count": 2, "SpacingBetweenSlices": 3},
    "half of a gapped one": {
        "step": 12.0,
        "number": 2,
        "SpacingBetweenSlices": 6,
        "SliceThickness": 5,
    },
    "half of one that states the gap": {
        "step": 12.0,
        "number": 2,
        "SpacingBetweenSlices": 1,
        "SliceThickness": 5,
    },
    "of an overlapping one": {
        "step": 4.0,
        "number": 4,
        "SpacingBetweenSlices": 1,
        "SliceThickness": 3,
    },
    "no spacing stated": {"step": 6.0, "number": 2, "SliceThickness": 3},
    "no spacing stated, gap": {"step": 11.0, "number": -2, "SliceThickness": 5},
}


@every_row("case", MISSING)
def test_a_series_that_misses_slices_by_a_rule_is_refused(tmp_path, case) -> None:
    with pytest.raises(
        BadInput, match=r"expected slices .* only one of \d+ .*\. Copy the missing ones, or"
    ) as caught:
        read_volume(write(tmp_path, **MISSING[case]))
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


SOUND = {
    "as stated": {"SpacingBetweenSlices": 3, "SliceThickness": 3},
    "negative spacing": {"SpacingBetweenSlices": -3, "SliceThickness": 3},
    "gap of a tenth": {"step": 5.5, "SpacingBetweenSlices": 5.5, "SliceThickness": 5},
    "gap as thick as a slice": {"step": 6.0, "SpacingBetweenSlices": 6, "SliceThickness": 3},
    "spacing holds the gap": {"step": 6.0, "SpacingBetweenSlices": 1, "SliceThickness": 5},
    "spacing holds a gap of half": {"step": 7.5, "SpacingBetweenSlices": 2.5, "SliceThickness": 5},
    "overlapping": {"step": 1.5, "SpacingBetweenSlices": 1.5, "SliceThickness": 3},
    "overlapping, not stated": {"step": 1.5, "SliceThickness": 3},
    "gap of half, not stated": {"step": 7.5, "SliceThickness": 5},
    "one of two echoes": {"number": 2, "SpacingBetweenSlices": 3, "SliceThickness": 3},
    "nothing stated": {"number": 0},
    "zero stated": {"SpacingBetweenSlices": 0, "SliceThickness": 0},
}


@every_row("case", SOUND)
def test_what_scanners_write_of_whole_series_passes_without_a_word(tmp_path, case) -> None:
    volume = read_volume(write(tmp_path, **SOUND[case]))
    step = SOUND[case].get("step", 3.0)
    np.testing.assert_allclose(np.linalg.norm(volume.affine[:3, 2]), step, rtol=1e-6)
    assert volume.guesses == ()


DOUBTED = {
    "thin slices far apart": ({"step": 10.0, "SliceThickness": 1}, "1 mm thick are 10.00 mm apart"),
    "almost twice": (
        {"step": 5.8, "number": 0, "SliceThickness": 3},
        "3 mm thick are 5.80 mm apart",
    ),
    "numbered by two": (
        {"step": 5.0, "number": 2, "SliceThickness": 5},
        "InstanceNumber counts by 2",
    ),
}


@pytest.mark.parametrize("case", DOUBTED)
def test_what_may_be_missing_slices_is_said(tmp_path, case) -> None:
    how, words = DOUBTED[case]
    (sentence,) = read_volume(write(tmp_path, **how)).guesses
    assert words in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_info_and_evaluate_say_what_was_guessed_of_a_series(tmp_path, voxlate) -> None:
    (tmp_path / "cohort" / "p0" / "ct").mkdir(parents=True)
    write(tmp_path / "cohort" / "p0" / "ct", step=5.8, number=0, SliceThickness=3)
    answer = voxlate("info", tmp_path / "cohort" / "p0" / "ct", "--json")
    assert "3 mm thick are 5.80 mm apart" in json.loads(answer.out)["guessed"][0]
    truth = read_volume(tmp_path / "cohort" / "p0" / "ct")
    write_volume(tmp_path / "out" / "p0" / f"{truth.modality}.nii.gz", truth)
    answer = voxlate("evaluate", tmp_path / "out", "--truth", tmp_path / "cohort", "--json")
    assert answer.code == 0, answer.err
    assert "3 mm thick are 5.80 mm apart" in json.loads(answer.out)["moved"][f"p0/{truth.modality}"]


def test_numbers_that_count_by_no_rule_say_nothing(tmp_path) -> None:
    assert read_volume(write(tmp_path, numbers=[1, 4, 2, 6, 3, 5], SliceThickness=3)).guesses == ()


def test_real_series_pass_and_every_second_file_of_them_does_not(tmp_path, shared) -> None:
    for name in ("t1_studyforrest", "ct_head_phantom"):
        folder = shared / "data" / "dicom" / name
        assert read_volume(folder).guesses == ()
        (tmp_path / name).mkdir()
        for file in sorted(folder.iterdir())[::2]:
            (tmp_path / name / file.name).symlink_to(file)
        with pytest.raises(BadInput, match="only one of 2 is here"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("thickness", ["NaN", "inf", "-3"])
def test_a_single_slice_whose_thickness_is_no_length_is_refused(tmp_path, thickness) -> None:
    with pytest.raises(
        BadInput, match=r"expected a slice thickness above 0, found .* \(SliceThickness\)"
    ):
        read_volume(write(tmp_path, count=1, SliceThickness=thickness))


def test_a_single_slice_that_states_no_thickness_is_said_to_be_of_one_millimetre(tmp_path) -> None:
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
    guessed = read_volume(write(tmp_path / "without", count=1))
    assert guessed.grid.spacing_mm[0] == pytest.approx(1)
    assert "1 mm is assumed" in " ".join(guessed.guesses)
    assert read_volume(write(tmp_path / "with", count=1, SliceThickness=5)).grid.spacing_mm[
        0
    ] == pytest.approx(5)
