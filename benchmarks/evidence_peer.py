"""A peer of the rows of heads: MONAI's BasicUNet on the same slices for the same minutes, in a loop of a few lines.

The network has MONAI's default widths. It maps slices of MR to those of CT, both from 0 to 1, by an L1 loss and AdamW, whose
rate falls as a cosine over the minutes; slices and their mirror images are drawn with equal probability.
"""

import csv
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from voxlate.scans.images.ranges import WHITE

BATCH = 4
RATE = 1e-3
Pair = tuple[torch.Tensor, torch.Tensor]


def rows_of(table: Path, split: str) -> list[dict[str, str]]:
    """The rows of a manifest that are of a split."""
    with table.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def cases_of(table: Path, split: str) -> Iterator[tuple[str, Pair]]:
    """The name and the pictures of MR and CT of each case of a split."""
    for row in rows_of(table, split):
        yield row["case"], (picture(row["mr"]), picture(row["ct"]))


def picture(path: str) -> torch.Tensor:
    """A picture [1, 1, h, w] from 0 to 1."""
    grey = np.asarray(Image.open(path).convert("L"), np.float32)
    return torch.from_numpy(grey)[None, None] / WHITE


def train_peer(pairs: Sequence[Pair], minutes: float) -> tuple[torch.nn.Module, int]:
    """MONAI's BasicUNet after so many minutes of training on pairs of slices of one size, and its steps."""
    from monai.networks.nets import BasicUNet  # of the extra bench

    torch.manual_seed(0)
    net: torch.nn.Module = BasicUNet(spatial_dims=2, in_channels=1, out_channels=1)
    inputs, targets = (torch.cat([pair[side] for pair in pairs]) for side in (0, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    began, steps = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        optimiser.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * share)) / 2
        chosen = torch.randint(len(inputs), (BATCH,))
        flips = torch.rand(BATCH, 1, 1, 1) < 0.5
        pair = (inputs[chosen], targets[chosen])
        x, y = (torch.where(flips, part.flip(3), part) for part in pair)
        with torch.autocast("cpu", torch.bfloat16):
            loss = (net(x) - y).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    return net.eval(), steps


def write_images(net: torch.nn.Module, table: Path, out: Path) -> None:
    """The network's image of each case that reports, as OUT/<case>/ct.png."""
    for case, (mr, _) in cases_of(table, "test"):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            grey = net(mr).float().clamp(0, 1)[0, 0] * WHITE
        (out / case).mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.round().byte().numpy()).save(out / case / "ct.png")
