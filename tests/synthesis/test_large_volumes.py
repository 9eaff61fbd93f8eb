"""A volume larger than memory passes through synth in slabs and files, with the same bits as in memory."""

import gc
import tracemalloc
import weakref

import nibabel as nib
import numpy as np
import pytest
import torch

from refusals import refuses
from rows import slow
from stand_ins import model_of, recipe_of
from voxlate.base import slabs
from voxlate.base.slabs import scratch_in
from voxlate.scans.images import mask
from voxlate.synthesis import memory
from voxlate.synthesis.memory import check_memory

SHAPE = (80, 90, 64)  # x, y, z
VOXELS = 80 * 90 * 64


class Method(torch.nn.Module):
    """Makes the source itself, so that whatever memory is taken is that of the volumes."""

    net = torch.nn.Identity()

    def synthesise(self, batch, noise, how):
        return batch.source


def stand_in(**data):
    recipe = recipe_of(
        {"source": ["t1"], "target": ["ct"], "patch": [1, 32, 32], **data},
        {"t1": {"kind": "percentile"}, "ct": {"kind": "window", "low": -1000, "high": 2000}},
        task={"kind": "translate", "inside": True, "strip": True},
    )
    return model_of(Method(), recipe, {"ct": "HU"}, training_voxels=["0"])


@pytest.fixture
def scan(tmp_path):
    """An uncompressed file of a noisy head of int16 voxels, whose axes grow to the left and back."""
    x, y, z = np.ogrid[-1:1:80j, -1:1:90j, -1.2:1.2:64j]
    head = (x / 0.7) ** 2 + (y / 0.8) ** 2 + z**2 < 1
    voxels = np.random.default_rng(0).integers(0, 9, SHAPE, np.int16) + np.int16(500) * head
    path = tmp_path / "t1.nii"
    nib.save(nib.Nifti1Image(voxels, np.diag([-2, -2, 2, 1.0])), path)
    return path


def synthesised(scan, out):
    """The bytes of the image's file."""
    stand_in(foreground=0.05).synthesise({"t1": scan}, warn=lambda _: None).write(out, ".nii")
    return (out / "ct.nii").read_bytes()


@slow
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


@slow
def test_the_estimated_disk_is_what_a_synthesis_takes_at_most(scan, out, tmp_path, monkeypatch):
    live = [0]  # after each file that begins or ends
    map_file = slabs._map_file

    def counted(folder, size):
        live.append(live[-1] + size)
        made = map_file(folder, size)
        weakref.finalize(made, lambda: live.append(live[-1] - size))
        return made

    monkeypatch.setattr(slabs, "_map_file", counted)
    monkeypatch.setattr(slabs, "SLAB", 2 * 80 * 90)
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", VOXELS // 4)
    with scratch_in(tmp_path):
        synthesised(scan, out)
    gc.collect()
    estimated = memory._bytes_a_voxel(1, stand_in().facts)
    assert 0.5 * estimated < max(live) / VOXELS < estimated
    assert live[-1] == 0


def test_a_scan_that_needs_more_memory_or_disk_than_there_is_is_refused_before_it_is_read(
    scan, tmp_path, monkeypatch
):
    given = {"t1": scan}, stand_in().facts
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", VOXELS)
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    with refuses("80×90×64"):
        check_memory(*given)
    monkeypatch.setattr(memory, "free_memory", lambda: 2**40)
    monkeypatch.setattr(memory, "free_disk", lambda folder: 2**20)
    check_memory(*given)
    refusal = r"expected 0.0 GB of free disk in .* found 0.0 GB"
    with scratch_in(tmp_path), refuses(refusal):
        check_memory(*given)
    monkeypatch.setattr(slabs, "LEAST_BYTES_IN_FILE", 5 * VOXELS)  # a scan of a usual size
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    check_memory(*given)
