"""Pictures of scored cases for the report: source, synthesis, truth, error and spread, each with its colour bar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.images import pictures
from voxlate.images.grid import Grid, canonical, return_to
from voxlate.images.mask import foreground
from voxlate.images.pictures import Plane
from voxlate.images.ranges import Range, range_for
from voxlate.images.volume import Volume, read_volume

SHORTEST_PIXELS = 160  # tiny volumes are enlarged, so that a tile is not a blur of the browser's making
SOFT_TISSUE_HU = (-160.0, 240.0)  # the usual window (width 400, level 40) where a wider range is scored
WINDOWS_HU = {"ncct": (0.0, 80.0), "cta": (0.0, 200.0)}  # of the brain and its vessels, by how a modality's name begins
PERFUSION_COLOURS = {"ml/100g/min": "cbf", "ml/100g": "cbv", "s": "tmax"}


@dataclass(frozen=True)
class Look:
    """How values become colours: window, colour map, unit."""

    low: float
    high: float
    colours: str
    unit: str

    @property
    def gradient(self) -> str:
        return pictures.gradient_css(self.colours)

    @property
    def ends(self) -> tuple[str, str]:
        signed = self.low < 0 < self.high and self.colours == "error"
        return (f"−{-self.low:g}" if self.low < 0 else f"{self.low:g}", f"{'+' if signed else ''}{self.high:g}")


@dataclass(frozen=True)
class View:
    """One image of a case: its slices as values, by plane, before a look is chosen."""

    role: str
    name: str
    slices: dict[Plane, NDArray[Any]]
    look: Look | None = None


@dataclass(frozen=True)
class CaseViews:
    """The views of one case and the size of their pixels in mm, by plane."""

    case: str
    modality: str
    grid: Grid
    views: tuple[View, ...]
    pixels: dict[Plane, tuple[float, float]]


@dataclass(frozen=True)
class Shown:
    """A picture in the page."""

    plane: Plane
    uri: str


@dataclass(frozen=True)
class Tile:
    """A column of pictures with one colour bar."""

    role: str
    name: str
    look: Look
    pictures: list[Shown] = field(default_factory=list)


def views_of(
    case: str,
    modality: str,
    synthesis: Path,
    sources: Mapping[str, Path],
    truth: Path | None,
    std: Path | None,
    scale: Range | None,
) -> CaseViews:
    """Read the files of one case and keep only the slices that will be shown."""
    made = read_volume(synthesis, modality)
    reference = read_volume(truth, modality) if truth else None
    main = reference or made
    scale = scale or range_for(main.unit, float(main.data.max()))
    region = foreground(main)
    at = _centre(main, region)
    views = []
    for name, path in sources.items():
        source = return_to(read_volume(path, name), main.grid)
        own = range_for(source.unit, float(source.data.max()))
        views.append(
            _view("source", name, source, own.normalise(source.data[0], foreground(source)), at, _look(own, name))
        )
    ours = scale.normalise(return_to(made, main.grid).data[0], region)
    views.append(_view("synthesis", modality, main, ours, at, _look(scale, modality)))
    if reference is not None:
        right = scale.normalise(reference.data[0], region)
        views.append(_view("truth", modality, main, right, at, _look(scale, modality)))
        views.append(_view("error", "synthesis − truth", main, ours - right, at))
    if std is not None:
        spread = return_to(read_volume(std, modality), main.grid).data[0] / scale.gain(made.data[0], region)
        views.append(_view("spread", "standard deviation", main, spread, at))
    spacing = canonical(main).grid.spacing_mm
    pixels = {plane: pictures.pixel_mm(spacing, plane) for plane in at}
    return CaseViews(case, modality, main.grid, tuple(views), pixels)


def looks_for(cases: Sequence[CaseViews]) -> dict[tuple[str, str], Look]:
    """One look for all errors, and one for all spreads, of a modality: pictures then compare between cases."""
    found = {}
    for modality in {case.modality for case in cases}:
        mine = [case for case in cases if case.modality == modality]
        unit = next(
            (view.look.unit for case in mine for view in case.views if view.role == "synthesis" and view.look), ""
        )
        for role, low, colours in (("error", -1.0, "error"), ("spread", 0.0, "magma")):
            values = [
                np.abs(part).ravel()
                for case in mine
                for view in case.views
                if view.role == role
                for part in view.slices.values()
            ]
            if values:
                high = pictures.nice(float(np.percentile(np.concatenate(values), 99)))
                found[modality, role] = Look(low * high, high, colours, unit)
    return found


def tiles_of(case: CaseViews, looks: Mapping[tuple[str, str], Look]) -> list[Tile]:
    """The pictures of one case, ready for the page."""
    tiles = []
    for view in case.views:
        look = view.look or looks[case.modality, view.role]
        shown = []
        for plane, values in view.slices.items():
            shades = pictures.shades(values, look.low, look.high)
            square = pictures.square_pixels(shades, case.pixels[plane], SHORTEST_PIXELS)
            shown.append(Shown(plane, pictures.data_uri(square, look.colours)))
        tiles.append(Tile(view.role, view.name, look, shown))
    return tiles


def _view(
    role: str, name: str, like: Volume, values: NDArray[Any], at: Mapping[Plane, int], look: Look | None = None
) -> View:
    turned = canonical(Volume(np.asarray(values, np.float32)[None], like.affine, like.unit, name)).data[0]
    return View(
        role, name, {plane: pictures.plane_of(turned, plane, index).copy() for plane, index in at.items()}, look
    )


def _centre(volume: Volume, region: NDArray[np.bool_]) -> dict[Plane, int]:
    """Where to cut: through the middle of the foreground; a single slice has only itself."""
    turned = canonical(Volume(region[None].astype(np.float32), volume.affine, "", "mask")).data[0] > 0.5
    if len(turned) == 1:
        return {"axial": 0}
    middle = [round(float(axis.mean())) for axis in np.nonzero(turned)] if turned.any() else None
    depth, row, column = middle or [size // 2 for size in turned.shape]
    return {"axial": depth, "coronal": row, "sagittal": column}


def _look(scale: Range, modality: str) -> Look:
    if scale.unit == "HU" and scale.width > 1000:
        window = next((one for name, one in WINDOWS_HU.items() if modality.startswith(name)), SOFT_TISSUE_HU)
        return Look(*window, "gray", "HU")
    return Look(scale.low, scale.high, PERFUSION_COLOURS.get(scale.unit, "gray"), scale.unit)
