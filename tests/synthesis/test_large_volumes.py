"""A volume larger than memory passes through synth in slabs and files, with the same bits as in memory."""

import gc
import tracemalloc
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from stand_ins import model_of, recipe_of
from voxlate.base import slabs
from voxlate.base.errors import BadInput
from voxlate.base.slabs import scratch_in
from voxlate.scans.images import mask
from voxlate.synthesis import memory
from voxlate.synthesis.memory import check_memory
from voxlate.synthesis.model import Model

SHAPE = (80, 90, 64)  # x, y, z
VOXELS = 80 * 90 * 64


class Method(torch.nn.Module):
    """Makes the source itself, so that whatever memory is taken is that of the volumes."""

    net = torch.nn.Identity()

    def synthesise(self, batch, noise, how):
        return batch.source


def stand_in(**data) -> Model:
    window = {"kind": "window", "low": -1000, "high": 2000}
    recipe = recipe_of(
        {"source": ["t1"], "target": ["ct"], "patch": [1, 32, 32], **data},
        {"t1": {"kind": "percentile"}, "ct": window},
        task={"kind": "translate", "inside": True, "strip": True},
    )
    return model_of(Method(), recipe, {"ct": "HU"}, training_voxels=["0"])


@pytest.fixture
def scan(tmp_path) -> Path:
    """An uncompressed file of a noisy head of int16 voxels, whose axes grow to the left and back."""
    x, y, z = np.ogrid[-1:1:80j, -1:1:90j, -1.2:1.2:64j]
    head = (x / 0.7) ** 2 + (y / 0.8) ** 2 + z**2 < 1
    voxels = np.random.default_rng(0).integers(0, 9, SHAPE, np.int16) + np.int16(500) * head
    path = tmp_path / "t1.nii"
    nib.save(nib.Nifti1Image(voxels, np.diag([-2, -2, 2, 1.0])), path)
    return path


def synthesised(scan: Path, out: Path) -> bytes:
    """The bytes of the image's file."""
    stand_in(foreground=0.05).synthesise({"t1": scan}, warn=lambda _: None).write(out, ".nii")
    return (out / "ct.nii").read_bytes()


@pytest.mark.slow
def test_large_volumes_are_synthesised_to_the_bit_in_three_tenths_of_the_memory(
    scan, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        mask, "SAMPLES", 1000
    )  # its default is small in comparison with large volumes
    synthesised(scan, tmp_path / "warm")  # imports take memory, too
    tracemalloc.start()
    expected = synthesised(scan, tmp_path / "whole")
    in_memory = tracemalloc.get_traced_memory()[1]
    monkeypatch.setattr(slabs, "SLAB", 2 * 80 * 90)
    tracemalloc.reset_peak()
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", VOXELS // 4)
    with scratch_in(tmp_path):
        found = synthesised(scan, tmp_path / "slabs")
    in_slabs = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == expected
    assert in_slabs < 0.3 * in_memory
    assert {path.name for path in tmp_path.iterdir()} == {"t1.nii", "warm", "whole", "slabs"}


@pytest.mark.slow
def test_the_estimated_disk_is_what_a_synthesis_takes_at_most(scan, out, tmp_path, monkeypatch):
    live = 0
    peak = 0
    map_file = slabs._map_file

    def counted(folder, size):
        nonlocal live, peak
        live += size
        peak = max(peak, live)
        made = map_file(folder, size)
        weakref.finalize(made, ended, size)
        return made

    def ended(size):
        nonlocal live
        live -= size

    monkeypatch.setattr(slabs, "_map_file", counted)
    monkeypatch.setattr(slabs, "SLAB", 2 * 80 * 90)
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", VOXELS // 4)
    with scratch_in(tmp_path):
        synthesised(scan, out)
    gc.collect()
    estimated = memory._bytes_a_voxel(1, stand_in().facts)
    assert 0.5 * estimated < peak / VOXELS < estimated
    assert live == 0


def test_a_scan_that_needs_more_memory_or_disk_than_there_is_is_refused_before_it_is_read(
    scan, tmp_path, monkeypatch
):
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", VOXELS)
    recipe = stand_in().facts
    scans = {"t1": scan}
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    with pytest.raises(BadInput, match="80×90×64"):
        check_memory(scans, recipe)
    monkeypatch.setattr(memory, "free_memory", lambda: 2**40)
    monkeypatch.setattr(memory, "free_disk", lambda folder: 2**20)
    check_memory(scans, recipe)
    with (
        scratch_in(tmp_path),
        pytest.raises(BadInput, match=r"expected 0.0 GB of free disk in .* found 0.0 GB"),
    ):
        check_memory(scans, recipe)
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", 5 * VOXELS)  # a scan of a usual size
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    check_memory(scans, recipe)
