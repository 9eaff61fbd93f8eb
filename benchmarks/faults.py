"""How many faults that a clinic meets are said, and with the right reason first: the table of docs/guides/trust.md.

    python benchmarks/faults.py USUAL JUDGED [SCAN …]

USUAL, JUDGED: folders of label maps of whole heads (SynthSeg's labels). The first are drawn as ordinary scans, the reference; of the
others, the first is drawn as T1 in thin slices, the second as T2 in slices of 5 mm, and these and the SCANs are spoilt in fifty ways.
"""

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from scipy import ndimage

from starter_heads import drawn_pairs
from starter_references import ordinary
from voxlate.base.messages import Message, by_consequence
from voxlate.checks.check_table import exact_messages, kind_messages
from voxlate.checks.fingerprint import fingerprint
from voxlate.checks.reference import Reference, fit_reference
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical

Array = np.ndarray
# The codes that are a right reason; sizes and axes are changed by `resized`.
RIGHT = {
    "upside down": "upside-down mirrored",
    "front to back": "front-to-back mirrored",
    "x and y exchanged": "axes-exchanged turned-head body-size",
    "z and y exchanged": "axes-exchanged",
    "voxels 0.8": "body-size",
    "voxels 0.87": "body-size",
    "voxels 1.25": "body-size",
    "slices 0.6": "shape appearance",
    "slices 1.5": "shape appearance",
    "pitched by 30°": "turned-head shape appearance upside-down front-to-back axes-exchanged",
    "turned by 30°": "turned-head",
    "tilted by 20°": "turned-head no-mirror appearance",
    "noise": "noise other-content",
    "ghosts": "ghosts two-heads",
    "moved in mid-scan": "slices",
    "turned in mid-scan": "slices no-mirror",
    "metal at the teeth": "void quality",
    "void in the brain": "void no-mirror",
    "face removed": "shape appearance",
    "crown cut off": "crown-missing shape",
    "upper half empty": "crown-missing shape appearance slices",
    "left half empty": "body-size no-mirror appearance",
    "slices shuffled": "slices",
    "slices interleaved": "slices",
    "every second slice darker": "slices",
    "joined of two heads": "slices",
    "slices repeated": "slices",
    "20 mm missing": "slices",
    "three slices empty": "slices",
    "ten slices reversed": "slices",
    "each slice scaled": "slices",
    "inverted": "contrast other-content",
    "bright tissue clipped": "contrast quality",
    "twelve grey levels": "label-values",
    "gain to the centre": "uneven",
    "gain to the head": "uneven",
    "gain to the right": "uneven",
    "offset": "other-background",
    "z-scores in a mask": "air-inside other-content",
    "blurred by 7 mm": "blur",
    "thick slices interpolated": "blur",
    "stripes": "stripes",
    "two heads": "two-heads body-size no-mirror",
    "bright points": "points",
    "overflow": "wrapped",
    "cubed": "contrast",
    "left mirrored to right": "no-mirror",
    "front cut off": "border",
    "mean of two heads": "blur no-mirror contrast",
    "a label map": "label-values",
}


