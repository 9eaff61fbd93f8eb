"""A challenge: the layout of its cohort, and its container's script on a phantom."""

import socket
from pathlib import Path

import numpy as np
import synthrad

from rows import slow
from scans import touch
from voxlate.base.files import read_json
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume

RECIPE = """
title = "tiny"
data = { source = ["t1"], target = ["ct"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, ct = { kind = "window", low = -1000, high = 1500 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0, validate_every = 2, log_every = 1 }
"""


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
