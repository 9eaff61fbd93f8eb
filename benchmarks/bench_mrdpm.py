"""What MAP and BRAN add to the denoiser of paper 000, and what a case takes whole and cropped to its mask.

python benchmarks/bench_mrdpm.py [--quick] [--case] [--small] [--device cuda]     writes bench/mrdpm.json
Weights are fresh. All is timed in turns, medians over rounds after one that is not counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from voxlate import recipe as recipes
from voxlate.batch import Batch
from voxlate.diffusion.noise import Noise
from voxlate.images.grid import Volume
from voxlate.methods.method import Method
from voxlate.nets.interface import NetworkInput
from voxlate.recipe import Recipe
from voxlate.synthesis.model import Model
from voxlate.system.devices import find_device
from voxlate.system.files import write_json
from voxlate.system.machine import keep_freed_memory
from voxlate.training.precision import settled
from voxlate.training.validate import autocast

AIM = 0.40  # of the denoiser's time
PROBE_STEPS = (2, 6)
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": lambda: (
        time.process_time() / torch.get_num_threads()
    ),  # for a machine that others use, too
}


def timed(
    tasks: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each task."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            begun = clock()
            task()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(clock() - begun)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def method_of(recipe: Recipe, device: torch.device) -> Method:
    torch.manual_seed(0)
    return recipe.build().to(device)


def forwards(
    size: int, batch: int, names: dict[str, str], device: torch.device
) -> dict[str, Callable[[], object]]:
    """One evaluation of the denoiser without and with MAP, and BRAN's one pass with its features."""
    recipe = settled(recipes.read(names["mrdpm"]), device)
    with_map, plain = (
        method_of(recipes.read(names[key]), device).eval() for key in ("mrdpm", "bran")
    )
    y = torch.randn(batch, len(recipe.data.source), 1, size, size, device=device)
    x, log_snr = (
        torch.randn(batch, 1, 1, size, size, device=device),
        torch.zeros(batch, device=device),
    )
    predictor: Any = with_map.task.predictor.net  # type: ignore[union-attr]

    def run(call: Callable[[], object]) -> Callable[[], object]:
        def inside() -> object:
            with torch.inference_mode(), autocast(device, recipe.train.precision):
                return call()

        return inside

    given = NetworkInput({"image": y}, x, log_snr=log_snr)
    given_to_predictor = NetworkInput({"image": y})
    with torch.inference_mode(), autocast(device, recipe.train.precision):
        features = predictor(given_to_predictor).extras["features"]
    return {
        "denoiser": run(lambda: plain.net(given)),
        "denoiser with MAP": run(lambda: with_map.net(replace(given, features=features))),
        "BRAN": run(lambda: predictor(given_to_predictor)),
    }


