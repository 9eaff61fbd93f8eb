"""Speed of the default network beside diffusers' and MONAI's of the same widths and depth (`make bench`).

python benchmarks/bench_nets.py     (peers: pip install '.[bench]')
Runs are interleaved and medians compared, so that a busy machine slows all of them alike.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from monai.networks.nets import DiffusionModelUNet
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from voxlate.base.machine import keep_freed_memory
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.unet import UNet

SETTINGS = UNet()
SIZE = 256


class Ours(nn.Module):
    """The default network, called as the peers are: with the state beside the image, and a time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SETTINGS.build(Channels(images={"image": 1}, out=1, state=1, noisy=True))

    def forward(self, both: Tensor, time: Tensor) -> Tensor:
        state, image = both[:, :1, None], both[:, 1:, None]
        answer: Tensor = self.net(NetworkInput({"image": image}, state, log_snr=time)).image
        return answer[:, :, 0]


def networks() -> dict[str, nn.Module]:
    """Ours and the peers'."""
    widths = tuple(SETTINGS.width * factor for factor in SETTINGS.multipliers)
    diffusers = UNet2DModel(
        in_channels=2,
        out_channels=1,
        layers_per_block=SETTINGS.blocks,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        attention_head_dim=SETTINGS.head_width,
    )
    monai = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2,
        out_channels=1,
        channels=widths,
        attention_levels=(False,) * len(widths),
        num_res_blocks=SETTINGS.blocks,
        num_head_channels=SETTINGS.head_width,
    )
    return {"voxlate": Ours(), "diffusers": diffusers, "monai": monai}


def seconds_of(net: nn.Module, both: Tensor, precision: str, train: bool) -> float:
    """Seconds of a pass forward, and back where it trains."""
    begun = time.perf_counter()
    low = precision == "bfloat16"
    with torch.set_grad_enabled(train), torch.autocast("cpu", torch.bfloat16, enabled=low):
        answer = net(both, torch.full((len(both),), 3.0))
    image = getattr(answer, "sample", answer)  # diffusers wraps it
    if train:
        net.zero_grad()
        F.mse_loss(image.float(), both[:, :1]).backward()
    return time.perf_counter() - begun


def medians(size: int, repeats: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Each task with the median seconds of the networks, after one round that is not counted."""
    nets = networks()
    for train, batch, precision in product((False, True), (1, 4), ("float32", "bfloat16")):
        both = torch.randn(batch, 2, size, size)
        rounds = [
            {name: seconds_of(net, both, precision, train) for name, net in nets.items()}
            for _ in range(repeats + 1)
        ]
        task = f"{'training step' if train else 'forward'}, batch {batch}, {precision}"
        yield (
            task,
            {name: statistics.median(one[name] for one in rounds[1:]) for name in nets},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    chosen = parser.parse_args()
    keep_freed_memory()  # as training does; it holds for the whole process, so for every network here
    table = Table("seconds", "voxlate", "diffusers", "monai", "times faster than the better peer")
    for task, seconds in medians(SIZE, chosen.repeats):
        ratio = min(seconds["diffusers"], seconds["monai"]) / seconds["voxlate"]
        table.add_row(task, *(f"{one:.3f}" for one in seconds.values()), f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
