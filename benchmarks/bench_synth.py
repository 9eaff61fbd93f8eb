"""What synthesis of a head takes, and the memory of a large volume (`make bench`; Linux).

python benchmarks/bench_synth.py
"""

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from voxlate import phantom
from voxlate.scans.images.units import unit_of
from voxlate.synthesis.cohort import Selection, synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import CaseScans
from voxlate.training.recipe import from_dict
from voxlate.training.torch_network import TorchNetwork, model_facts

HEAD = (170, 256, 256)
DEPTH = 160
RANGE_HU = [-1000.0, 2000.0]
NET = {"kind": "unet", "width": 16, "multipliers": [1, 2], "blocks": 1, "patch": 4}
RECIPE = {
    "title": "benchmark",
    "data": {"source": ["t1"], "target": ["ct"], "patch": [1, 256, 256]},
    "intensity": {
        "t1": {"kind": "percentile"},
        "ct": {"kind": "window", "low": RANGE_HU[0], "high": RANGE_HU[1]},
    },
    "method": {"kind": "diffusion"},
    "net": {**NET, "middle_attention": False},
    "synth": {"sampler": "ddim", "steps": 2, "samples": 2, "batch": 4},
}


def untrained() -> Model:
    """A small model with fresh weights; how well it does is not the question here."""
    torch.manual_seed(0)
    recipe, device = from_dict(RECIPE, "benchmark"), torch.device("cpu")
    method = recipe.build().eval().requires_grad_(False)
    header = {
        "target_scales": {"ct": RANGE_HU},
        "units": {name: unit_of(name) for name in ("t1", "ct")},
        "weights_hash": "",
        "steps": 0,
    }
    network = TorchNetwork(method, recipe, header, device, f"{device}")
    return Model(model_facts(recipe, header), network, Path("benchmark"))


def measured(*words: str) -> str:
    """Wall and CPU seconds, and peak memory, of Python with these words in a process of its own."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):  # 3: an image that is not to be trusted
        sys.exit(f"{' '.join(words)}: failed")
    seconds, cpu_seconds = time.perf_counter() - begun, usage.ru_utime + usage.ru_stime
    return f"{seconds:.0f} s, {cpu_seconds:.0f} s of CPU, {usage.ru_maxrss / 2**20:.2f} GiB"


def write_scan(path: Path) -> None:
    """A head of noise in noisy air; written plane by plane, so that this process, whose peak a child inherits, stays small."""
    draw = np.random.default_rng(0)
    y, x = np.ogrid[-1:1:512j, -1:1:512j]
    empty = np.broadcast_to(np.int16(0), (512, 512, DEPTH))
    image = nib.Nifti1Image(empty, np.diag([0.5, 0.5, 1.0, 1.0]))
    with gzip.open(path, "wb", compresslevel=1) as file:
        image.header.write_to(file)
        file.write(bytes(4))
        for z in np.linspace(-1, 1, DEPTH):
            head = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.2) ** 2 < 1
            plane = np.abs(draw.normal(600 * head, 20))
            file.write(plane.astype(np.int16).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volume", type=Path, help=argparse.SUPPRESS)
    scan = parser.parse_args().volume
    if scan:
        selection = Selection(untrained(), [CaseScans("case", {"t1": scan})])
        synthesise_cases(selection, scan.parent / "out", anyway=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        cohort, large = Path(folder) / "cohort", Path(folder) / "scan.nii.gz"
        write_scan(large)
        print(f"512×512×{DEPTH} by a small network:", measured(__file__, "--volume", f"{large}"))
        phantom(cohort, cases=1, size=HEAD, modalities=["t1"], lesion="none", progress=False)
        (t1,) = cohort.glob("*/t1.nii.gz")
        words = ("-m", "voxlate", "synth", "starter:head-mr-to-ct", f"mr={t1}")
        print("head to CT with intervals:", measured(*words, "--out", f"{folder}/out"))


if __name__ == "__main__":
    main()
