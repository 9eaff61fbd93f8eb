"""What a prepared case can hold."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from refusals import refuses
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import MOST_MODALITIES, OPEN_FILES, open_case, prepare_case
from voxlate.scans.images.grid import Volume


def test_a_mask_has_room_for_64_modalities_and_more_are_refused():
    data = np.zeros((1, 4, 8, 8), np.float32)
    data[:, 1:3, 2:6, 2:6] = 100
    names = [f"m{k}" for k in range(MOST_MODALITIES + 1)]
    scans = {name: Volume(data, np.eye(4), "a.u.", name, f"{name}.nii.gz") for name in names}
    with refuses("found 65"):
        prepare_case("case0", scans, Preparation())
    del scans[names[0]]
    case = prepare_case("case0", scans, Preparation())
    assert (case.mask([names[-1]]) == (data[0] > 0)).all()


def test_opened_cases_hold_fewer_files_than_a_process_may_open(prepared, tmp_path):
    one, here = min((prepared / "cases").iterdir()), Path("/proc/self/fd")
    if not here.is_dir():
        pytest.skip("this system does not list a process's open files")
    before = len(list(here.iterdir()))
    for number in range(OPEN_FILES + 9):
        assert open_case(shutil.copy(one, tmp_path / f"{number}.safetensors")).header
    assert len(list(here.iterdir())) - before <= OPEN_FILES
