"""The pictures of head-mr-to-ct: python benchmarks/starter_pictures.py PAIR, a real head with its CT (see starter_heads.py).

docs/head.png shows usual slices, docs/guides/worst.png those with the lowest Dice of bone, from top to bottom T1, synthetic CT and
true CT. It prints the Dice of the worst slices, which the guide states.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from starter_heads import BONE_HU, dice, real_pair, synthesised
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.training.load import load

DOCS = Path(__file__).resolve().parents[1] / "docs"
USUAL = (8, 14, 20, 25)
WORST = 4
APART = 2  # slices between the worst ones
LEAST_BONE = 0.02  # of the body, below which a slice has too little bone for a Dice
CT_WINDOW = (-500.0, 1300.0)  # HU that are black and white
TILE = (216, 184)  # rows and columns


def tile(
    image: np.ndarray, window: tuple[float, float], step_mm: tuple[float, float]
) -> np.ndarray:
    """A slice [H, W] whose rows grow downward, as grey levels in the middle of a tile of square millimetres."""
    low, high = window
    grey = np.clip((image[::-1] - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    rows, columns = (round(n * step / step_mm[1]) for n, step in zip(grey.shape, step_mm))
    scaled = np.array(Image.fromarray(grey).resize((columns, rows), Image.Resampling.BILINEAR))
    scale = min(TILE[0] / rows, 1)
    if scale < 1:
        size = (round(columns * scale), round(rows * scale))
        scaled = np.array(Image.fromarray(scaled).resize(size, Image.Resampling.BILINEAR))
    out = np.zeros(TILE, np.uint8)
    cut = [max(0, (n - most) // 2) for n, most in zip(scaled.shape, TILE)]
    part = scaled[cut[0] : cut[0] + TILE[0], cut[1] : cut[1] + TILE[1]]
    at = [(most - n) // 2 for n, most in zip(part.shape, TILE)]
    out[at[0] : at[0] + part.shape[0], at[1] : at[1] + part.shape[1]] = part
    return out


def picture(
    volumes: list[Volume], windows: list[tuple[float, float]], levels: list[int]
) -> Image.Image:
    """Axial slices at these levels and the middle sagittal one, a row for each volume."""
    lines = []
    for volume, window in zip(volumes, windows):
        data, (slice_mm, row_mm, column_mm) = volume.data[0], volume.grid.spacing_mm
        tiles = [tile(data[level], window, (row_mm, column_mm)) for level in levels]
        middle = data[:, :, data.shape[2] // 2]
        tiles.append(tile(middle, window, (slice_mm, row_mm)))
        lines.append(np.concatenate(tiles, axis=1))
    return Image.fromarray(np.concatenate(lines))


def worst_slices(image: np.ndarray, truth: np.ndarray, body: np.ndarray) -> list[tuple[int, float]]:
    """The slices with the lowest Dice of bone, apart from each other, with this Dice."""
    bone, found = ((values > BONE_HU) & body for values in (truth, image))
    enough = [k for k in range(len(bone)) if bone[k].sum() > LEAST_BONE * body[k].sum() > 0]
    chosen: list[tuple[int, float]] = []
    for score, level in sorted((dice(found[k], bone[k]), k) for k in enough):
        if len(chosen) < WORST and all(abs(level - other) >= APART for other, _ in chosen):
            chosen.append((level, score))
    return sorted(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair", type=Path)
    parser.add_argument("--starter", default="starter:head-mr-to-ct")
    arguments = parser.parse_args()
    name, mr, ct, _ = real_pair(arguments.pair)
    made = synthesised(load(arguments.starter, "cpu"), name, mr).volumes["ct"]
    body = (foreground(mr) & foreground(ct)).reshape(ct.data[0].shape)
    worst = worst_slices(made.data[0], ct.data[0], body)
    windows = [(0.0, float(np.percentile(mr.data, 99.5))), CT_WINDOW, CT_WINDOW]
    volumes = [mr, made, ct]
    picture(volumes, windows, [*USUAL]).save(DOCS / "head.png", optimize=True)
    levels = [level for level, _ in worst]
    picture(volumes, windows, levels).save(DOCS / "guides" / "worst.png", optimize=True)
    print("worst slices:", ", ".join(f"{level}: {score:.2f}" for level, score in worst))


if __name__ == "__main__":
    main()