def trainings(
    size: int, batch: int, names: dict[str, str], device: torch.device
) -> dict[str, Callable[[], object]]:
    """One training step of the masked denoiser alone, and with BRAN and MAP learning too."""
    tasks: dict[str, Callable[[], object]] = {}
    for label, key in (("step of the denoiser", "masked"), ("step with BRAN and MAP", "mrdpm")):
        recipe = settled(recipes.read(names[key]), device)
        method = method_of(recipe, device).train()
        optimiser = recipe.train.optimiser.build(list(method.parameters_of("net")))
        source = torch.rand(batch, len(recipe.data.source), 1, size, size) * 2 - 1
        ones = torch.ones(batch, 1, 1, size, size)
        present = torch.ones(batch, source.shape[1], dtype=torch.bool)
        made = Batch(source, ones, present, torch.arange(batch), target=source[:, :1]).to(device)

        def step(
            method: Method = method,
            optimiser=optimiser,
            made: Batch = made,
            low: str = recipe.train.precision,
        ):
            with autocast(device, low):
                loss = method.loss("net", made, Noise(0, made.item))["total"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()

        tasks[label] = step
    return tasks


def model(name: str, device: torch.device, **synth: Any) -> Model:
    recipe = recipes.read(name)
    header = {
        "target_scales": {"tmax": [0, 30]},
        "units": {"tmax": "s"},
        "weights_hash": "",
        "steps": 0,
    }
    method = method_of(recipe, device).eval().requires_grad_(False)
    return Model(method, recipe, header, device, Path("benchmark")).with_options(
        sampler="ddim", **synth
    )


def patient(size: int, slices: int, sources: list[str]) -> dict[str, Volume]:
    """A head-like ellipsoid of HU 40 ± 10 over 60 % of the width and 74 % of the height: a brain in 230 mm of view."""
    y = np.linspace(-1, 1, size)
    z = np.linspace(-0.6, 0.6, slices)[:, None, None]
    inside = (y / 0.60) ** 2 + (y[:, None] / 0.74) ** 2 + z**2 < 1
    tissue = np.random.default_rng(0).normal(40, 10, inside.shape)
    data = np.where(inside, tissue, -1000).astype(np.float32)[None]
    spacing = 230 / size
    return {
        name: Volume(data, np.diag([spacing, spacing, 4.0, 1.0]), "HU", name) for name in sources
    }


def case(
    name: str,
    size: int,
    slices: int,
    steps: int,
    patience_s: float,
    device: torch.device,
    clock: Callable[[], float],
) -> dict[str, object]:
    """Seconds of a case, whole and cropped; from a slice's first and further steps where it takes too long."""
    found: dict[str, object] = {}
    for label, crop in (("whole", None), ("cropped", 8)):
        made = model(name, device, slices={"kind": "whole", "crop": crop})
        batch = made.recipe.synth.batch
        few = patient(size, batch, made.recipe.data.source)
        probes = {str(n): partial(made.synthesise, few, steps=n) for n in PROBE_STEPS}
        low, high = (seconds / batch for seconds in timed(probes, 1, clock).values())
        step = (high - low) / (PROBE_STEPS[1] - PROBE_STEPS[0])
        first = low - PROBE_STEPS[0] * step
        seconds, how = slices * (first + steps * step), "extrapolated"
        if seconds < patience_s:
            whole = patient(size, slices, made.recipe.data.source)
            begun = clock()
            made.synthesise(whole, steps=steps)
            seconds, how = clock() - begun, "measured"
        found[label] = {
            "seconds": seconds,
            "how": how,
            "slice_step_s": step,
            "once_a_slice_s": first,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--train-batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50, help="of DDIM in one sampling")
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: seconds of its own, a thread"
    )
    parser.add_argument("--small", action="store_true", help="mrdpm_small and its rows")
    parser.add_argument("--case", action="store_true", help="a whole case instead of the parts")
    parser.add_argument(
        "--patience", type=float, default=1200, help="seconds; longer cases are extrapolated"
    )
    parser.add_argument(
        "--quick", action="store_true", help="64 pixels, 8 slices, one round: does it run?"
    )
    parser.add_argument("--out", type=Path, default=Path("bench/mrdpm.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    if chosen.quick:
        chosen.size, chosen.slices, chosen.steps, chosen.repeats, chosen.train_batch = (
            64,
            8,
            8,
            1,
            2,
        )
    device, suffix = find_device(chosen.device), "_small" if chosen.small else ""
    names = {
        "mrdpm": f"mrdpm{suffix}",
        **{key: f"mrdpm_{key}{suffix}" for key in ("bran", "masked")},
    }
    console = Console()
    if chosen.case:
        report = show_case(chosen, names["mrdpm"], device, console)
    else:
        report = show_parts(chosen, names, device, console)
    write_json(
        chosen.out,
        {"device": str(device), **{k: str(v) for k, v in vars(chosen).items()}, **report},
    )


def show_case(
    chosen: argparse.Namespace, name: str, device: torch.device, console: Console
) -> dict[str, object]:
    found = case(
        name,
        chosen.size,
        chosen.slices,
        chosen.steps,
        chosen.patience,
        device,
        CLOCKS[chosen.clock],
    )
    for label, one in found.items():
        console.print(
            f"{name}, {chosen.slices} slices of {chosen.size}², {chosen.steps} DDIM steps, {label}: "
            f"{one['seconds']:.1f} s ({one['how']}; {one['slice_step_s']:.4f} s a slice and step)"  # type: ignore[index]
        )
    return found


def show_parts(
    chosen: argparse.Namespace, names: dict[str, str], device: torch.device, console: Console
) -> dict[str, object]:
    clock = CLOCKS[chosen.clock]
    parts = timed(forwards(chosen.size, chosen.batch, names, device), chosen.repeats, clock)
    parts |= timed(trainings(chosen.size, chosen.train_batch, names, device), chosen.repeats, clock)
    for name, seconds in parts.items():
        console.print(f"{name:24} {seconds:.4f} s")
    denoiser, with_map, bran, alone, both = parts.values()
    sampling = (chosen.steps * (with_map - denoiser) + bran) / (chosen.steps * denoiser)
    training = (both - alone) / alone
    for where, share in (
        (f"one sampling of {chosen.steps} steps", sampling),
        ("a training step", training),
    ):
        verdict = "reached" if share < AIM else "missed"
        console.print(
            f"MAP and BRAN in {where}: {share:.1%} of the denoiser's time (aim: below {AIM:.0%}, {verdict})"
        )
    return {"seconds": parts, "sampling_share": sampling, "training_share": training}


if __name__ == "__main__":
    main()
