"""Speed of the default network against diffusers', MONAI's and the machine's own convolutions.

python benchmarks/bench_nets.py [--quick]     (peers: pip install '.[bench]'); writes bench/nets.json
Runs are interleaved and medians compared, so that a busy machine slows all of them alike.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from voxlate.base.files import write_json
from voxlate.base.machine import keep_freed_memory
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.unet import UNet
from voxlate.training.precision import choose

Step = Callable[[], object]
OURS, PEERS = "voxlate", ("diffusers", "monai")
TARGETS = {"default": 2.0, "same precision": 1.1, "float32 share": 0.75, "bfloat16 share": 0.65}
CHANNELS = Channels(images={"image": 1}, out=1, state=1, noisy=True)


@dataclass(frozen=True)
class Speed:
    """One comparison: the better peer's time over ours must reach the target."""

    task: str
    ours: str
    seconds: float
    best_peer: str
    peer_seconds: float
    target: float

    @property
    def ratio(self) -> float:
        return self.peer_seconds / self.seconds


@dataclass(frozen=True)
class Share:
    """Arithmetic a second of our forward pass, over that of one channels-last 128 -> 128 convolution at 256²."""

    precision: str
    network_flops_per_second: float
    ceiling_flops_per_second: float
    target: float

    @property
    def share(self) -> float:
        return self.network_flops_per_second / self.ceiling_flops_per_second


def networks(
    settings: UNet,
) -> dict[str, tuple[Any, Callable[[Any, Tensor, Tensor, Tensor], Tensor]]]:
    """Ours and the peers' of the same widths and depth, each with the way it is called on (state, image, time)."""
    from diffusers import UNet2DModel
    from monai.networks.nets import DiffusionModelUNet

    widths = tuple(settings.width * factor for factor in settings.multipliers)
    ours = settings.build(CHANNELS)
    diffusers = UNet2DModel(
        in_channels=2,
        out_channels=1,
        layers_per_block=settings.blocks,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        attention_head_dim=settings.head_width,
    )
    monai = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2,
        out_channels=1,
        channels=widths,
        attention_levels=(False,) * len(widths),
        num_res_blocks=settings.blocks,
        num_head_channels=settings.head_width,
    )
    return {
        OURS: (ours, _ours),
        "diffusers": (diffusers, lambda net, x, y, t: net(torch.cat([x, y], 1), t).sample),
        "monai": (monai, lambda net, x, y, t: net(torch.cat([x, y], 1), t)),
    }


def _ours(net: nn.Module, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    image: Tensor = net(NetworkInput({"image": y[:, :, None]}, x[:, :, None], log_snr=t)).image
    return image[:, :, 0]


def steps(
    settings: UNet, size: int, batch: int, train: bool, precisions: Sequence[str]
) -> dict[tuple[str, str], Step]:
    """What is timed, by network and precision."""
    generator = torch.Generator().manual_seed(0)
    x, y, target = torch.randn(3, batch, 1, size, size, generator=generator)
    t = torch.full((batch,), 3.0)
    made: dict[tuple[str, str], Step] = {}
    for name, (net, call) in networks(settings).items():
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=True) if train else None
        for precision in precisions:

            def step(
                net: nn.Module = net,
                call: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] = call,
                optimiser: torch.optim.Optimizer | None = optimiser,
                low: bool = precision == "bfloat16",
            ) -> None:
                with (
                    torch.set_grad_enabled(optimiser is not None),
                    torch.autocast("cpu", torch.bfloat16, enabled=low),
                ):
                    out = call(net, x, y, t)
                if optimiser is not None:
                    optimiser.zero_grad()
                    F.mse_loss(out.float(), target).backward()
                    optimiser.step()

            made[name, precision] = step
    return made


