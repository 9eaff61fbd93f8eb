"""Pictures of scored cases: sources, synthesis, truth, error and standard deviation, on shared colour scales."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.formats.io import is_there
from voxlate.images import pictures
from voxlate.images.grid import Grid, Volume, return_to
from voxlate.images.mask import foreground
from voxlate.images.pictures import Plane
from voxlate.images.ranges import Range, range_for
from voxlate.scoring.documents import rows_of
from voxlate.scoring.intervals import interval_of
from voxlate.scoring.metrics import METRICS
from voxlate.scoring.provenance import provenance_of, source_paths
from voxlate.scoring.regions import read_canonical
from voxlate.scoring.scored_images import images_in, is_map, spread_of
from voxlate.scoring.units import OWN, Conversion, Units, network_units
from voxlate.scoring.units import RANGE as NETWORK_RANGE
from voxlate.system.arrays import AnyArray, Bool, Float32
from voxlate.system.files import UNFAMILIAR
from voxlate.system.messages import Message, read_messages

SHORTEST_PIXELS = 160  # tiny volumes are enlarged here, because a browser would blur them
# This usual window (width 400, level 40) replaces wider scored ranges.
SOFT_TISSUE_HU = (-160.0, 240.0)
# Windows of the brain and its vessels by the beginning of a modality's name.
WINDOWS_HU = {"ncct": (0.0, 80.0), "cta": (0.0, 200.0)}
PERFUSION_COLOURS = {"ml/100g/min": "cbf", "ml/100g": "cbv", "s": "tmax"}
SIDES: dict[Plane, tuple[str, str]] = {
    "axial": ("R", "L"),
    "coronal": ("R", "L"),
    "sagittal": ("A", "P"),
}

SQUARES = 8  # squares of a chequerboard along its shorter side
WIDEST = 7  # columns of a row; more columns have rows of about equal length
CASE_SCORES = ("mae", "psnr", "ssim_2d", "ssim_3d", "mae_z", "gradient_strength")
METHOD_SCORES = ("mae", "ssim_2d")
LABELS = {"synthesis": "image", "error": "− truth", "spread": "sd"}

# Roles with a scale for all cases: the low end in units of the high one, and the colours.
SHARED = (("error", -1.0, "error"), ("spread", 0.0, "magma"), ("outside", -1.0, "error"))

Table = Mapping[str, Any]
Rows = Mapping[str, Table]  # scores of a case by method
Methods = Mapping[str, tuple[Path, Table]]


@dataclass(frozen=True)
class ColourScale:
    """A colour scale: lowest and highest value, colour map, unit."""

    low: float
    high: float
    colours: str
    unit: str

    @property
    def gradient(self) -> str:
        """The colours as a CSS gradient."""
        return pictures.gradient_css(self.colours)

    @property
    def limits(self) -> list[str]:
        """The texts of both ends."""
        sign = "+" if self.low < 0 < self.high and self.colours == "error" else ""
        return [f"{self.low:g}".replace("-", "−", 1), f"{sign}{self.high:g}"]


Scales = Mapping[str, ColourScale]  # the shared scales of a modality's cases by role


@dataclass(frozen=True)
class CaseImage:
    """One image of a case: the values of its slices by plane; scale: None if all cases share one scale."""

    role: str
    name: str
    slices: dict[Plane, AnyArray]
    scale: ColourScale | None = None


@dataclass(frozen=True)
class CaseImages:
    """The images of one case on one grid; warnings: those of synth."""

    case: str
    grid: Grid
    images: Sequence[CaseImage]
    warnings: Sequence[Message] = ()

    def pixel_mm(self, plane: Plane) -> tuple[float, float]:
        """Height and width of a pixel of a plane."""
        return pictures.pixel_mm(self.grid.spacing_mm, plane)


@dataclass(frozen=True)
class Column:
    """A column of pictures with a heading, and colour bars with their labels.

    pictures: each has a PNG (uri), a description (alt, label), and the letters of its left and right side (sides).
    """

    role: str
    title: str
    pictures: Sequence[Table]
    bars: Sequence[tuple[str, ColourScale]]
    notes: Sequence[str] = ()


def read_case(
    out: Path, scores: Table, case: str, modality: str, sources: bool = True
) -> CaseImages | None:
    """The middle slices of one synthesis in OUT, its sources and its truth; None if the synthesis is absent.

    scores: its metrics.json with the range and the files of truth and sources; {} if it was not scored.
    """
    files = images_in(out / case)
    if modality not in files:
        return None
    stated = provenance_of(out, case, modality)
    part = scores.get("modalities", {}).get(modality)
    of_network = part and part["unit"] == NETWORK_RANGE.unit
    networks = stated.get("network_units", {}) if of_network else {}
    units = {name: network_units(stated, name, out / case) for name in networks}
    image = read_canonical(files[modality], modality)
    # A CT may have grey values.
    image = replace(image, unit=stated.get("units", {}).get(modality, image.unit))
    place = scores.get("truth_files", {}).get(f"{case}/{modality}")
    file = out.resolve() / place if place else None
    truth = read_canonical(file, modality) if file and is_there(file) else None
    main = image if truth is None else truth
    own = units.get(modality, OWN)
    synthesis = return_to(own.synthesis(image), main.grid)
    scale = _range(part) if part else range_for(main.unit, float(main.data.max()))
    shown = _Shown(synthesis, own, scale, foreground(main))
    images = []
    for name, path in _inputs(out, scores, case, stated).items() if sources else ():
        if is_there(path):
            scan = return_to(units.get(name, OWN).truth(read_canonical(path, name)), main.grid)
            own_scale = NETWORK_RANGE if name in units else None
            images.append(_scan("source", name, scan, shown.at, own_scale))
    images += shown.read(files, stated, None if truth is None else own.truth(truth))
    return CaseImages(case, main.grid, images, stated.get("warnings", ()))


@dataclass(frozen=True, eq=False)
class _Shown:
    """A synthesis on the grid, in the units and on the range of its pictures; body: the case's foreground."""

    synthesis: Volume
    units: Units
    scale: Range
    body: Bool

    @cached_property
    def at(self) -> dict[Plane, int]:
        """The slices that are shown."""
        return _centre(self.body)

    def read(
        self, files: Mapping[str, Path], stated: Table, truth: Volume | None
    ) -> Iterator[CaseImage]:
        """A synthesis, its truth and error, and its maps, as far as they exist; files: of the case, by name."""
        modality = self.synthesis.modality
        values = self.synthesis.data[0]
        scale = self.scale
        shades = display_scale(scale, modality)
        ours = scale.normalise(values, self.body)
        yield self._image("synthesis", modality, ours, shades)
        true = None if truth is None else scale.normalise(truth.data[0], self.body)
        if true is not None:
            yield self._image("truth", modality, true, shades)
            yield self._image("error", "synthesis − truth", ours - true)
        if (interval := interval_of(files, modality, stated)) is not None:
            ends = [self._map(path, self.units.synthesis) for path in (interval.low, interval.high)]
            low, high = (scale.normalise_map(end, values, self.body) for end in ends)
            name = f"{interval.coverage:.0%} interval"
            yield self._image("low", name, low, shades)
            yield self._image("high", name, high, shades)
            if true is not None:
                beyond = np.maximum(low - true, 0) - np.maximum(true - high, 0)
                # Only voxels of the body count.
                yield self._image("outside", "truth outside", np.where(self.body, beyond, 0))
        if modality + UNFAMILIAR in files and stated.get("familiar", {}).get("unfamiliar"):
            far = self._map(files[modality + UNFAMILIAR], OWN.synthesis)
            name = "distance from training scans (1: the farthest of them)"
            yield self._image("unfamiliar", name, far, ColourScale(0, 4, "magma", ""))
        if (std := spread_of(modality, files)) is not None:
            spread = self._map(std, self.units.spread) / scale.gain(values, self.body)
            yield self._image("spread", "standard deviation", spread)

    def _map(self, path: Path, convert: Conversion) -> Float32:
        """The values of a map of the synthesis on its grid."""
        stored = convert(read_canonical(path, self.synthesis.modality))
        return return_to(stored, self.synthesis.grid).data[0]

    def _image(
        self, role: str, name: str, values: AnyArray, scale: ColourScale | None = None
    ) -> CaseImage:
        return CaseImage(role, name, _slices(values, self.at), scale)


