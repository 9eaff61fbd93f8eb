"""The images of a result as the page's viewer reads them: NIfTI files, each with its role and its display window."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from voxlate.base.files import write_json
from voxlate.evaluation.scoring.interval_scores import interval_of, percent
from voxlate.evaluation.scoring.scored_images import images_in, spread_of
from voxlate.page.jobs import SHEET, VIEWS
from voxlate.scans.formats.io import is_there, read_volume, write_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.pictures import data_uri
from voxlate.scans.images.ranges import top_of, window_of
from voxlate.synthesis.montage import middle_slices
from voxlate.synthesis.provenance import provenance_of
from voxlate.synthesis.result import ENDINGS

SMALL = 64  # pixels along a side of the queue's picture
Role = Literal["source", "synthesis", "lower", "upper", "width", "spread"]


@dataclass(frozen=True)
class View:
    """An image of the viewer: its role, and the values shown as black and white.

    small: of a synthesis, a small picture.
    """

    name: str
    label: str
    role: Role
    unit: str
    low: float
    high: float
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
            yield _view("width", f"width of the {share} interval", width, 0.0, top), width
        spread = spread_of(name, images)
        if spread is not None:
            volume = replace(read_volume(spread, name), unit=units[name])
            label = "standard deviation of the samples"
            yield _view("spread", label, volume, 0.0, top_of(volume, image)), volume


def _view(role: Role, label: str, volume: Volume, low: float, high: float) -> View:
    return View(volume.modality, label, role, volume.unit, low, high)
