"""A challenge from end to end: its metrics through `evaluate`, and its container's script on a phantom."""

import socket
from pathlib import Path

import numpy as np
import pytest
import synthrad

from refusals import refuses
from rows import every_row, slow
from scans import touch
from voxlate.base.files import read_json
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.evaluators import brasyn, synthrad2023, synthrad2025
from voxlate.evaluation.scoring.scores import read_scores
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume, directions

RECIPE = """
title = "tiny"
data = { source = ["t1"], target = ["ct"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, ct = { kind = "window", low = -1000, high = 1500 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0, validate_every = 2, log_every = 1 }
"""


def save(path, data, modality="ct", unit="HU"):
    volume = Volume(data.astype(np.float32)[None], directions("LPS"), unit, modality)
    write_volume(path, volume)


@pytest.fixture
def scored(tmp_path):
    """A case of SynthRAD's layout, its synthesis, and their arrays as stored: truth, image and mask."""
    random = np.random.default_rng(3)
    truth = random.normal(0, 300, (18, 23, 21)).round()
    truth[:, :3] = -1000
    image = (truth + random.normal(0, 60, truth.shape)).round()
    image[5, 9, 9] = 3500
    mask = np.zeros(truth.shape)
    mask[2:16, 4:22, 3:19] = 1
    case = tmp_path / "Task1/HN" / "1HNA001"
    save(case / "ct.nii.gz", truth)
    save(case / "mask.nii.gz", mask, "mask", "")
    save(tmp_path / "out/1HNA001" / "ct.nii.gz", image)
    return tmp_path, (truth, image, mask > 0)


@slow
def test_evaluate_has_the_challenges_scores_of_the_arrays_as_they_are_stored(scored, typed):
    pytest.importorskip("SimpleITK")
    folder, arrays = scored
    case = folder / "cohort/HN/1HNA001"
    save(case / "ct.mha", arrays[0])
    save(case / "mr.mha", np.abs(arrays[0]), "mr", "a.u.")
    save(case / "mask.mha", arrays[2], "mask", "")
    scopes = "--scopes synthrad2023 --scopes synthrad2025 --regions tissues=ct"
    typed(f"evaluate out --truth cohort --preset synthrad2025 {scopes} --any-truth").done()
    scores = read_scores(folder / "out" / "metrics.json")
    means = scores.means["ct"]["synthesis"]
    for challenge in (synthrad2023, synthrad2025):
        expected = challenge(*arrays)
        found = {key: means[f"{challenge.__name__}.{key}"]["mean"] for key in expected}
        assert found == pytest.approx(expected, abs=1e-6)
    keys = [*scores.metrics]
    first = keys.index("synthrad2023.mae")
    assert keys[first + 2] == "synthrad2023.ssim", "the scores of a challenge stand together"
    assert means["synthrad2025.ms_ssim"]["n"] == 1
    assert "soft_tissue" in read_json(folder / "out" / "metrics.json")["regions"]
    turned = synthrad2025(*(one[:, ::-1, ::-1] for one in arrays))
    assert turned["ms_ssim"] != pytest.approx(found["ms_ssim"], abs=1e-6)
    typed("prepare cohort --preset synthrad2025 --out prepared").done()


def test_brasyn_is_scored_in_tumour_and_rest(scored):
    folder, (truth, image, mask) = scored
    case = folder / "brain/p0"
    save(case / "t2.nii.gz", np.abs(truth), "t2", "a.u.")
    save(case / "seg.nii.gz", 2 * mask, "seg", "")
    save(folder / "made/p0" / "t2.nii.gz", np.abs(image), "t2", "a.u.")
    row = evaluate(folder / "made", folder / "brain", scopes=["brasyn"], any_truth=True).rows[0]
    expected = brasyn(np.abs(truth), np.abs(image), mask)
    found = {key: row.scores[f"brasyn.{key}"] for key in expected}
    assert found == pytest.approx(expected, abs=1e-6)


@every_row(
    "name, lost, message",
    [
        ("synthrad2025", "mask.nii.gz", "expected a mask file in the cohort, found none"),
        ("brasyn", "seg.nii.gz", "expected the label map seg of 1HNA001, .* found none"),
    ],
)
def test_a_case_without_what_a_challenge_needs_is_refused(scored, name, lost, message):
    folder, _ = scored
    (folder / "Task1/HN" / "1HNA001" / lost).unlink(missing_ok=True)
    with refuses(message):
        evaluate(folder / "out", folder / "Task1", preset="synthrad", scopes=[name], any_truth=True)


def test_the_cohort_of_2025_is_found_in_each_region_and_in_one(tmp_path):
    for region in ("AB", "HN", "TH"):
        case = tmp_path / "Task1" / region / f"1{region}A001"
        touch(case, "mr.mha", "ct.mha", "mask.mha")
    touch(tmp_path, "Task1/AB/overviews/ct.mha")
    cases = find_cohort(tmp_path, preset="synthrad2025").cases
    assert [case.case for case in cases] == ["1ABA001", "1HNA001", "1THA001"]
    assert all(list(case.files) == ["ct", "mr"] and case.mask for case in cases)
    one = find_cohort(tmp_path / "Task1/AB", preset="synthrad2025").cases
    assert [case.case for case in one] == ["1ABA001"]


@slow
def test_the_containers_script_writes_a_ct_for_each_scan_without_network(
    typed, tmp_path, monkeypatch
):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    for line in (
        "phantom --out heads --cases 3 --size 20 24 8 --modalities t1 --modalities ct",
        "prepare heads --out prepared",
        "train tiny.toml --data prepared --out run --device cpu",
    ):
        typed(line).done()
    monkeypatch.setattr(socket, "socket", None)
    scan = read_volume(tmp_path / "heads/phantom_000" / "t1.nii.gz", "t1")
    images = tmp_path / "input/images"
    write_volume(images / "mri/1BA001.nii.gz", scan)
    mask = np.zeros(scan.data.shape, np.float32)
    mask[:, 2:6, 6:18, 5:15] = 1
    write_volume(images / "body/1BA001.nii.gz", Volume(mask, scan.affine, "", "mask"))
    (tmp_path / "input/region.json").write_text('"Head and Neck"')
    assert synthrad.main(["run", "--input", "input", "--output", "output"]) == 0
    made = Path("output/images/synthetic-ct/1BA001.nii.gz")
    image = read_volume(made, "ct")
    assert image.grid == scan.grid
    assert (image.data[mask == 0] == -1024).all()
    assert (image.data[mask > 0] > -1024).all()
    (result,) = read_json(Path("output/results.json"))
    assert result["outputs"] == [{"type": "metaio_image", "filename": str(made)}]
    assert len(result["inputs"]) == 2


def test_the_containers_script_says_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert synthrad.main(["RUN", "--input", ".", "--output", "."]) == 1
    said = "expected scans (.mha or .nii.gz) in images/mri or images/cbct"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()
