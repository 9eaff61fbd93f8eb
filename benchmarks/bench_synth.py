"""What synthesis costs in addition to its network, by part, and how much memory a large volume takes.

python benchmarks/bench_synth.py [--quick]     writes bench/synth.json
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from rich.console import Console

from voxlate import phantom, synthesise
from voxlate.base import machine
from voxlate.base.files import write_json
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.synthesis import inputs, result
from voxlate.synthesis import model as model_of_case
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import CaseScans
from voxlate.synthesis.selection import Selection
from voxlate.training import torch_network as model_of_run
from voxlate.training.recipe import from_dict
from voxlate.training.torch_network import TorchNetwork, model_facts, network_of

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

PARTS = (  # of a synthesis, and the functions that they consist of
    ("read", inputs, "as_volume"),
    ("resample", inputs, "prepare_case"),
    ("checks", model_of_case, "prepare_inputs", "is_in_training"),
    ("network", model_of_case, "sample_planes"),
    ("intervals", model_of_case, "case_intervals"),
    ("background", model_of_case, "find_empty_slices", "empty_slices"),
    ("write", result, "write_images"),
    ("load", model_of_run, "load_members"),
)

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
    network = TorchNetwork(method, recipe, header, torch.device("cpu"), "cpu")
    return Model(model_facts(recipe, header), network, Path("benchmark"))


def overhead(net: dict | None, steps: int = 8, repeats: int = 3) -> float:
    """Share of the sampling time at 256² that is not the network, median of repeats."""
    made = model(net, steps=steps)
    method, spent = network_of(made).method, 0.0
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
            method.synthesise(batch, Noise(repeat, batch.item), network_of(made).recipe.synth)
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
    synthesise_cases(
        Selection(made, [CaseScans("case", {"t1": path})]), path.parent / "out", anyway=True
    )
    print(machine.peak_memory() / 2**30, time.perf_counter() - begun)


@dataclass
class Parts:
    """Wall and CPU seconds by part of a synthesis; a part that another one calls counts for itself alone."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    inner: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0]])

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls count for a part."""

        def run(*arguments: Any, **named: Any) -> Any:
            self.inner.append([0.0, 0.0])
            begun = _clocks()
            try:
                return function(*arguments, **named)
            finally:
                passed = [now - then for now, then in zip(_clocks(), begun)]
                inside = self.inner.pop()
                own = self.seconds.setdefault(part, [0.0, 0.0])
                for clock in (0, 1):
                    own[clock] += passed[clock] - inside[clock]
                    self.inner[-1][clock] += passed[clock]

        return run


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def head(path: Path, begun: float) -> None:
    """What `parts_of_head` measures: a head to CT with intervals, as the command line does it.

    begun: the time when the process was started.
    """
    parts = Parts()
    for part, module, *names in PARTS:
        for name in names:
            setattr(module, name, parts.timed(part, getattr(module, name)))
    started = (time.time() - begun, time.process_time())
    parts.timed("rest", synthesise)(
        "starter:head-mr-to-ct", f"mr={path}", path.parent / "out", progress=False
    )
    whole = {
        "start": started,
        **parts.seconds,
        "in all": (time.time() - begun, time.process_time()),
    }
    print(json.dumps({"seconds": whole, "gib": machine.peak_memory() / 2**30}))


def parts_of_head(size: tuple[int, int, int]) -> dict[str, Any]:
    """Wall and CPU seconds by part of a process that synthesises the CT of a head, and its peak memory in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = Path(folder) / "cohort"
        phantom(cohort, cases=1, size=size, modalities=["t1"], lesion="none", progress=False)
        (scan,) = cohort.glob("*/t1.nii.gz")
        command = [sys.executable, __file__, "--head", str(scan), str(time.time())]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few slices: does it run?")
    parser.add_argument(
        "--volume", type=Path, help="(internal) synthesise this scan and print the peak"
    )
    parser.add_argument("--kind", choices=("ct", "mr"), help="(internal) how the scan is scaled")
    parser.add_argument("--head", nargs=2, help="(internal) synthesise this scan, print its parts")
    parser.add_argument("--out", type=Path, default=Path("bench/synth.json"))
    options = parser.parse_args()
    if options.volume:
        return volume(options.volume, options.kind)
    if options.head:
        return head(Path(options.head[0]), float(options.head[1]))
    console = Console()
    of_head = parts_of_head((64, 96, 96) if options.quick else (170, 256, 256))
    for part, (wall, cpu) in of_head["seconds"].items():
        console.print(f"head to CT with intervals, {part}: {wall:.1f} s, {cpu:.1f} s of CPU")
    console.print(
        f"head to CT with intervals: {of_head['gib']:.2f} GiB (target: 6 s on two cores, 2 GiB)"
    )
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
    write_json(options.out, {"head": of_head, "overhead": shares, "peaks": peaks})
    return None


if __name__ == "__main__":
    main()
