"""What synthesis costs in addition to its network, and how much memory a large volume takes.

python benchmarks/bench_synth.py [--quick]     writes bench/synth.json
"""

import argparse
import gzip
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from rich.console import Console

from voxlate.batch import Batch
from voxlate.diffusion.noise import Noise
from voxlate.recipe import from_dict
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import Scans
from voxlate.synthesis.selection import Selection
from voxlate.system import machine
from voxlate.system.files import write_json

RECIPE = {
    "title": "benchmark",
    "data": {"source": ["t1"], "target": ["ct"], "patch": [1, 256, 256]},
    "intensity": {
        "t1": {"kind": "percentile"},
        "ct": {"kind": "window", "low": -1000, "high": 2000},
    },
    "method": {"kind": "diffusion"},
    "synth": {"sampler": "ddim", "steps": 8, "batch": 4},
}
SMALL = {"kind": "unet", "width": 32, "multipliers": [1, 2, 4, 4], "blocks": 1, "patch": 4}

TINY = {
    "kind": "unet",
    "width": 16,
    "multipliers": [1, 2],
    "blocks": 1,
    "patch": 4,
    "middle_attention": False,
}


def model(net: dict | None = None, intensity: dict | None = None, **synth: object) -> Model:
    """A model with fresh weights; how well it does is not the question here."""
    values = {**RECIPE, "synth": {**RECIPE["synth"], **synth}, **({"net": net} if net else {})}  # type: ignore[dict-item]
    if intensity:
        values["intensity"] = {**RECIPE["intensity"], "t1": intensity}  # type: ignore[dict-item]
    recipe = from_dict(values, "benchmark")
    torch.manual_seed(0)
    header = {
        "target_scales": {"ct": [-1000, 2000]},
        "units": {"ct": "HU", "t1": "a.u."},
        "weights_hash": "",
        "steps": 0,
    }
    method = recipe.build().eval().requires_grad_(False)
    return Model(method, recipe, header, torch.device("cpu"), Path("benchmark"))


def overhead(net: dict | None, steps: int = 8, repeats: int = 3) -> float:
    """Share of the sampling time at 256² that is not the network, median of repeats."""
    made = model(net, steps=steps)
    method, spent = made.method, 0.0
    inner = method.net.forward

    def timed(*arguments: object) -> torch.Tensor:
        nonlocal spent
        begun = time.perf_counter()
        result: torch.Tensor = inner(*arguments)
        spent += time.perf_counter() - begun
        return result

    method.net.forward = timed  # type: ignore[method-assign]
    source = torch.zeros(1, 1, 1, 256, 256)
    batch = Batch(
        source, torch.ones_like(source), torch.ones(1, 1, dtype=torch.bool), torch.tensor([1])
    )
    shares = []
    for repeat in range(repeats + 1):
        spent, begun = 0.0, time.perf_counter()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            method.synthesise(batch, Noise(repeat, batch.item), made.recipe.synth)
        shares.append(1 - spent / (time.perf_counter() - begun))
    return sorted(shares[1:])[repeats // 2]


def peak(kind: str, depth: int) -> dict[str, float]:
    """Peak memory in GiB, and seconds, of a process that synthesises a 512×512×depth file: two samples, two steps."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        write_scan(path, kind, depth)
        command = [sys.executable, __file__, "--volume", str(path), "--kind", kind]
        printed = (
            subprocess.run(command, check=True, capture_output=True, text=True)
            .stdout.strip()
            .splitlines()
        )
    gib, seconds = printed[-1].split()
    return {"gib": float(gib), "seconds": float(seconds)}


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
    begun = time.perf_counter()
    intensity = (
        {"kind": "window", "low": -1000, "high": 2000} if kind == "ct" else {"kind": "percentile"}
    )
    made = model(TINY, intensity, steps=2, samples=2)
    synthesise_cases(Selection(made, [Scans("case", {"t1": path})]), path.parent / "out")
    print(machine.peak_memory() / 2**30, time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few slices: does it run?")
    parser.add_argument(
        "--volume", type=Path, help="(internal) synthesise this scan and print the peak"
    )
    parser.add_argument("--kind", choices=("ct", "mr"), help="(internal) how the scan is scaled")
    parser.add_argument("--out", type=Path, default=Path("bench/synth.json"))
    options = parser.parse_args()
    if options.volume:
        return volume(options.volume, options.kind)
    console = Console()
    shares = {
        name: overhead(net) for name, net in (("default network", None), ("small network", SMALL))
    }
    for name, share in shares.items():
        console.print(
            f"sampler overhead at 256², {name}: {100 * share:.1f} % of the time (target: under 5 %)"
        )
    peaks = {}
    for kind, scaled in (("ct", "window"), ("mr", "percentiles of the foreground")):
        for depth in (4, 8) if options.quick else (40, 160, 320):
            peaks[f"{kind} 512×512×{depth}"] = one = peak(kind, depth)
            console.print(
                f"peak memory of synth, {kind} ({scaled}), 512×512×{depth}: {one['gib']:.2f} GiB in "
                f"{one['seconds']:.0f} s (target: under 3 GiB, whatever the slices)"
            )
    write_json(options.out, {"overhead": shares, "peaks": peaks})
    return None


if __name__ == "__main__":
    main()
