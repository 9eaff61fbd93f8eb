"""What synthesis costs beside its network, and how much memory a large volume takes.

python benchmarks/bench_synth.py [--quick]     writes bench/synth.json
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from voxlate.batch import Batch
from voxlate.diffusion.noise import Noise
from voxlate.files import write_json
from voxlate.images.volume import Volume
from voxlate.recipe import build_all, from_dict
from voxlate.synthesise import Model

RECIPE = {
    "title": "benchmark",
    "data": {"source": ["t1"], "target": ["ct"], "patch": [1, 256, 256]},
    "intensity": {"t1": {"kind": "percentile"}, "ct": {"kind": "window", "low": -1000, "high": 2000}},
    "method": {"kind": "diffusion"},
    "synth": {"sampler": "ddim", "steps": 8, "batch": 4},
}
SMALL = {"kind": "unet", "width": 32, "multipliers": [1, 2, 4, 4], "blocks": 1, "patch": 4}


def model(net: dict | None = None, **synth: object) -> Model:
    """A model with fresh weights; how well it does is not the question here."""
    values = {**RECIPE, "synth": {**RECIPE["synth"], **synth}, **({"net": net} if net else {})}  # type: ignore[dict-item]
    recipe = from_dict(values, "benchmark")
    torch.manual_seed(0)
    header = {
        "target_scales": {"ct": [-1000, 2000]},
        "units": {"ct": "HU", "t1": "a.u."},
        "weights_hash": "",
        "steps": 0,
    }
    method = build_all(recipe).eval().requires_grad_(False)
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
    batch = Batch(source, torch.ones_like(source), torch.ones(1, 1, dtype=torch.bool), torch.tensor([1]))
    shares = []
    for repeat in range(repeats + 1):
        spent, begun = 0.0, time.perf_counter()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            method.synthesise(batch, Noise(repeat, batch.item), made.recipe.synth)
        shares.append(1 - spent / (time.perf_counter() - begun))
    return sorted(shares[1:])[repeats // 2]


def peak(depth: int) -> float:
    """Peak memory in GiB of a process that synthesises a 512×512×depth volume with two samples of two steps."""
    command = [sys.executable, __file__, "--volume", str(depth)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


def volume(depth: int) -> None:
    """What `peak` measures: a volume through the whole of Model.synthesise."""
    data = np.random.default_rng(0).integers(0, 1000, (1, depth, 512, 512), np.int16).astype(np.float32)
    scan = Volume(data, np.diag([0.5, 0.5, 1.0, 1.0]), "a.u.", "t1")
    model(SMALL, steps=2, samples=2).synthesise({"t1": scan})
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few slices: does it run?")
    parser.add_argument("--volume", type=int, help="(internal) synthesise so many slices and print the peak")
    parser.add_argument("--out", type=Path, default=Path("bench/synth.json"))
    options = parser.parse_args()
    if options.volume:
        return volume(options.volume)
    console = Console()
    shares = {name: overhead(net) for name, net in (("default network", None), ("small network", SMALL))}
    for name, share in shares.items():
        console.print(f"sampler overhead at 256², {name}: {100 * share:.1f} % of the time (target: under 5 %)")
    depths = (4, 8) if options.quick else (40, 160)
    peaks = {depth: peak(depth) for depth in depths}
    for depth, gib in peaks.items():
        console.print(
            f"peak memory of synth, 512×512×{depth}: {gib:.2f} GiB (target: under 3 GiB, whatever the slices)"
        )
    write_json(options.out, {"overhead": shares, "peak_gib": {str(depth): gib for depth, gib in peaks.items()}})
    return None


if __name__ == "__main__":
    main()