def _inputs(out: Path, scores: Table, case: str, stated: Table) -> dict[str, Path]:
    """The source scans of an image by its provenance, at the places that its scores state."""
    # These paths are relative to OUT, and of all images of the case.
    scored = scores.get("source_files", {}).get(case, {})
    own = source_paths(stated)
    inputs = {name: out.resolve() / file for name, file in scored.items() if name in own or not own}
    return inputs or own


def share_scales(cases: Iterable[CaseImages]) -> Scales:
    """One scale for all errors and one for all standard deviations of a modality, so that cases can be compared."""
    values = dict[str, list[AnyArray]]()
    unit = ""
    for image in itertools.chain.from_iterable(case.images for case in cases):
        if image.role == "synthesis" and image.scale:
            unit = unit or image.scale.unit
        values.setdefault(image.role, []).extend(map(np.ravel, image.slices.values()))
    scales = {}
    for role, low, colours in SHARED:
        if role in values:
            high = float(np.percentile(np.abs(np.concatenate(values[role])), 99))
            high = pictures.nice(high)
            scales[role] = ColourScale(low * high, high, colours, unit)
    return scales


def sections_of(methods: Methods, most: int) -> list[Table]:
    """The page's sections of at most `most` cases, evenly from the lowest to the highest error (mean of the methods).

    methods: folder and metrics.json ({} if there is none) by name; one method with a column for each image, or several
    methods with a column for each method.
    """
    folder, scores = next(iter(methods.values()))
    syntheses = _syntheses(folder)
    modalities = list(scores.get("modalities", ())) or sorted({name for _, name in syntheses})
    each = max(1, most // max(1, len(modalities)))
    sections = list[Table]()
    for modality in modalities:
        cases = list(rows_of(scores, modality)) or [
            case for case, name in syntheses if name == modality
        ]
        sections += _sections(modality, cases, methods, each)
    return sections


def _sections(modality: str, cases: Sequence[str], methods: Methods, most: int) -> Iterator[Table]:
    """The sections of one modality."""
    rows = {name: rows_of(scores, modality) for name, (_, scores) in methods.items()}
    _, scores = next(iter(methods.values()))
    part = scores.get("modalities", {}).get(modality)

    def error(case: str) -> float:
        """The sum of the methods' errors."""
        return sum(own.get(case, {}).get("mae") or 0.0 for own in rows.values())

    ordered = sorted(cases, key=error)
    ranks = evenly(len(ordered), most)
    last = len(ordered) - 1
    extremes = {0: " (lowest)", last: " (highest)"} if last else {}
    shown = list[dict[str, CaseImages]]()
    for rank in ranks:
        images = dict[str, CaseImages]()
        for name, (folder, own) in methods.items():
            # The images of the first method include the sources.
            if found := read_case(folder, own, ordered[rank], modality, sources=not images):
                images[name] = found
        shown.append(images)
    scales = share_scales(itertools.chain.from_iterable(images.values() for images in shown))
    layout = _alone if len(methods) == 1 else _several
    for rank, images in zip(ranks, shown):
        if images:
            case = ordered[rank]
            facts = [modality, str(next(iter(images.values())).grid)]
            if part:
                facts.append(f"error rank {rank + 1} of {len(ordered)}{extremes.get(rank, '')}")
            said = itertools.chain.from_iterable(own.warnings for own in images.values())
            own_rows = {name: rows[name].get(case, {}) for name in images}
            yield {
                "case": case,
                "facts": facts,
                "warnings": list(dict.fromkeys(map(str, said))),
                **layout(images, scales, own_rows, part["unit"] if part else ""),
            }


def scan_columns(
    case: str, scans: Mapping[str, Volume], fixed: str | None, notes: Mapping[str, str]
) -> list[Column]:
    """The middle slices of scans on one grid in a column each, and chequerboards of `fixed` with each other scan.

    notes: text below the heading of a scan's chequerboard.
    """
    names = sorted(scans, key=lambda name: name != fixed)
    main = scans[names[0]]
    about = CaseImages(case, main.grid, ())
    at = _centre(foreground(main))
    images = dict[str, CaseImage]()
    columns = list[Column]()
    for name in names:
        role = ("fixed" if name == fixed else "moving") if fixed else "scan"
        image = images[name] = _scan(role, name, scans[name], at)
        columns.append(_column(about, image, {}))
        if fixed and name != fixed:
            pair = f"{fixed} and {name}"
            board = {
                plane: chequerboard(images[fixed], image, plane, about.pixel_mm(plane))
                for plane in at
            }
            both = CaseImage("chequerboard", pair, board, ColourScale(0, 1, "gray", ""))
            text = [notes[name]] if name in notes else []
            columns.append(replace(_column(about, both, {}), bars=[], notes=text))
    return columns


def _scan(
    role: str,
    name: str,
    scan: Volume,
    at: Mapping[Plane, int],
    scale: Range | None = None,
) -> CaseImage:
    """The image of a single scan; scale: by default that of its unit."""
    scale = scale or range_for(scan.unit, float(scan.data.max()))
    values = scale.normalise(scan.data[0], foreground(scan))
    return CaseImage(role, name, _slices(values, at), display_scale(scale, name))


def chequerboard(
    first: CaseImage, second: CaseImage, plane: Plane, pixel: tuple[float, float]
) -> AnyArray:
    """Two slices of one plane in alternating squares, each in shades of its own scale from 0 to 1."""
    shown = []
    for image in (first, second):
        low, high = (image.scale.low, image.scale.high) if image.scale else (0.0, 1.0)
        shown.append((image.slices[plane] - low).clip(0, high - low) / (high - low))
    rows, columns = shown[0].shape
    side = min(rows * pixel[0], columns * pixel[1]) / SQUARES
    row, column = (np.arange(count) * size // side for count, size in zip((rows, columns), pixel))
    return np.where((row[:, None] + column) % 2 == 0, *shown)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly from the first to the last."""
    chosen = min(count, most)
    return [round(number * (count - 1) / max(1, chosen - 1)) for number in range(chosen)]


def _alone(methods: Mapping[str, CaseImages], scales: Scales, rows: Rows, unit: str) -> Table:
    """A column for each image with its own colour bar."""
    ((name, case),) = methods.items()
    columns = [_column(case, image, scales) for image in case.images]
    return {"columns": columns, "scores": _score_texts(rows[name], CASE_SCORES, unit)}


def _several(methods: Mapping[str, CaseImages], scales: Scales, rows: Rows, unit: str) -> Table:
    """Sources and truth, then a column for each method: its image, error and standard deviation."""
    first = next(iter(methods.values()))
    columns = [
        _column(first, image, scales) for image in first.images if image.role in ("source", "truth")
    ]
    holder = next((n for n, column in enumerate(columns) if column.role == "truth"), len(columns))
    bars: dict[str, tuple[str, ColourScale]] = {}
    for name, case in methods.items():
        shown = list[Table]()
        for image in case.images:
            if label := LABELS.get(image.role):
                shown += _pictures(case, image, scales, name, label)
                bars[image.role] = (label, image.scale or scales[image.role])
        texts = _score_texts(rows[name], METHOD_SCORES, unit)
        columns.append(Column("", name, shown, [], [" ".join(text) for text in texts]))
    # All methods share colour bars, which are placed below the truth if there is one.
    columns[holder] = replace(columns[holder], bars=list(bars.values()))
    return {"columns": columns, "in_a_row": in_a_row(len(columns))}


def in_a_row(columns: int) -> int:
    """The number of columns in a row, so that rows are about equally long."""
    return math.ceil(columns / math.ceil(columns / WIDEST))


def _column(case: CaseImages, image: CaseImage, scales: Scales) -> Column:
    scale = image.scale or scales[image.role]
    shown = _pictures(case, image, scales, image.role)
    return Column(image.role, image.name, shown, [("", scale)])


def _pictures(
    case: CaseImages, image: CaseImage, scales: Scales, title: str, label: str = ""
) -> list[Table]:
    """The slices of one image."""
    scale = image.scale or scales[image.role]
    cells = list[Table]()
    for plane, values in image.slices.items():
        shades = pictures.shades(values, scale.low, scale.high)
        square = pictures.square_pixels(shades, case.pixel_mm(plane), SHORTEST_PIXELS)
        alt = f"{title}{', ' if label else ''}{label} ({image.name}), {plane} slice of {case.case}"
        uri = pictures.data_uri(square, scale.colours)
        cells.append({"uri": uri, "alt": alt, "label": label, "sides": SIDES[plane]})
    return cells


def _score_texts(row: Table, keys: Sequence[str], unit: str) -> list[tuple[str, str]]:
    """Labels and values of some scores of one case."""
    texts = []
    for metric in METRICS:
        if metric.key in keys and row.get(metric.key) is not None:
            value = f"{metric.text(row[metric.key])} {metric.unit_for(unit)}"
            texts.append((metric.label, value.strip()))
    return texts


def warnings_of(out: Path) -> dict[str, list[Message]]:
    """The warnings of all syntheses in a folder, by case."""
    warnings = dict[str, list[Message]]()
    for case, name in _syntheses(out):
        stated = read_messages(provenance_of(out, case, name).get("warnings", ()))
        warnings[case] = list(dict.fromkeys([*warnings.get(case, ()), *stated]))
    return warnings


def _syntheses(out: Path) -> list[tuple[str, str]]:
    """Cases and modalities of the syntheses in a folder."""
    syntheses = []
    for case in sorted(out.iterdir()):
        images = images_in(case) if case.is_dir() else {}
        syntheses += [(case.name, name) for name in images if not is_map(name, images)]
    return syntheses


def _slices(values: AnyArray, at: Mapping[Plane, int]) -> dict[Plane, AnyArray]:
    """Slices of a canonical volume [D, H, W] in radiological orientation."""
    return {
        plane: pictures.plane_of(values, plane, index).astype(np.float32)
        for plane, index in at.items()
    }


def _centre(body: Bool) -> dict[Plane, int]:
    """The slices through the middle of the foreground; a single slice has only itself."""
    if len(body) == 1:
        return {"axial": 0}
    middle = [round(float(axis.mean())) for axis in np.nonzero(body)] if body.any() else None
    depth, row, column = middle or [size // 2 for size in body.shape]
    return {"axial": depth, "coronal": row, "sagittal": column}


def display_scale(scale: Range, modality: str) -> ColourScale:
    """The colours in which images of a range are shown: of a CT a window, of a perfusion map the usual colours."""
    if scale.unit == "HU" and scale.width > 1000:
        windows = (window for name, window in WINDOWS_HU.items() if modality.startswith(name))
        return ColourScale(*next(windows, SOFT_TISSUE_HU), "gray", "HU")
    return ColourScale(scale.low, scale.high, PERFUSION_COLOURS.get(scale.unit, "gray"), scale.unit)


def _range(part: Table) -> Range:
    low, high = part["range"]
    return Range(float(low), float(high), part["unit"], part["range_rule"], part["own_peak"])
