"""A large scan is synthesised within design.md's bound: plain arrays, and a network that sees a batch at a time."""

import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import torch

from stand_ins import model_of, recipe_of
from voxlate.scans.images import mask

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


def test_a_synthesis_takes_at_most_40_bytes_a_voxel(scan, out, tmp_path, monkeypatch):
    monkeypatch.setattr(mask, "SAMPLES", 1000)  # its default is small for large volumes
    synthesised(scan, tmp_path / "warm")  # imports take memory, too
    tracemalloc.start()
    synthesised(scan, out)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken / VOXELS < 40
