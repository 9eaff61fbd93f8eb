"""The figures on the pages of the five papers: one held-out phantom, and the images that the rows of tables.py left.

    python benchmarks/figures.py WORK [TABLE …]        (`make figures`, after `make tables`)

WORK is the folder of tables.py. A figure shows an axial slice of the first case of the test: its scans, and
the image of each row with its error below. A row whose images are not in WORK is left out. `figure` in tables.toml
states the targets, the windows and, for paper 002, the number of states of each sampler that are drawn below.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from nibabel import Nifti1Image, as_closest_canonical
from numpy.typing import NDArray
from PIL import Image

from tables import PAGES, TABLES, Row, Table, training_digest
from voxlate.science.methods.diffusion import DiffusionSettings
from voxlate.training.load import load

COLUMNS = 9
TILE = 1.2  # inches
COLOURS = 64  # of a figure, which keep its file small


@dataclass(frozen=True)
class Tile:
    """A slice [H, W], its title, the values that are black and white, and a name of colours."""

    image: NDArray[np.floating]
    title: str
    window: tuple[float, float]
    colours: str = "gray"


Line = list[Tile | None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("tables", nargs="*", default=list(TABLES), metavar="TABLE")
    chosen = parser.parse_args()
    for name in chosen.tables:
        lines = [*lines_of_figure(chosen.work / name, TABLES[name])]
        write(drawn(lines, aspect_of(chosen.work / name)), PAGES / f"{name}.png")


def lines_of_figure(work: Path, table: Table) -> Iterator[Line]:
    """The scans of a case, of each target the images and their errors, and states of samplers where asked for."""
    windows, targets = table.figure["windows"], table.figure["targets"]
    images = {target: images_of(work, table, target) for target in targets}
    found = [path for one in images.values() for path in one.values()]
    if not found:
        raise SystemExit(f"{work / 'out'}: expected images, found none. Run make tables first.")
    case = work / "heads" / found[0].parent.name
    number = slice_of(case)
    scans = {name: plane(case / f"{name}.nii.gz", number) for name in table.phantoms["modalities"]}
    yield [Tile(one, name, windows.get(name) or ends_of(one)) for name, one in scans.items()]
    for target in targets:
        upper: Line = []
        lower: Line = []
        low, high = windows[target]
        most = (high - low) / 2
        truth = scans[target].clip(low, high)
        for name, path in images[target].items():
            image = plane(path, number)
            upper.append(Tile(image, f"{target}: {name}", (low, high)))
            error = image.clip(low, high) - truth
            lower.append(Tile(error, "", (-most, most), "coolwarm"))
        for start in range(0, len(upper), COLUMNS):
            part = slice(start, start + COLUMNS)
            yield upper[part]
            yield lower[part]
    if "states" in table.figure:
        yield from states_of_rows(work, table, case, number)


def states_of_rows(work: Path, table: Table, case: Path, number: int) -> Iterator[Line]:
    """The states of the reverse process, from noise to image, of each row that samples and whose run is in the folder."""
    [target] = table.figure["targets"]
    for row in table.rows:
        run = run_of(work, row)
        if run is None or row.draw or not isinstance(row.recipes[0].method, DiffusionSettings):
            continue
        [source] = row.recipes[0].data.source
        model = load(run, device="cpu").with_options(
            like=row.recipe
        )  # rows of other samplers share a run
        model = model.with_options(keep_states=table.figure["states"])
        image = model.synthesise({source: case / f"{source}.nii.gz"}, anyway=True)
        planes = [volume.data[0][number, ::-1, ::-1] for volume in image.states.values()]
        yield [
            Tile(one, f"{row.name}, state {place}", table.figure["windows"][target])
            for place, one in enumerate(planes, 1)
        ]


def images_of(work: Path, table: Table, target: str) -> dict[str, Path]:
    """The rows' images of a target, those that are in the folder."""
    rows = [row for row in table.rows if target in row.targets]
    return {row.name: path for row in rows if (path := image_of(work, row, target))}


def image_of(work: Path, row: Row, target: str) -> Path | None:
    """The image of a row for the first case of the test, where it is in the folder."""
    found = sorted((work / "out" / row.key).glob(f"phantom_*/*{target}.nii.gz"))
    return found[0] if found else None


def run_of(work: Path, row: Row) -> Path | None:
    """The newest run of a row."""
    runs = (work / "runs").glob(f"{training_digest(row.recipes[0])}_*[!s]")
    return max(runs, key=lambda run: run.stat().st_mtime, default=None)


def ends_of(image: NDArray[np.floating]) -> tuple[float, float]:
    """The values of a slice that are drawn black and white where none are stated."""
    low, high = np.percentile(image, (1, 99.5))
    return float(low), float(high)


def aspect_of(work: Path) -> float:
    """Height of a pixel over its width, the same for all phantoms of a table."""
    lesion = Nifti1Image.from_filename(work / "heads" / "phantom_000" / "lesion.nii.gz")
    across, along, _ = lesion.header.get_zooms()
    return float(along / across)


def slice_of(case: Path) -> int:
    """The slice with the most voxels of the lesion, else the middle one."""
    lesion = np.asarray(Nifti1Image.from_filename(case / "lesion.nii.gz").dataobj) > 0
    areas = lesion.sum((0, 1))
    return int(areas.argmax()) if areas.any() else lesion.shape[2] // 2


def plane(path: Path, number: int) -> NDArray[np.floating]:
    """An axial slice of a file, nose up and the patient's left on the right."""
    image = as_closest_canonical(Nifti1Image.from_filename(path))
    return np.asarray(image.dataobj, dtype=float)[::-1, ::-1, number].T


def drawn(lines: Sequence[Line], aspect: float) -> Figure:
    """All tiles of a figure, a line of tiles a row."""
    columns = max(map(len, lines))
    figure, axes = plt.subplots(
        len(lines),
        columns,
        figsize=(columns * TILE, len(lines) * TILE),
        squeeze=False,
        layout="constrained",
    )
    for line, places in zip(lines, axes, strict=True):
        for place in places:
            place.axis("off")
        for tile, place in zip(line, places):
            if tile:
                low, high = tile.window
                place.imshow(tile.image, cmap=tile.colours, vmin=low, vmax=high, aspect=aspect)
                place.set_title(tile.title, fontsize=6, pad=2)
    return figure


def write(figure: Figure, path: Path) -> None:
    """Write a figure with few colours."""
    content = BytesIO()
    figure.savefig(content, dpi=100)
    Image.open(content).convert("RGB").quantize(COLOURS).save(path, optimize=True)
    plt.close(figure)


if __name__ == "__main__":
    main()
