"""Arithmetic speed of paper 001's four networks, as a share of the machine's own convolutions in the same run.

python benchmarks/bench_backbones.py [--quick] [--nets adm unet] [--clock cpu]     writes bench/backbones.json
A network's operations are what torch.utils.flop_counter counts (two a multiply-add; no norms, no activations).
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ceiling import convolution
from voxlate.base.files import write_json
from voxlate.base.machine import keep_freed_memory
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.xmodality.adm import ADM
from voxlate.science.nets.xmodality.dit import DiT
from voxlate.science.nets.xmodality.unet import PlainUNet
from voxlate.science.nets.xmodality.uvit import UViT

NETS = {"unet": PlainUNet(), "adm": ADM(), "uvit": UViT(), "dit": DiT()}
TARGETS = {("adm", "forward", "float32"): 0.70, ("adm", "forward", "bfloat16"): 0.60}
PATIENCE_S = 15
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": lambda: (
        time.process_time() / torch.get_num_threads()
    ),  # for a machine that others use, too
}


@dataclass(frozen=True)
class Speed:
    """One task: operations a second, and their share of the plain convolution's in the same precision."""

    net: str
    task: str
    batch: int
    precision: str
    seconds: float
    gflop: float
    ceiling_gflops_per_second: float
    target: float | None

    @property
    def gflops_per_second(self) -> float:
        return self.gflop / self.seconds

    @property
    def share(self) -> float:
        return self.gflops_per_second / self.ceiling_gflops_per_second


def build(name: str) -> nn.Module:
    """The network as published: the U-Net regresses, the others denoise."""
    noisy = name != "unet"
    return NETS[name].build(Channels(images={"image": 1}, out=1, state=int(noisy), noisy=noisy))


def steps(
    name: str, net: nn.Module, size: int, batch: int, low: bool
) -> dict[str, Callable[[], object]]:
    """The two tasks: a forward pass, and a training step with Adam."""
    device = next(net.parameters()).device
    x, y, target = torch.randn(3, batch, 1, 1, size, size, device=device)
    inputs = NetworkInput({"image": y})
    if name != "unet":
        inputs = replace(inputs, state=x, log_snr=x.new_zeros(batch))

    def call() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out: Tensor = net(inputs).image
        return out

    optimiser = torch.optim.Adam(net.parameters(), lr=1e-6, fused=device.type == "cpu")

    def forward() -> None:
        with torch.inference_mode():
            call()

    def train() -> None:
        F.mse_loss(call(), target).backward()
        if device.type == "cpu":
            optimiser.step()
        optimiser.zero_grad()

    return {"forward": forward, "training step": train}


def operations(name: str, size: int, batch: int) -> dict[str, float]:
    """GFLOP of each task, counted without computing anything."""
    with torch.device("meta"):
        net, counted = build(name), {}
    for task, step in steps(name, net, size, batch, low=False).items():
        with FlopCounterMode(display=False) as counter:
            step()
        counted[task] = counter.get_total_flops() / 1e9
    return counted


def measure(
    name: str, size: int, batch: int, repeats: int, clock: Callable[[], float]
) -> list[Speed]:
    """Medians over rounds in which the network and the convolution take turns, after one round that is not counted.

    A task gets no new round once its rounds took PATIENCE_S, so that the largest networks do not take hours.
    """
    net, gflop, found = build(name), operations(name, size, batch), []
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        convolve, convolution_gflop = convolution(dtype)
        for task, step in steps(name, net, size, batch, low=dtype == torch.bfloat16).items():
            seconds: dict[Callable[[], object], list[float]] = {step: [], convolve: []}
            begun = time.perf_counter()
            for turn in range(repeats + 1):
                if turn > 1 and time.perf_counter() - begun > PATIENCE_S:
                    break
                for each in (step, convolve, convolve):
                    start = clock()
                    each()
                    if turn:
                        seconds[each].append(clock() - start)
            taken = statistics.median(seconds[step])
            rate = convolution_gflop / statistics.median(seconds[convolve])
            target = TARGETS.get((name, task, precision))
            found.append(Speed(name, task, batch, precision, taken, gflop[task], rate, target))
    return found


def show(speeds: list[Speed], console: Console) -> None:
    table = Table(
        "net",
        "task",
        "batch",
        "precision",
        "seconds",
        "GFLOP/s",
        "convolution's",
        "share",
        "target",
    )
    for row in speeds:
        target = (
            ""
            if row.target is None
            else f"{row.target:.2f} {'reached' if row.share >= row.target else 'missed'}"
        )
        rates = (
            f"{row.gflops_per_second:.0f}",
            f"{row.ceiling_gflops_per_second:.0f}",
            f"{row.share:.2f}",
        )
        table.add_row(
            row.net, row.task, str(row.batch), row.precision, f"{row.seconds:.3f}", *rates, target
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: seconds of its own, a thread"
    )
    parser.add_argument(
        "--quick", action="store_true", help="64², one round, batch 1: does it run?"
    )
    parser.add_argument("--out", type=Path, default=Path("bench/backbones.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()  # as training does; it holds for the whole process, so for every network here
    size, repeats, batches = (64, 1, [1]) if chosen.quick else (256, chosen.repeats, chosen.batches)
    console, speeds = Console(), []
    for name in chosen.nets:
        for batch in batches:
            console.print(f"[dim]{name}, batch {batch} ...[/dim]")
            speeds += measure(name, size, batch, repeats, CLOCKS[chosen.clock])
    show(speeds, console)
    rows = [{**dataclasses.asdict(row), "share": row.share} for row in speeds]
    about = {
        "size": size,
        "threads": chosen.threads,
        "clock": chosen.clock,
        "torch": torch.__version__,
    }
    write_json(chosen.out, {**about, "speed": rows})
    console.print(f"written to {chosen.out}")


if __name__ == "__main__":
    main()