def spoilt(v: Array, other: Array, mm: tuple[float, ...]) -> dict[str, Array]:
    """Values [D, H, W] of a head, spoilt in the ways that leave its voxels as large as they are; other: another head's."""
    draw = np.random.default_rng(5)
    tissue = v[v > v.mean() / 2]
    median, bright = float(np.median(tissue)), np.percentile(v, 99.9)
    is_body = v > v.mean() / 2
    places = np.argwhere(is_body)
    low, high = places.min(0), places.max(0) + 1
    half, top = len(v) // 2, int(high[0])
    z, y, x = np.meshgrid(*[np.arange(n) * s for n, s in zip(v.shape, mm)], indexing="ij")
    slices = np.arange(len(v))[:, None, None]
    lower = slices < half

    def away(shares: tuple[float, float, float]) -> Array:
        centre = (low + shares * (high - 1 - low)) * mm
        return np.sqrt(sum((axis - at) ** 2 for axis, at in zip((z, y, x), centre)))

    def rotated(degrees: float, axes: tuple[int, int]) -> Array:
        cubes = ndimage.zoom(v, [side / min(mm) for side in mm], order=1)
        turned = ndimage.rotate(cubes, degrees, axes, reshape=False, order=1, mode="nearest")
        return ndimage.zoom(turned, np.divide(v.shape, turned.shape), order=1)

    beside = np.zeros_like(v)
    shared = tuple(slice(0, min(pair)) for pair in zip(v.shape, other.shape))
    beside[shared] = other[shared] * median / np.median(other[other > other.mean() / 2])
    teeth, depth_mm = (
        max(0.1, 1 - 150 / max((top - low[0]) * mm[0], 151)),
        (top - z / mm[0]) * mm[0],
    )
    metal = away((teeth, 0.75, 0.5))
    face = (y > (low[1] + 0.55 * (high[1] - low[1])) * mm[1]) & (depth_mm > 95)
    moved = ndimage.shift(v, (0, 8 / mm[1], 5 / mm[2]), order=1)
    swung = ndimage.rotate(v, 10, (1, 2), reshape=False, order=1)
    count = max(2, round(7 / mm[0]))
    thick = v[: len(v) // count * count].reshape(-1, count, *v.shape[1:]).mean(1)
    noise = draw.normal(0, median / 4, (2, *v.shape))
    body = v > np.percentile(v, 50) / 5 + 1e-6
    quarters = np.percentile(tissue, [25, 50, 75])
    limit = np.percentile(tissue, 93)
    gap = np.s_[int(0.55 * len(v)) : int(0.55 * len(v)) + max(2, int(20 / mm[0]))]
    order = np.arange(len(v))
    order[half : half + min(10, len(v) // 3)] = order[half : half + min(10, len(v) // 3)][::-1]
    middle = v.shape[2] // 2
    return {
        "upside down": v[::-1],
        "front to back": v[:, ::-1],
        "pitched by 30°": rotated(30, (0, 1)),
        "turned by 30°": rotated(30, (1, 2)),
        "tilted by 20°": rotated(20, (0, 2)),
        "noise": np.hypot(v + noise[0], noise[1]),
        "ghosts": v + 0.35 * np.roll(v, v.shape[1] // 2, 1),
        "moved in mid-scan": np.where(lower, v, moved),
        "turned in mid-scan": np.where(lower, v, swung),
        "metal at the teeth": np.where(metal < 20, 0, np.where(metal < 26, 2 * bright, v)),
        "void in the brain": np.where(away((0.6, 0.5, 0.3)) < 18, 0, v),
        "face removed": np.where(face, 0, v),
        "crown cut off": v[: top - int(25 / mm[0])],
        "upper half empty": np.where(slices < (low[0] + top) // 2, v, 0),
        "left half empty": np.where(np.arange(v.shape[2]) < middle, 0, v),
        "slices shuffled": v[draw.permutation(len(v))],
        "slices interleaved": np.concatenate([v[::2], v[1::2]]),
        "every second slice darker": v * np.where(slices % 2, 1, 0.75),
        "joined of two heads": np.where(lower, v, beside),
        "slices repeated": np.repeat(v[::2], 2, 0)[: len(v)],
        "20 mm missing": np.delete(v, gap, 0),
        "three slices empty": np.where((slices >= half) & (slices < half + 3), 0, v),
        "ten slices reversed": v[order],
        "each slice scaled": v / np.maximum(v.max((1, 2), keepdims=True), 1e-6) * 1000,
        "inverted": np.where(v > 0.3 * v.mean(), 1.05 * bright - np.minimum(v, bright), 0),
        "bright tissue clipped": np.minimum(v, np.percentile(tissue, 45)),
        "twelve grey levels": np.round(v / bright * 12),
        "gain to the centre": v * (1 + 3 * np.exp(-((away((0.6, 0.5, 0.5)) / 45) ** 2))),
        "gain to the head": v * np.geomspace(1, 4, len(v))[:, None, None],
        "gain to the right": v * np.geomspace(1, 5, v.shape[2]),
        "offset": v + 0.3 * median,
        "z-scores in a mask": np.where(body, (v - v[body].mean()) / v[body].std(), 0),
        "blurred by 7 mm": ndimage.gaussian_filter(v, np.divide(3, mm)),
        "thick slices interpolated": ndimage.zoom(thick, (len(v) / len(thick), 1, 1), order=1),
        "stripes": np.maximum(v + median / 4 * np.cos(2 * np.pi * (y + x) / 7), 0),
        "two heads": np.concatenate([v, v[:, :, ::-1]], 2),
        "bright points": np.where(draw.random(v.shape) < 0.02, 1.3 * bright, v),
        "overflow": np.where(v > limit, v - limit, v),
        "cubed": v**3,
        "left mirrored to right": np.where(np.arange(v.shape[2]) < middle, v, v[:, :, ::-1]),
        "front cut off": v[:, : high[1] - int(25 / mm[1])],
        "mean of two heads": (v + beside) / 2,
        "a label map": np.where(v > 0.3 * v.mean(), 1 + np.digitize(v, quarters), 0),
    }


def resized(v: Array, mm: tuple[float, ...]) -> dict[str, tuple[Array, Array]]:
    """Values and sides of voxels that are not those of the head."""
    sides = np.array(mm)
    scaled = {f"voxels {times}": (v, sides * times) for times in (0.8, 0.87, 1.25)}
    apart = {f"slices {times}": (v, sides * (times, 1, 1)) for times in (0.6, 1.5)}
    return scaled | apart | {
        "x and y exchanged": (v.transpose(0, 2, 1), sides[[0, 2, 1]]),
        "z and y exchanged": (v.transpose(1, 0, 2), sides[[1, 0, 2]]),
    }  # fmt: skip


def faulty(scan: Volume, other: Volume) -> Iterator[tuple[str, Volume]]:
    """The scans that are spoilt, by the fault."""
    v, mm = scan.data[0].astype(float), scan.grid.spacing_mm
    same = {name: (values, np.array(mm)) for name, values in spoilt(v, other.data[0], mm).items()}
    for name, (values, sides) in (same | resized(v, mm)).items():
        data = np.ascontiguousarray(values[None], np.float32)
        yield name, Volume(data, np.diag([*sides[::-1], 1.0]), "a.u.", "mr")


def said_of(scan: Volume, reference: Reference) -> list[Message]:
    """What is said of a scan that is given to a network of whole heads."""
    measured = fingerprint(scan)
    exact = exact_messages(measured, "a.u.", groups=("array", "scan"))
    beside = reference.messages(measured, "the scan")
    return by_consequence([*exact, *kind_messages(measured, "head", ""), *beside])


def main() -> None:
    usual, judged, *paths = map(Path, sys.argv[1:])
    patients, prints = zip(*[(patient, scan) for _, patient, scan in ordinary(usual)])
    reference = fit_reference(prints, patients)
    drawn = {name: canonical(mr) for name, mr, _, _ in drawn_pairs(judged, variations=1)}
    thin = [scan for name, scan in drawn.items() if " t1 1.3" in name]
    thick = [scan for name, scan in drawn.items() if " t2 5.3" in name]
    scans = [thin[0], thick[1], *(canonical(read_volume(path, "mr")) for path in paths)]
    others = [thin[1], thick[0], *[thin[0]] * len(paths)]
    counts = {name: np.zeros(3, int) for name in RIGHT}
    for name, scan in chain.from_iterable(map(faulty, scans, others)):
        said = said_of(scan, reference)
        is_right = bool(said) and said[0].code in RIGHT[name].split()
        counts[name] += (bool(said), any(one.grade != "note" for one in said), is_right)
    print(f"of {len(scans)} heads each: said, by a caution or more, right reason first")
    for name, count in counts.items():
        print(f"{name:28}", *count)
    total = np.sum([*counts.values()], axis=0)
    print("all", *total, "of", len(scans) * len(RIGHT))


if __name__ == "__main__":
    main()
