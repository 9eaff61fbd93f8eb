"""Are a GPU's bfloat16 kernels right, and how near its peak do networks run (`make bench-gpu`).

python benchmarks/bench_gpu.py [--recipes mr_to_ct_ddpm ...] [--device cuda]     writes bench/gpu.json
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

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from voxlate.base.files import write_json
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.training.precision import with_precision
from voxlate.training.recipe import Recipe, read

XMODALITY = tuple(f"tof_to_cta_{name}" for name in ("unet", "adm", "uvit", "dit"))
RECIPES = ("mr_to_ct_ddpm", "mrdpm", "cyclegan_tmax", *XMODALITY)
KERNELS = {
    function.__name__: function
    for function in (
        torch.conv2d, torch.conv3d, torch.conv_transpose2d, F.linear, torch.bmm,
        F.group_norm, F.batch_norm, F.instance_norm, F.layer_norm, F.scaled_dot_product_attention,
    )
}  # fmt: skip
KEEP_MOMENTS = ("batch_norm", "instance_norm")  # in arguments 1 and 2, which no result depends on
BOUND = 0.02  # of the Euclidean norm; inputs are the same rounded numbers, so that only sums and results are rounded
SIDE = 8192  # of the matrices whose product measures the peak
ROUNDS = 10


@dataclass(frozen=True)
class Call:
    """A kernel with the shapes of its tensors, by place or name; other arguments are passed on as they were."""

    kernel: str
    arguments: tuple[tuple[int | str, Any], ...]  # a torch.Size in place of every tensor

    def __str__(self) -> str:
        shapes = ["×".join(map(str, one)) for _, one in self.arguments if _is_tensor(one)]
        return f"{self.kernel} {', '.join(shapes)}"

    def run(self, tensors: dict[int | str, Tensor]) -> Tensor:
        """The result with these tensors, and no kept moments."""
        given = {key: tensors.get(key, value) for key, value in self.arguments}
        places = sorted(key for key in given if isinstance(key, int))
        named = {key: value for key, value in given.items() if isinstance(key, str)}
        result: Tensor = KERNELS[self.kernel](*(given[place] for place in places), **named)
        return result


def call_of(kernel: str, *given: Any, **named: Any) -> Call:
    """The call of a kernel with these arguments."""
    keeps = kernel in KEEP_MOMENTS
    arguments = [(k, None if keeps and k in (1, 2) else _shape(v)) for k, v in enumerate(given)]
    return Call(kernel, (*arguments, *((name, _shape(v)) for name, v in sorted(named.items()))))


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape
    return tuple(value) if isinstance(value, list) else value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Size)


class Recorder(TorchFunctionMode):
    """Notes every call of a kernel while it is active."""

    def __init__(self) -> None:
        self.calls: dict[Call, None] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if KERNELS.get(name) is function:
            self.calls[call_of(name, *args, **kwargs)] = None
        return function(*args, **kwargs)


def error_of(call: Call, device: torch.device) -> float:
    """The largest relative error of a kernel's result and of its gradients in bfloat16, against float32."""
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: torch.Size) -> Tensor:
        values = torch.randn(shape, generator=generator) / max(1, shape[1:].numel()) ** 0.25
        return values.to(device, torch.bfloat16)

    tensors = {key: drawn(one) for key, one in call.arguments if _is_tensor(one)}
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves = {key: one.to(dtype).requires_grad_() for key, one in tensors.items()}
        result = call.run(leaves)
        weight = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
        weight = weight.to(device, torch.bfloat16).to(dtype)
        gradients = torch.autograd.grad(result, [*leaves.values()], weight, allow_unused=True)
        found.append([result.detach(), *(one for one in gradients if one is not None)])
    return max(_distance(rounded, exact) for rounded, exact in zip(*found))


def _distance(rounded: Tensor, exact: Tensor) -> float:
    distance = float((rounded.float() - exact).norm() / exact.norm().clamp(min=1e-20))
    return distance if distance == distance else float("inf")


def step_of(recipe: Recipe, device: torch.device) -> Callable[[], None]:
    """The forward and backward pass of a training step on noise, of every network of the recipe."""
    torch.manual_seed(0)
    recipe = with_precision(recipe, device)
    method, data, count = recipe.build().to(device).train(), recipe.data, recipe.train.batch
    source, target = (
        torch.rand(count, len(names), *data.patch) * 2 - 1 for names in (data.channels, data.target)
    )
    present = torch.ones(count, source.shape[1], dtype=torch.bool)
    items = torch.arange(count * data.patch[0]).reshape(count, -1)
    batch = Batch(source, torch.ones_like(source[:, :1]), present, items, target=target).to(device)
    is_low = recipe.train.precision == "bfloat16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_low):
            parts = [method.loss(turn, batch, Noise(0, items))["total"] for turn in method.turns]
        torch.stack(parts).sum().backward()

    return step


def seconds_of(step: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """Median, after two rounds that are not counted."""
    taken = []
    for _ in range(rounds + 2):
        begun = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[2:])


def measured(recipe: Recipe, device: torch.device, peak: float, rounds: int) -> dict[str, Any]:
    """Seconds of a step, its share of the peak, GiB on a GPU, and the kernels that are wrong, by their errors."""
    step = step_of(recipe, device)
    with FlopCounterMode(display=False) as counter, Recorder() as recorder:
        step()
    seconds = seconds_of(step, device, rounds)
    errors = {f"{call}": error_of(call, device) for call in recorder.calls}
    gib = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {
        "seconds": seconds,
        "share": counter.get_total_flops() / seconds / peak,
        "gib": gib,
        "kernels": len(errors),
        "wrong": {name: error for name, error in errors.items() if error > BOUND},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the code")
    parser.add_argument("--out", type=Path, default=Path("bench/gpu.json"))
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("bench_gpu: expected a GPU, found none on this machine.")
        return 2
    # float32 is the reference
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    a, b = torch.randn(2, SIDE, SIDE, device=device, dtype=torch.bfloat16)
    peak = 2 * SIDE**3 / seconds_of(lambda: a @ b, device)
    print(f"peak: {peak / 1e12:.3g} TFLOP/s, a product of bfloat16 matrices")
    rows = {name: measured(read(name), device, peak, ROUNDS) for name in chosen.recipes}
    for name, row in rows.items():
        print(name, row)
    write_json(chosen.out, {"torch": torch.__version__, "peak_flops": peak, "recipes": rows})
    return int(any(row["wrong"] for row in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
