"""Pictures of papers 002, 003 and 004 on phantoms: what each shows as a figure, from one run.

    python benchmarks/figures.py lyu_wang RUN HEADS PICTURE         T2, CT, mean, deviation and error of ten samples; states
    python benchmarks/figures.py umm_csgm RUN HEADS PICTURE         every one of the 14 missing sets of one slice
    python benchmarks/figures.py make_a_volume RUN HEADS PICTURE    a sagittal plane with and without volumetric layers

RUN: of mr_to_ct_ddpm_small, umm_csgm_small or make_a_volume_swi_mra_small; HEADS: its phantoms, of which the first case
of the test is shown.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.pictures import (
    Plane,
    palette,
    pixel_mm,
    plane_of,
    shades,
    sheet_with_labels,
    square_pixels,
)
from voxlate.training.load import load

SAMPLES, STATES = 10, 5
CONTRASTS = ("flair", "t1", "t1c", "t2")
DARK = 16  # grey values of background
COLOURS = 128  # of the picture, which keep it small


def scan(head: Path, name: str) -> Volume:
    return read_volume(head / f"{name}.nii.gz", name)


def tile(
    volume: Volume, low: float, high: float, plane: Plane = "axial", colours: str = "gray"
) -> np.ndarray:
    """The middle slice of a volume in a plane, as colours."""
    volume = canonical(volume)
    axis = {"axial": 0, "coronal": 1, "sagittal": 2}[plane]
    image = plane_of(volume.data[0], plane, volume.grid.shape[axis] // 2)
    grey = square_pixels(shades(image, low, high), pixel_mm(volume.grid.spacing_mm, plane))
    return palette(colours)[grey]


def lyu_wang(run: Path, head: Path) -> Image.Image:
    source, truth = scan(head, "t2"), scan(head, "ct")
    model = load(run).with_options(samples=SAMPLES, keep_states=STATES)
    made = model.synthesise({"t2": source}, anyway=True)
    mean, sd = made.volumes["ct"], made.std["ct"]
    error = Volume(mean.data - truth.data, truth.affine, "HU", "ct")
    most = float(np.percentile(np.abs(error.data), 99.5))
    print(
        f"SD and errors to {most:.0f} HU; mean SD {sd.data.mean():.1f}, MAE {np.abs(error.data).mean():.1f} HU"
    )
    window = (-1000, 1500)
    first = [
        tile(source, *np.percentile(source.data, (0.5, 99.5))),
        tile(truth, *window),
        tile(mean, *window),
        tile(sd, 0, most, colours="inferno"),
        tile(error, -most, most, colours="error"),
    ]
    states = [tile(state, *window) for state in made.states.values()]
    rows = [("", first), ("states of the reverse process, from noise to a sample", states)]
    return sheet_with_labels(rows, ("T2", "CT", "mean of ten", "SD", "error"), 112)


def umm_csgm(run: Path, head: Path) -> Image.Image:
    model = load(run)
    scans = {name: scan(head, name) for name in CONTRASTS}
    ends = {name: np.percentile(scans[name].data, (0.5, 99.5)) for name in CONTRASTS}
    sets = [one for size in (1, 2, 3) for one in combinations(CONTRASTS, size)]
    columns = [{name: tile(volume, *ends[name]) for name, volume in scans.items()}]
    for missing in sets:
        given = {name: volume for name, volume in scans.items() if name not in missing}
        made = model.synthesise(given, anyway=True).volumes
        columns.append({name: tile(volume, *ends[name]) for name, volume in made.items()})
    brain = np.max([*columns[0].values()], axis=(0, -1)) > DARK
    height, width = (slice(places.min(), places.max() + 1) for places in np.nonzero(brain))
    nothing = np.zeros_like(columns[0]["t1"])
    rows = [
        (name, [column.get(name, nothing)[height, width] for column in columns])
        for name in CONTRASTS
    ]
    return sheet_with_labels(rows, ("true", *map(str, range(1, len(sets) + 1))), 64)


def make_a_volume(run: Path, head: Path) -> Image.Image:
    source, truth = scan(head, "swi"), scan(head, "tof")
    low, high = np.percentile(truth.data, (0.5, 99.5))
    images = {"true MRA": truth}
    for name, weights in (
        ("with volumetric layers", run),
        ("without", run / "weights.slices.safetensors"),
    ):
        images[name] = load(weights).synthesise({"swi": source}, anyway=True).volumes["tof"]
        wrong = np.abs(np.diff(images[name].data[0] - truth.data[0], axis=0)).mean((1, 2))
        wrong *= 255 / (high - low)
        print(f"{name}: MAE z by slice, mean {wrong.mean():.2f}:", *(f"{one:.1f}" for one in wrong))
    own = np.percentile(source.data, (0.5, 99.5))
    row = [tile(source, own[0], own[1], plane="sagittal")]
    row += [tile(image, low, high, plane="sagittal") for image in images.values()]
    return sheet_with_labels([("", row)], ("SWI", *images), 220)


def main() -> None:
    name, run, heads, out = sys.argv[1:]
    draw = {"lyu_wang": lyu_wang, "umm_csgm": umm_csgm, "make_a_volume": make_a_volume}[name]
    case = min(case for case, split in load(run).facts.splits.items() if split == "test")
    draw(Path(run), Path(heads) / case).quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    main()