def medians(made: dict[tuple[str, str], Step], repeats: int) -> dict[tuple[str, str], float]:
    """Median seconds of each step over interleaved rounds, after one round that is not counted."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    for turn in range(repeats + 1):
        for key, step in made.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[key].append(time.perf_counter() - start)
    return {key: statistics.median(values) for key, values in seconds.items()}


def compare(settings: UNet, size: int, repeats: int, console: Console) -> list[Speed]:
    """Ours in the precision that training and synthesis take on this machine, beside the peers' default, float32."""
    choice = choose(torch.device("cpu"))
    console.print(f"[dim]{choice.why}[/dim]")
    pairs = [("float32", "float32", TARGETS["same precision"])]
    if choice.precision == "bfloat16":
        pairs.insert(0, ("bfloat16", "float32", TARGETS["default"]))
        pairs.append(("bfloat16", "bfloat16", TARGETS["same precision"]))
    precisions = sorted({ours for ours, _, _ in pairs})
    found = []
    for train in (False, True):
        for batch in (1, 4):
            task = f"{'training step' if train else 'forward'}, batch {batch}"
            console.print(f"[dim]{task} ...[/dim]")
            taken = medians(steps(settings, size, batch, train, precisions), repeats)
            for precision, peer_precision, target in pairs:
                best = min(PEERS, key=lambda peer: taken[peer, peer_precision])
                mine, theirs = taken[OURS, precision], taken[best, peer_precision]
                found.append(
                    Speed(task, precision, mine, f"{best} {peer_precision}", theirs, target)
                )
    return found


def convolution(dtype: torch.dtype) -> tuple[Step, float]:
    """One channels-last 128 -> 128 convolution at 256², and its GFLOP."""
    image = torch.randn(1, 128, 256, 256, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)

    def convolve() -> None:
        with torch.inference_mode():
            F.conv2d(image, weight, padding=1)

    return convolve, 2 * 9 * 128 * 128 * 256 * 256 / 1e9


def shares(size: int, repeats: int) -> list[Share]:
    """How near a network of width 128 comes to the speed of its convolutions."""
    net = UNet(width=128, multipliers=(1, 2, 2), blocks=2).build(CHANNELS)
    x, y, log_snr = (
        torch.randn(1, 1, 1, size, size),
        torch.randn(1, 1, 1, size, size),
        torch.zeros(1),
    )
    found = []
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        convolve, convolution_gflop = convolution(dtype)

        def network(low: bool = dtype == torch.bfloat16) -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
                net(NetworkInput({"image": y}, x, log_snr=log_snr))

        taken = medians(
            {("network", precision): network, ("ceiling", precision): convolve}, repeats
        )
        with FlopCounterMode(display=False) as counter:
            network()
        rate = counter.get_total_flops() / taken["network", precision]
        ceiling = convolution_gflop * 1e9 / taken["ceiling", precision]
        found.append(Share(precision, rate, ceiling, TARGETS[f"{precision} share"]))
    return found


def show(speeds: list[Speed], found: list[Share], console: Console) -> None:
    table = Table(
        "task", "voxlate", "seconds", "better peer", "seconds", "times faster", "target", ""
    )
    for row in speeds:
        cells = (
            f"{row.seconds:.3f}",
            row.best_peer,
            f"{row.peer_seconds:.3f}",
            f"{row.ratio:.2f}",
            f"{row.target:.1f}",
        )
        table.add_row(
            row.task, row.ours, *cells, "reached" if row.ratio >= row.target else "missed"
        )
    console.print(table)
    table = Table(
        "width 128, 256²", "network GFLOP/s", "one convolution GFLOP/s", "share", "target", ""
    )
    for part in found:
        flops = (
            f"{part.network_flops_per_second / 1e9:.0f}",
            f"{part.ceiling_flops_per_second / 1e9:.0f}",
        )
        verdict = "reached" if part.share >= part.target else "missed"
        table.add_row(part.precision, *flops, f"{part.share:.2f}", f"{part.target:.2f}", verdict)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="64², one round: does it run?")
    parser.add_argument("--only", choices=("peers", "share"), help="one of the two parts")
    parser.add_argument("--out", type=Path, default=Path("bench/nets.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()  # as training does; it holds for the whole process, so for every network here
    size, repeats = (64, 1) if chosen.quick else (256, chosen.repeats)
    console = Console()
    settings = UNet()
    speeds = [] if chosen.only == "share" else compare(settings, size, repeats, console)
    found = [] if chosen.only == "peers" else shares(size, repeats)
    show(speeds, found, console)
    write_json(
        chosen.out,
        {
            "size": size,
            "threads": chosen.threads,
            "torch": torch.__version__,
            "speed": [{**dataclasses.asdict(row), "ratio": row.ratio} for row in speeds],
            "share": [{**dataclasses.asdict(part), "share": part.share} for part in found],
        },
    )
    console.print(f"written to {chosen.out}")


if __name__ == "__main__":
    main()
