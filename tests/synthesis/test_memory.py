"""A large scan is synthesised within design.md's bound: plain arrays, and a network that sees a batch at a time."""

import subprocess
import sys

from rows import slow

SYNTH = """
from pathlib import Path

import numpy as np
import torch

from voxlate.base import machine
from voxlate.scans.images.grid import Volume
from voxlate.training.recipe import from_dict
from voxlate.synthesis.model import Model
from voxlate.training.torch_network import model_facts
from voxlate.training.torch_network import TorchNetwork


class Method(torch.nn.Module):
    net = torch.nn.Identity()

    def synthesise(self, batch, noise, how):
        return batch.source


recipe = from_dict({
    "title": "stand-in",
    "data": {"source": ["t1"], "target": ["ct"]},
    "intensity": {"t1": {"kind": "percentile"}, "ct": {"kind": "window", "low": -1000, "high": 2000}},
    "task": {"kind": "translate", "inside": True, "strip": True},
    "method": {"kind": "regression"},
    "train": {"precision": "float32"},
}, "here")
header = {"target_scales": {"ct": [-1000, 2000]}, "units": {"ct": "HU"}, "weights_hash": "", "steps": 0}
z, y, x = np.ogrid[-1:1:160j, -1:1:512j, -1:1:512j]
head = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.1) ** 2 < 1
values = 3 * np.random.default_rng(0).random((1, 160, 512, 512), np.float32)
values[0][head] += 500
scan = Volume(values, np.diag([-0.4, -0.4, 1.0, 1.0]), "a.u.", "t1")
network = TorchNetwork(Method(), recipe, header, torch.device("cpu"), "cpu")
made = Model(model_facts(recipe, header), network, Path("nowhere")).synthesise({"t1": scan})
assert made.volume.data.shape == values.shape
print(machine.peak_memory() / 2**30)
"""


@slow
def test_a_scan_of_512_by_512_by_160_needs_less_than_3_gib():
    answer = subprocess.run(
        [sys.executable, "-c", SYNTH], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 3
