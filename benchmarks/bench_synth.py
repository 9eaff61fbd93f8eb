"""What synthesis of a head takes, and the memory of a large volume.

python benchmarks/bench_synth.py     writes bench/synth.json
"""

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from rich.console import Console

from voxlate import phantom
from voxlate.base.files import write_json
from voxlate.scans.images.units import unit_of
from voxlate.synthesis.cohort import Selection, synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import CaseScans
from voxlate.training.recipe import Recipe, from_dict
from voxlate.training.torch_network import TorchNetwork, model_facts

Table = dict[str, Any]
RECIPE: Table = {
    "title": "benchmark",
    "data": {"source": ["t1"], "target": ["ct"], "patch": [1, 256, 256]},
    "method": {"kind": "diffusion"},
    "net": {
        "kind": "unet",
        "width": 16,
        "multipliers": [1, 2],
        "blocks": 1,
        "patch": 4,
        "middle_attention": False,
    },
    "synth": {"sampler": "ddim", "steps": 2, "samples": 2, "batch": 4},
}
WINDOW = {"kind": "window", "low": -1000, "high": 2000}


def untrained(recipe: Recipe, device: torch.device) -> Model:
    """A model with fresh weights; how well it does is not the question here."""
    torch.manual_seed(0)
    method = recipe.build().to(device).eval().requires_grad_(False)
    header = {
        "target_scales": {name: [-1000.0, 2000.0] for name in recipe.data.target},
        "units": {name: unit_of(name) for name in (*recipe.data.source, *recipe.data.target)},
        "weights_hash": "",
        "steps": 0,
    }
    network = TorchNetwork(method, recipe, header, device, f"{device}")
    return Model(model_facts(recipe, header), network, Path("benchmark"))


def measured(*words: str) -> dict[str, float]:
    """Wall and CPU seconds, and peak memory in GiB, of Python with these words in a process of its own (Linux)."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):  # 3: an image that is not to be trusted
        sys.exit(f"{' '.join(words)}: failed")
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "gib": usage.ru_maxrss / 2**20,
    }


def head(size: tuple[int, int, int]) -> dict[str, float]:
    """What the command line takes to synthesise the CT of a head with intervals."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = Path(folder) / "cohort"
        phantom(cohort, cases=1, size=size, modalities=["t1"], lesion="none", progress=False)
        (scan,) = cohort.glob("*/t1.nii.gz")
        words = ("-m", "voxlate", "synth", "starter:head-mr-to-ct", f"mr={scan}")
        return measured(*words, "--out", f"{folder}/out")


def peak(kind: str, depth: int) -> dict[str, float]:
    """What a process takes that synthesises a 512×512×depth file: two samples, two steps."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        write_scan(path, kind, depth)
        return measured(__file__, "--volume", str(path), "--kind", kind)


def write_scan(path: Path, kind: str, depth: int) -> None:
    """A head of noise in noisy air, whole numbers; written plane by plane, so that this process stays small as well."""
    draw = np.random.default_rng(0)
    y, x = np.ogrid[-1:1:512j, -1:1:512j]
    image = nib.Nifti1Image(
        np.broadcast_to(np.int16(0), (512, 512, depth)), np.diag([0.5, 0.5, 1.0, 1.0])
    )
    with gzip.open(path, "wb", compresslevel=1) as file:
        image.header.write_to(file)
        file.write(bytes(4))
        for z in np.linspace(-1, 1, depth):
            head = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.2) ** 2 < 1
            plane = draw.normal(0, 20, (512, 512)) + np.where(head, 40, -1000)
            file.write(
                (plane if kind == "ct" else np.abs(plane + np.where(head, 560, 1000)))
                .astype(np.int16)
                .tobytes()
            )


def volume(path: Path, kind: str) -> None:
    """What `peak` measures: a file through the whole of synth, to files again."""
    source = WINDOW if kind == "ct" else {"kind": "percentile"}
    recipe = from_dict({**RECIPE, "intensity": {"t1": source, "ct": WINDOW}}, "benchmark")
    made = untrained(recipe, torch.device("cpu"))
    cases = [CaseScans("case", {"t1": path})]
    synthesise_cases(Selection(made, cases), path.parent / "out", anyway=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volume", type=Path, help="(internal) synthesise this scan")
    parser.add_argument("--kind", choices=("ct", "mr"), help="(internal) how the scan is scaled")
    parser.add_argument("--out", type=Path, default=Path("bench/synth.json"))
    options = parser.parse_args()
    if options.volume:
        volume(options.volume, options.kind)
        return
    console = Console()
    of_head = head((170, 256, 256))
    console.print(
        f"head to CT with intervals: {of_head['seconds']:.1f} s, {of_head['cpu_seconds']:.1f} s of CPU, "
        f"{of_head['gib']:.2f} GiB (target: 6 s on two cores, 2 GiB)"
    )
    peaks = {}
    for kind, scaled in (("ct", "window"), ("mr", "percentiles of the foreground")):
        for depth in (40, 160, 320):
            peaks[f"{kind} 512×512×{depth}"] = one = peak(kind, depth)
            console.print(
                f"peak memory of synth, {kind} ({scaled}), 512×512×{depth}: {one['gib']:.2f} GiB in "
                f"{one['seconds']:.0f} s (target: under 3 GiB, whatever the slices)"
            )
    write_json(options.out, {"head": of_head, "peaks": peaks})


if __name__ == "__main__":
    main()
