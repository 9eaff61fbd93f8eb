"""Training steps of the planner's small networks, against the machine's convolutions and MONAI's BasicUNet.

python benchmarks/bench_small.py [--quick]     (peer: pip install '.[bench]'); writes bench/small.json
A step is forward, backward, clipping, Muon and the running average. All take turns, and medians are compared.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from ceiling import convolution
from peers import BasicUNet
from voxlate.base.files import write_json
from voxlate.base.machine import keep_freed_memory
from voxlate.science.batch import Batch
from voxlate.science.methods.regression import RegressionSettings
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import NetSettings
from voxlate.science.nets.unet import UNet
from voxlate.training.job import Job
from voxlate.training.loop import begin_learner, take_step
from voxlate.training.recipe.optimiser import Optimiser
from voxlate.training.recipe.training import Training

Precision = Literal["float32", "bfloat16"]
Stem = Literal[2, 4]
DEVICE = torch.device("cpu")
SIZE, BATCH = (104, 88), 4  # a head at 1.6 mm
LEVELS: dict[Stem, tuple[int, ...]] = {
    2: (1, 2, 4),
    4: (1, 2),
}  # as planning.rules.net makes them for a patch of this size, by stem
TARGET = 0.3


@dataclass(frozen=True)
class Row:
    """A network's training step; gflop: of forward and backward; peer_seconds: of BasicUNet's step at this width."""

    width: int
    stem: int
    gflop: float
    seconds: float
    muon_seconds: float
    ceiling_gflop_per_second: float
    peer_seconds: float

    @property
    def share(self) -> float:
        return self.gflop / self.seconds / self.ceiling_gflop_per_second

    @property
    def muon_share(self) -> float:
        return self.muon_seconds / self.seconds


class Timed:
    """An optimiser that keeps the seconds of its last step, or does nothing."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self.optimiser, self.param_groups, self.zero_grad = (
            optimiser,
            optimiser.param_groups,
            optimiser.zero_grad,
        )
        self.moves, self.seconds = True, 0.0

    def step(self) -> None:
        begun = time.perf_counter()
        if self.moves:
            self.optimiser.step()
        self.seconds = time.perf_counter() - begun


class Trained:
    """A network in training, on one batch again and again."""

    def __init__(self, net: NetSettings, precision: Precision) -> None:
        torch.manual_seed(0)
        source, target = torch.rand(2, BATCH, 1, 1, *SIZE) * 2 - 1
        present = torch.ones(BATCH, 1, dtype=torch.bool)
        mask, item = torch.ones_like(target), torch.arange(BATCH)[:, None]
        batch = Batch(
            source, mask, present, item, target, source_names=("mr",), target_names=("ct",)
        )
        self.batches = repeat(batch)
        task = Translate()
        self.method = RegressionSettings(ssim=0.1, leak=0.1).build(
            net, task, task.channels(("mr",), ("ct",))
        )
        optimiser = Optimiser(kind="muon", betas=(0.9, 0.99))
        train = Training(
            batch=BATCH, optimiser=optimiser, ema=0.99, precision=precision, compile=False
        )
        stage = SimpleNamespace(train=train)
        self.job = cast(Job, SimpleNamespace(stage=stage, device=DEVICE, epoch_steps=0))
        self.learner = begin_learner(self.method, self.job)
        self.optimiser = Timed(self.learner.optimisers["net"])
        self.learner.optimisers["net"] = cast(torch.optim.Optimizer, self.optimiser)

    def step(self) -> None:
        take_step(self.learner, self.method, self.job, self.batches)

    def gflop(self) -> float:
        """Of forward and backward."""
        self.optimiser.moves = False
        with FlopCounterMode(display=False) as counter:
            self.step()
        self.optimiser.moves = True
        return counter.get_total_flops() / 1e9


def seconds_of(step: Callable[[], object]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def measure(width: int, stem: Stem, precision: Precision, rounds: int) -> Row:
    net = UNet(width=width, multipliers=LEVELS[stem], blocks=1, patch=stem, middle_attention=False)
    ours, peer = Trained(net, precision), Trained(BasicUNet(width=width), precision)
    convolve, convolution_gflop = convolution(
        torch.bfloat16 if precision == "bfloat16" else torch.float32
    )
    gflop = ours.gflop()
    taken: dict[str, list[float]] = {"ours": [], "muon": [], "peer": [], "ceiling": []}
    for turn in range(rounds + 1):
        ours_seconds, peer_seconds, ceiling_seconds = (
            seconds_of(each) for each in (ours.step, peer.step, convolve)
        )
        if turn:  # the first one allocates
            for name, seconds in zip(
                taken, (ours_seconds, ours.optimiser.seconds, peer_seconds, ceiling_seconds)
            ):
                taken[name].append(seconds)
    median = {name: statistics.median(values) for name, values in taken.items()}
    ceiling = convolution_gflop / median["ceiling"]
    return Row(width, stem, gflop, median["ours"], median["muon"], ceiling, median["peer"])


def show(rows: list[Row], precision: str, console: Console) -> None:
    columns = ("GFLOP", "ms", "share", "", "Muon", "steps/s", "BasicUNet")
    title = f"small networks, {precision}: a step, its share of a convolution's speed, BasicUNet's steps/s"
    table = Table("width", "stem", *columns, title=title)
    for row in rows:
        table.add_row(
            f"{row.width}",
            f"{row.stem} x {row.stem}",
            f"{row.gflop:.2f}",
            f"{1000 * row.seconds:.1f}",
            f"{row.share:.0%}",
            "reached" if row.share >= TARGET else f"below {TARGET:.0%}",
            f"{row.muon_share:.0%}",
            f"{1 / row.seconds:.1f}",
            f"{1 / row.peer_seconds:.1f}",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"]
    )
    parser.add_argument("--quick", action="store_true", help="one width, one round: does it run?")
    parser.add_argument("--out", type=Path, default=Path("bench/small.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()  # as training does
    widths, rounds = ((16,), 1) if chosen.quick else ((16, 24, 32, 48), chosen.rounds)
    console, report = Console(), {}
    for precision in chosen.precision:
        rows = [measure(width, stem, precision, rounds) for stem in LEVELS for width in widths]
        show(rows, precision, console)
        report[precision] = [
            {**dataclasses.asdict(row), "share": row.share, "muon_share": row.muon_share}
            for row in rows
        ]
    write_json(chosen.out, {"threads": chosen.threads, "torch": torch.__version__, **report})
    console.print(f"written to {chosen.out}")


if __name__ == "__main__":
    main()
