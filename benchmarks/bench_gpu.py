"""For the day a GPU is at hand: are its bfloat16 kernels right, how near its peak do networks run, what a volume takes.

python benchmarks/bench_gpu.py [--recipes mr_to_ct_ddpm ...] [--device cuda]     writes bench/gpu.json
python benchmarks/bench_gpu.py --device cpu --quick     the same code on one tiny network: does it run?
Every convolution, norm, product and attention of a training step of the recipes, at their own patch and batch sizes, is
computed again from random numbers in bfloat16 and in float32. Exit code 1 where any differs by more than BOUND, 2
without a GPU. cuDNN has been wrong for large (1, 3, 3) inputs, silently.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from bench_synth import untrained
from voxlate.base import machine
from voxlate.base.files import write_json
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.units import unit_of
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.method import Method
from voxlate.training import recipe as recipes
from voxlate.training.precision import with_precision
from voxlate.training.recipe import Recipe

XMODALITY = tuple(f"tof_to_cta_{name}" for name in ("unet", "adm", "uvit", "dit"))
RECIPES = ("mr_to_ct_ddpm", "mrdpm", "cyclegan_tmax", *XMODALITY)
TINY = {
    "net.width": "8",
    "net.multipliers": "[1, 2]",
    "net.head_width": "8",
    "data.patch": "[1, 32, 32]",
}
QUICK = {**TINY, "train.batch": "2", "synth.steps": "9"}
KERNELS = {
    function.__name__: function
    for function in (
        torch.conv2d, torch.conv3d, torch.conv_transpose2d, F.linear, torch.bmm,
        F.group_norm, F.batch_norm, F.instance_norm, F.layer_norm, F.scaled_dot_product_attention,
    )
}  # fmt: skip
BOUND = 0.02  # of the Euclidean norm; inputs are the same rounded numbers, so that only sums and results are rounded
SIDE = 8192  # of the matrices whose product measures the peak


@dataclass(frozen=True)
class Call:
    """A kernel with the shapes of its tensors; what is no tensor is passed on as it was."""

    kernel: str
    arguments: tuple[Any, ...]  # a torch.Size in place of every tensor
    options: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        shapes = ["×".join(map(str, one)) for one in self.arguments if isinstance(one, torch.Size)]
        return f"{self.kernel} {', '.join(shapes)}"

    def run(self, tensors: dict[int, Tensor], options: dict[str, Tensor]) -> Tensor:
        arguments = [tensors.get(place, value) for place, value in enumerate(self.arguments)]
        found: Tensor = KERNELS[self.kernel](*arguments, **{**dict(self.options), **options})
        return found


class Recorder(TorchFunctionMode):
    """Notes every call of a kernel while it is active."""

    def __init__(self) -> None:
        self.calls: dict[Call, None] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if KERNELS.get(getattr(function, "__name__", "")) is function:
            call = Call(
                function.__name__,  # type: ignore[union-attr]
                tuple(_shape(one) for one in args),
                tuple(sorted((name, _shape(one)) for name, one in kwargs.items())),
            )
            self.calls[call] = None
        return function(*args, **kwargs)


def _shape(value: Any) -> Any:
    return (
        value.shape
        if isinstance(value, Tensor)
        else tuple(value)
        if isinstance(value, list)
        else value
    )


def error_of(call: Call, device: torch.device) -> float:
    """The largest relative error of a kernel's result and of its gradients in bfloat16, against float32."""
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: torch.Size) -> Tensor:
        values = (
            torch.randn(shape, generator=generator)
            / max(1, shape[1:].numel() if len(shape) > 1 else 1) ** 0.25
        )
        return values.to(device, torch.bfloat16)

    tensors = {
        place: drawn(one) for place, one in enumerate(call.arguments) if isinstance(one, torch.Size)
    }
    options = {name: drawn(one) for name, one in call.options if isinstance(one, torch.Size)}
    if call.kernel in (
        "batch_norm",
        "instance_norm",
    ):  # moments that are kept are no part of the result in training
        tensors = {place: one for place, one in tensors.items() if place not in (1, 2)}
        arguments = [None if place in (1, 2) else one for place, one in enumerate(call.arguments)]
        call = Call(call.kernel, tuple(arguments), call.options)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves: dict[Any, Tensor] = {
            key: one.to(dtype).requires_grad_()
            for part in (tensors, options)
            for key, one in part.items()
        }
        result = call.run(
            {place: leaves[place] for place in tensors}, {name: leaves[name] for name in options}
        )
        weight = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(
            device, torch.bfloat16
        )
        gradients = torch.autograd.grad(
            result, list(leaves.values()), weight.to(dtype), allow_unused=True
        )
        found.append([result.detach(), *(one for one in gradients if one is not None)])
    return max(_distance(rounded, exact) for rounded, exact in zip(*found))


