"""How well prepare's audit finds known misalignments of phantom heads: the table of docs/guides/misregistered.md.

python benchmarks/alignment.py [--cases 2] [--sizes 1mm 2mm thick slice]     prints a line a size and pair
"""

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from voxlate.anatomy.head import FIELD_MM, Head, make_head
from voxlate.anatomy.scanner import image
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.misalignment import Spacing, misalignment
from voxlate.scans.images.units import unit_of

Floats = NDArray[np.float64]
PAIRS = (("t1", "ct"), ("t1", "t2"), ("tof", "cta"), ("pd", "t1"))
RIGID = (
    (0.0, 0.0),
    (0.7, 0.0),
    (1.0, 1.0),
    (2.0, 0.0),
    (3.0, 2.0),
    (4.5, 3.0),
    (6.0, 5.0),
)  # mm, degrees
WARPS_MM = (1.0, 2.0, 4.0)  # median length
WAVE_MM = 250.0  # of a warp
SEED = 5


@dataclass(frozen=True)
class Size:
    """Voxels in x, y, z over the phantom's field of view, and what is cut out of it."""

    voxels: tuple[int, int, int]
    cut: tuple[slice, slice, slice] = (slice(None), slice(None), slice(None))


SIZES = {
    "1mm": Size((200, 240, 168), (slice(4, 164), slice(40, 200), slice(20, 180))),
    "2mm": Size((100, 120, 84)),
    "thick": Size((200, 240, 34)),
    "slice": Size((200, 240, 168), (slice(100, 101), slice(None), slice(None))),
}


@functools.lru_cache(maxsize=1)
def head(case: int, voxels: tuple[int, int, int]) -> Head:
    return make_head(SEED, case, voxels, ("none", "tumour", "stroke")[case % 3])


def rigid(
    draw: np.random.Generator, shape: Floats, mm: float, degrees: float, flat: bool
) -> Callable[[Floats], Floats]:
    """The points from which a moved scan is taken: a motion by `mm` and `degrees` in a random direction."""
    shift, axis = draw.standard_normal(3), draw.standard_normal(3)
    if flat:
        shift[0], axis[1:] = 0, 0
    shift *= mm / np.linalg.norm(shift)
    back = Rotation.from_rotvec(axis * np.deg2rad(degrees) / np.linalg.norm(axis)).as_matrix().T
    middle = shape / 2
    return lambda points: (points - middle - shift) @ back.T + middle


def warp(
    draw: np.random.Generator, inside: Floats, mm: float, flat: bool
) -> Callable[[Floats], Floats]:
    """The points from which a warped scan is taken: four waves, of `mm` in the median."""
    waves = [
        (draw.standard_normal(3), draw.uniform(0, 2 * np.pi), draw.standard_normal(3))
        for _ in range(4)
    ]

    def bend(points: Floats) -> Floats:
        made = np.zeros_like(points)
        for wave, phase, along in waves:
            if flat:
                wave, along = wave * [0, 1, 1], along * [0, 1, 1]
            made += (
                np.cos(points @ (wave * 2 * np.pi / WAVE_MM / np.linalg.norm(wave)) + phase)[
                    :, None
                ]
                * along
            )
        return made

    scale = mm / float(np.median(np.linalg.norm(bend(inside), axis=1)))
    return lambda points: points + scale * bend(points)


def displacement(back: Callable[[Floats], Floats], points: Floats) -> Floats:
    """Where the moved scan shows what lay at `points`, seen from there: the inverse of `back` by fixed-point steps."""
    found = points.copy()
    for _ in range(30):
        found = found + points - back(found)
    return found - points


def run(name: str, pair: tuple[str, str], cases: int) -> list[tuple[float, float, float, float]]:
    """Of each motion the true and the estimated median, the error of the 95th percentile, seconds; NaN: not stated."""
    size, found = SIZES[name], []
    for case in range(cases):
        whole = head(case, size.voxels)
        scans = [image(whole, modality)[size.cut].astype(np.float32) for modality in pair]
        spacing = np.array(whole.spacing_mm)
        flat = len(scans[0]) == 1
        mask = foreground(Volume(scans[0][None], whole.affine, unit_of(pair[0]), pair[0]))
        grid = np.indices(mask.shape).reshape(3, -1).T * spacing
        inside = grid[mask.ravel()][:: max(1, int(mask.sum()) // 3000)]
        extent = np.array(mask.shape) * spacing
        draw = np.random.default_rng([SEED, case])
        motions = [rigid(draw, extent, mm, degrees, flat) for mm, degrees in RIGID]
        motions += [warp(draw, inside, mm, flat) for mm in WARPS_MM]
        for back in motions:
            moved = scipy.ndimage.map_coordinates(
                scans[1], (back(grid) / spacing).T, order=3, mode="nearest"
            )
            begun = time.perf_counter()
            units = unit_of(pair[0]), unit_of(pair[1])
            distances: Spacing = whole.spacing_mm
            got = misalignment(
                scans[0], moved.reshape(mask.shape).astype(np.float32), distances, mask, units
            )
            seconds = time.perf_counter() - begun
            seen = np.array([axis not in got.unseen for axis in "DHW"])
            true = np.linalg.norm(displacement(back, inside) * seen, axis=1)
            median = np.nan if got.median_mm is None else got.median_mm
            p95 = np.nan if got.p95_mm is None else got.p95_mm
            found.append(
                (float(np.median(true)), median, p95 - float(np.percentile(true, 95)), seconds)
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", choices=[*SIZES], default=[*SIZES])
    options = parser.parse_args()
    voxel = {
        name: "×".join(f"{mm / n:.2f}" for mm, n in zip(FIELD_MM, size.voxels))
        for name, size in SIZES.items()
    }
    print(
        "size, pair | n | median within 0.5 mm | 95th within 1 mm | aligned: stated | median error | not stated | s"
    )
    for name in options.sizes:
        for pair in PAIRS:
            rows = np.array(run(name, pair, options.cases))
            error = np.abs(rows[:, 1] - rows[:, 0])
            aligned = rows[rows[:, 0] < 0.01, 1]
            print(
                f"{name} ({voxel[name]} mm), {pair[0]} → {pair[1]} | {len(rows)} | {np.mean(error <= 0.5):.0%} | "
                f"{np.mean(np.abs(rows[:, 2]) <= 1):.0%} | {np.nanmax(aligned):.2f} | {np.nanmedian(error):.2f} | "
                f"{int(np.isnan(error).sum())} | {np.median(rows[:, 3]):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
