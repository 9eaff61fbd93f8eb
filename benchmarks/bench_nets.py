"""Time and memory of the default network beside those of diffusers, MONAI and nnU-Net of the same widths and depth (`make bench`).

python benchmarks/bench_nets.py     (peers: see the Makefile)
Runs are interleaved, and medians of processor time compared, which a busy machine changes least with OMP_NUM_THREADS=1. Memory is
what a training step adds to a process of its own. nnU-Net's residual encoder (ResEnc) has a plain decoder and no input for a noise level.
"""

import argparse
import statistics
import subprocess
import sys
import time
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.machine import forget_peak_memory, peak_memory
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.unet import UNet

SETTINGS = UNet()
WIDTHS = tuple(SETTINGS.width * factor for factor in SETTINGS.multipliers)
PRECISIONS = ("float32", "bfloat16")
MEMORY_BATCH = 4


class Ours(nn.Module):
    """The default network, called as the peers are: with the state beside the image, and a time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SETTINGS.build(Channels(images={"image": 1}, out=1, state=1, noisy=True))

    def forward(self, both: Tensor, time: Tensor) -> Tensor:
        state, image = both[:, :1, None], both[:, 1:, None]
        answer: Tensor = self.net(NetworkInput({"image": image}, state, log_snr=time)).image
        return answer[:, :, 0]


class Untimed(nn.Module):
    """A network without an input for the time, called as the others are."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, both: Tensor, time: Tensor) -> Tensor:
        answer: Tensor = self.net(both)
        return answer


class Unwrapped(nn.Module):
    """diffusers' network, whose result is an attribute of what it returns."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, both: Tensor, time: Tensor) -> Tensor:
        answer: Tensor = self.net(both, time).sample
        return answer


def diffusers() -> nn.Module:
    from diffusers import (
        UNet2DModel,
    )  # here, so that a process whose memory is measured holds one package

    net = UNet2DModel(
        in_channels=2,
        out_channels=1,
        layers_per_block=SETTINGS.blocks,
        block_out_channels=WIDTHS,
        down_block_types=("DownBlock2D",) * len(WIDTHS),
        up_block_types=("UpBlock2D",) * len(WIDTHS),
        attention_head_dim=SETTINGS.head_width,
    )
    return Unwrapped(net)


def monai() -> nn.Module:
    from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2,
        out_channels=1,
        channels=WIDTHS,
        attention_levels=(False,) * len(WIDTHS),
        num_res_blocks=SETTINGS.blocks,
        num_head_channels=SETTINGS.head_width,
    )


def res_enc() -> nn.Module:
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    net = ResidualEncoderUNet(
        input_channels=2,
        num_classes=1,
        n_stages=len(WIDTHS),
        features_per_stage=WIDTHS,
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=(1, *(2 for _ in WIDTHS[1:])),
        n_blocks_per_stage=SETTINGS.blocks,
        n_conv_per_stage_decoder=SETTINGS.blocks,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return Untimed(net)


NETWORKS = {"voxlate": Ours, "diffusers": diffusers, "MONAI": monai, "ResEnc": res_enc}


def seconds_of(net: nn.Module, both: Tensor, precision: str, train: bool) -> float:
    """Seconds of the processor for a pass forward, and back where it trains."""
    begun = time.process_time()
    low = precision == "bfloat16"
    with torch.set_grad_enabled(train), torch.autocast("cpu", torch.bfloat16, enabled=low):
        image = net(both, torch.full((len(both),), 3.0))
    if train:
        net.zero_grad()
        F.mse_loss(image.float(), both[:, :1]).backward()
    return time.process_time() - begun


def gib_of_step(name: str, precision: str, size: int) -> float:
    """What a training step adds to the memory of this process, in GiB."""
    net, both = NETWORKS[name](), torch.randn(MEMORY_BATCH, 2, size, size)
    forget_peak_memory()
    before = peak_memory()
    seconds_of(net, both, precision, train=True)
    return (peak_memory() - before) / 2**30


def memory(name: str, precision: str, size: int) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--size", f"{size}", "--memory", name, precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def medians(
    nets: dict[str, nn.Module], both: Tensor, repeats: int, precision: str, train: bool
) -> list[float]:
    """The median seconds of each network, after one round that is not counted."""
    rounds = [
        [seconds_of(net, both, precision, train) for net in nets.values()]
        for _ in range(repeats + 1)
    ]
    return [statistics.median(taken) for taken in zip(*rounds[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument("--size", type=int, default=256, help="pixels of a side of the images")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    size = chosen.size
    if chosen.memory:
        name, precision = chosen.memory
        print(gib_of_step(name, precision, size))
        return
    nets = {name: make() for name, make in NETWORKS.items()}
    print("voxlate; the others relative to it")

    def show(task: str, unit: str, numbers: list[float]) -> None:
        ours, *others = numbers
        ratios = [f"{name} {one / ours:.2f}" for name, one in zip([*NETWORKS][1:], others)]
        print(f"{task}: {ours:.3f} {unit}; {', '.join(ratios)}", flush=True)

    for train, batch, precision in product((False, True), (1, 4), PRECISIONS):
        both = torch.randn(batch, 2, size, size)
        task = f"{'training step' if train else 'forward'}, batch {batch}, {precision}"
        show(task, "s", medians(nets, both, chosen.repeats, precision, train))
    for precision in PRECISIONS:
        task = f"memory of a training step, batch {MEMORY_BATCH}, {precision}"
        show(task, "GiB", [memory(name, precision, size) for name in NETWORKS])


if __name__ == "__main__":
    main()