def _distance(rounded: Tensor, exact: Tensor) -> float:
    distance = float((rounded.float() - exact).norm() / exact.norm().clamp(min=1e-20))
    return distance if distance == distance else float("inf")


def example(recipe: Recipe, device: torch.device) -> Batch:
    """A batch of the recipe's training, of noise."""
    generator, data, count = torch.Generator().manual_seed(0), recipe.data, recipe.train.batch
    source, target = (
        torch.rand(count, len(names), *data.patch, generator=generator) * 2 - 1
        for names in (data.channels, data.target)
    )
    present = torch.ones(count, source.shape[1], dtype=torch.bool)
    items = torch.arange(count * data.patch[0]).reshape(count, -1)
    return Batch(source, torch.ones_like(source[:, :1]), present, items, target=target).to(device)


def losses(method: Method, batch: Batch, precision: str) -> Tensor:
    """The sum over all turns of a method, so that every network of it runs."""
    with torch.autocast(batch.source.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        parts = [method.loss(turn, batch, Noise(0, batch.item))["total"] for turn in method.turns]
    return torch.stack(parts).sum()


def seconds_of(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median, after two rounds that are not counted."""
    taken = []
    for turn in range(repeats + 2):
        begun = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if turn > 1:
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def peak_flops(device: torch.device, side: int) -> float:
    """Operations a second of a large product in bfloat16."""
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / seconds_of(lambda: a @ b, device, 10)


def shares(recipe: Recipe, device: torch.device, peak: float, repeats: int) -> dict[str, float]:
    """Seconds, share of the peak and peak memory of a forward pass and of a training step of a recipe."""
    recipe = with_precision(recipe, device)
    torch.manual_seed(0)
    method, batch = recipe.build().to(device).train(), example(recipe, device)
    optimiser = recipe.train.optimiser.build(
        [one for one in method.parameters() if one.requires_grad]
    )

    def forward() -> None:
        with torch.no_grad():
            losses(method, batch, recipe.train.precision)

    def train() -> None:
        losses(method, batch, recipe.train.precision).backward()
        optimiser.step()
        optimiser.zero_grad()

    row: dict[str, float] = {}
    for name, step in (("forward", forward), ("step", train)):
        with FlopCounterMode(display=False) as counter:
            step()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        row[f"{name}_seconds"] = seconds_of(step, device, repeats)
        row[f"{name}_share"] = counter.get_total_flops() / row[f"{name}_seconds"] / peak
        row[f"{name}_gib"] = peak_gib(device)
    return row


def calls_of(recipe: Recipe, device: torch.device) -> list[Call]:
    """The kernels of one training step's forward pass, each shape once."""
    torch.manual_seed(0)
    method, batch = recipe.build().to(device).train(), example(recipe, device)
    with torch.no_grad(), Recorder() as recorder:
        losses(method, batch, "bfloat16")
    return list(recorder.calls)


def volume_seconds(
    recipe: Recipe, device: torch.device, shape: tuple[int, int, int]
) -> dict[str, float]:
    """What the synthesis of a volume [D, H, W] takes, with the recipe's own sampler; a head of noise in air."""
    z, y, x = np.meshgrid(
        *(np.linspace(-1, 1, size, dtype=np.float32) for size in shape), indexing="ij", sparse=True
    )
    inside = (z / 1.2) ** 2 + (y / 0.9) ** 2 + (x / 0.8) ** 2 < 1
    data = np.where(inside, np.random.default_rng(0).normal(600, 50, shape), 0).astype(np.float32)[
        None
    ]
    scans = {
        name: Volume(data, np.diag([0.5, 0.5, 1.0, 1.0]), unit_of(name), name)
        for name in recipe.data.source
    }
    model = untrained(recipe, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    model.synthesise(scans, anyway=True)
    return {"seconds": time.perf_counter() - begun, "gib": peak_gib(device)}


def peak_gib(device: torch.device) -> float:
    """The peak of a GPU's memory since it was last reset, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return machine.peak_memory() / 2**30


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the code")
    parser.add_argument("--repeats", type=int, default=10, help="rounds that count")
    parser.add_argument(
        "--quick", action="store_true", help="one tiny network and volume: does it run?"
    )
    parser.add_argument("--out", type=Path, default=Path("bench/gpu.json"))
    chosen = parser.parse_args()
    console = Console()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        console.print(
            "bench_gpu: expected a GPU, found none on this machine; run it where torch.cuda.is_available()."
        )
        return 2
    device = torch.device(chosen.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = (
        False  # float32 is the reference
    )
    found = {name: recipes.read(name) for name in chosen.recipes}
    if chosen.quick:
        found = {"mr_to_ct_ddpm": recipes.read("mr_to_ct_ddpm", QUICK)}
    wrong = check_kernels(found, device, console)
    peak = peak_flops(device, 256 if chosen.quick else SIDE)
    rows = {
        name: shares(recipe, device, peak, 1 if chosen.quick else chosen.repeats)
        for name, recipe in found.items()
    }
    show(rows, peak, console)
    first = next(iter(found.values()))
    shape = (2, 48, 40) if chosen.quick else (160, 512, 512)
    volume = volume_seconds(first, device, shape)
    console.print(
        f"a volume of {shape[2]}×{shape[1]}×{shape[0]}: {volume['seconds']:.0f} s, {volume['gib']:.2f} GiB"
    )
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    about = {"device": name, "torch": torch.__version__, "peak_flops": peak}
    write_json(chosen.out, {**about, "wrong": wrong, "recipes": rows, "volume": volume})
    console.print(f"written to {chosen.out}")
    return 1 if wrong else 0


def check_kernels(
    found: dict[str, Recipe], device: torch.device, console: Console
) -> dict[str, float]:
    """The calls whose error is above BOUND, printed as they are found."""
    calls = dict.fromkeys(call for recipe in found.values() for call in calls_of(recipe, device))
    errors = {str(call): error_of(call, device) for call in calls}
    wrong = {name: error for name, error in errors.items() if error > BOUND}
    for name, error in wrong.items():
        console.print(
            f"WRONG in bfloat16: {name}: relative error {error:.3g}, expected below {BOUND}",
            style="red",
        )
    worst = max(errors.values(), default=0.0)
    console.print(
        f"{len(calls)} kernel shapes in bfloat16 against float32: {len(wrong)} wrong, largest error {worst:.3g}"
    )
    return wrong


def show(rows: dict[str, dict[str, float]], peak: float, console: Console) -> None:
    table = Table(
        "recipe",
        *(f"{task} {what}" for task in ("forward", "step") for what in ("s", "share", "GiB")),
    )
    for name, row in rows.items():
        cells = [
            f"{row[f'{task}_{what}']:.3g}"
            for task in ("forward", "step")
            for what in ("seconds", "share", "gib")
        ]
        table.add_row(name, *cells)
    console.print(f"peak: {peak / 1e12:.3g} TFLOP/s, a product of bfloat16 matrices")
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
