"""The images of a result as the page's viewer reads them: NIfTI files, each with its role and its display window."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxlate.base.files import write_json
from voxlate.evaluation.intervals.expected import expected_error, mean_error
from voxlate.evaluation.scoring.interval_scores import Interval, interval_of, percent
from voxlate.evaluation.scoring.scored_images import images_in, spread_of
from voxlate.page.jobs import SHEET, VIEWS
from voxlate.scans.formats.io import is_there, read_volume, write_volume
from voxlate.scans.images.grid import Volume, canonical_view
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.pictures import data_uri
from voxlate.scans.images.regions import TISSUES_HU
from voxlate.scans.images.shown import top_of, window_of
from voxlate.synthesis.montage import middle_slices
from voxlate.synthesis.provenance import is_distrusted, provenance_of
from voxlate.synthesis.result import ENDINGS

SMALL = 64  # pixels along a side of the queue's picture
TISSUES = ("soft_tissue", "bone")
HEIGHTS = ("lower third", "middle third", "upper third")
FEWEST_VOXELS = 1000  # voxels of a region of which a mean is stated
Role = Literal["source", "synthesis", "lower", "upper", "width", "spread"]


@dataclass(frozen=True)
class View:
    """An image of the viewer: its role, and the values shown as black and white.

    expected: of the width of an interval, a sentence on the error that the intervals let expect; regions: that error by
    region; small: of a synthesis, a small picture.
    """

    name: str
    label: str
    role: Role
    unit: str
    low: float
    high: float
    expected: str = ""
    regions: Sequence[tuple[str, float]] = ()
    small: str = ""


def write_views(case: Path, sources: Mapping[str, Path], folder: Path) -> list[dict[str, Any]]:
    """Write the viewer's images of a synthesised case into a job's folder; returns their list, each with its file.

    sources: the scans from which it was synthesised, by modality.
    """
    target = folder / VIEWS
    target.mkdir(exist_ok=True)
    views = []
    rows = []
    for number, (view, volume) in enumerate(_volumes(case, sources)):
        file = f"{number}_{view.role}{ENDINGS[0]}"
        write_volume(target / file, volume, f"voxlate: {view.role}")
        if view.role not in ("lower", "upper"):
            colours = "inferno" if view.role in ("width", "spread") else "gray"
            slices = middle_slices(volume, view.low, view.high)
            pictures = [data_uri(picture, colours) for picture in slices]
            rows.append({"view": asdict(view), "pictures": pictures})
            if view.role == "synthesis":
                step = -(-max(slices[0].shape) // SMALL)
                view = replace(view, small=data_uri(slices[0][::step, ::step]))
        views.append({**asdict(view), "file": file})
    write_json(folder / SHEET, {"rows": rows})
    return views


def _volumes(case: Path, sources: Mapping[str, Path]) -> Iterator[tuple[View, Volume]]:
    """The sources of a case, then each synthesised image with its maps."""
    for name, path in sources.items():
        if is_there(path):
            volume = read_volume(path, name)
            yield _view("source", name, volume, *window_of(volume)), volume
    stated = provenance_of(case)
    images = images_in(case)
    units = stated.get("units", {})
    for name in filter(units.__contains__, images):
        image = replace(read_volume(images[name], name), unit=units[name])
        low, high = window_of(image)
        yield _view("synthesis", f"{name}, synthesised", image, low, high), image
        interval = interval_of(images, name, stated)
        if interval is not None:
            lower, upper = (
                replace(read_volume(path, name), unit=units[name])
                for path in (interval.low, interval.high)
            )
            share = percent(interval.coverage)
            yield _view("lower", f"lower end of the {share} interval", lower, low, high), lower
            yield _view("upper", f"upper end of the {share} interval", upper, low, high), upper
            width = replace(upper, data=upper.data - lower.data)
            top = top_of(width, image)
            view = _view("width", f"width of the {share} interval", width, 0.0, top)
            expected = expected_error(width, image, interval, stated)
            regions = () if is_distrusted(stated) else errors_by_region(width, image, interval)
            yield replace(view, expected=expected, regions=regions), width
        spread = spread_of(name, images)
        if spread is not None:
            volume = replace(read_volume(spread, name), unit=units[name])
            label = "standard deviation of the samples"
            yield _view("spread", label, volume, 0.0, top_of(volume, image)), volume


def _view(role: Role, label: str, volume: Volume, low: float, high: float) -> View:
    return View(volume.modality, label, role, volume.unit, low, high)


def errors_by_region(width: Volume, image: Volume, interval: Interval) -> list[tuple[str, float]]:
    """The mean error that the intervals let expect by tissue and third of the body's height, the least first.

    Air outside of soft tissue and bone is left out: its intervals hold the skin, which a shift of half a voxel moves.
    """
    factor = mean_error({float(level): by for level, by in interval.levels.items()})
    upright = canonical_view(image)
    values = upright.data[0]
    half = canonical_view(width).data[0] / 2
    inside = foreground(upright)
    tissues = TISSUES if image.unit == "HU" else ("body",)
    found = []
    levels = np.array_split(np.flatnonzero(inside.any(axis=(1, 2))), len(HEIGHTS))
    for tissue in tissues if factor else ():
        low, high = TISSUES_HU.get(tissue, (-np.inf, np.inf))
        for height, slices in zip(HEIGHTS, levels):
            there = inside[slices] & (values[slices] >= low) & (values[slices] < high)
            if there.sum() >= FEWEST_VOXELS:
                error = factor * float(half[slices][there].mean())
                found.append((f"{tissue.replace('_', ' ')}, {height}", float(f"{error:.2g}")))
    return sorted(found, key=lambda region: region[1])
