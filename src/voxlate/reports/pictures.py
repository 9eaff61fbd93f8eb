"""Pictures of scored cases: sources, synthesis, truth, error and standard deviation, on shared colour scales."""

import math
from collections.abc import Iterator, Mapping, Sequence
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

Rows = Mapping[str, Mapping[str, Any]]  # scores of a case by method


@dataclass(frozen=True)
class ColourScale:
    """A colour scale: lowest and highest value, colour map, unit."""

    low: float
    high: float
    colours: str
    unit: str

    @property
    def gradient(self) -> str:
        return pictures.gradient_css(self.colours)

    @property
    def limits(self) -> tuple[str, str]:
        signed = self.low < 0 < self.high and self.colours == "error"
        low = f"−{-self.low:g}" if self.low < 0 else f"{self.low:g}"
        return low, f"{'+' if signed else ''}{self.high:g}"


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
    warnings: Sequence[str] = ()

    def pixel_mm(self, plane: Plane) -> tuple[float, float]:
        return pictures.pixel_mm(self.grid.spacing_mm, plane)


@dataclass(frozen=True)
class Column:
    """A column of pictures with a heading, and colour bars with their labels.

    pictures: each has a PNG (uri), a description (alt, label), and the letters of its left and right side (sides).
    """

    role: str
    title: str
    pictures: Sequence[Mapping[str, Any]]
    bars: Sequence[tuple[str, ColourScale]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Shown:
    """A synthesis on the grid, in the units and on the range of its pictures; body: the case's foreground."""

    synthesis: Volume
    units: Units
    scale: Range
    body: Bool

    @cached_property
    def at(self) -> dict[Plane, int]:
        return _centre(self.body)

    def cut(self, values: AnyArray) -> dict[Plane, AnyArray]:
        return _cut(values, self.at)


def read_case(
    out: Path, scores: Mapping[str, Any], case: str, modality: str, sources: bool = True
) -> CaseImages | None:
    """The middle slices of one synthesis in OUT, its sources and its truth; None if the synthesis is absent.

    scores: its metrics.json with the range and the files of truth and sources; {} if it was not scored.
    """
    there = images_in(out / case)
    if modality not in there:
        return None
    stated = provenance_of(out, case, modality)
    part = scores.get("modalities", {}).get(modality)
    of_network = (
        stated.get("network_units", {}) if part and part["unit"] == NETWORK_RANGE.unit else {}
    )
    units = {name: network_units(stated, name, out / case) for name in of_network}
    own = units.get(modality, OWN)
    image = read_canonical(there[modality], modality)
    # A CT may have grey values.
    image = replace(image, unit=stated.get("units", {}).get(modality, image.unit))
    file = scores.get("truth_files", {}).get(f"{case}/{modality}")
    truth = (
        read_canonical(out.resolve() / file, modality)
        if file and is_there(out.resolve() / file)
        else None
    )
    main = image if truth is None else truth
    scale = _range(part) if part else range_for(main.unit, float(main.data.max()))
    shown = Shown(return_to(own.synthesis(image), main.grid), own, scale, foreground(main))
    images = []
    for name, path in _inputs(out, scores, case, stated).items() if sources else ():
        if is_there(path):
            scan = return_to(units.get(name, OWN).truth(read_canonical(path, name)), main.grid)
            images.append(
                _scan(
                    "source",
                    name,
                    scan,
                    shown.at,
                    NETWORK_RANGE if name in units else None,
                )
            )
    images += _of_synthesis(shown, there, stated, None if truth is None else own.truth(truth))
    return CaseImages(case, main.grid, images, stated.get("warnings", ()))


def _of_synthesis(
    shown: Shown,
    there: Mapping[str, Path],
    stated: Mapping[str, Any],
    truth: Volume | None,
) -> Iterator[CaseImage]:
    """A synthesis, its truth and error, and its maps, as far as they exist."""
    synthesis = shown.synthesis
    modality = shown.synthesis.modality
    scale = shown.scale
    body = shown.body
    shades = display_scale(scale, modality)

    def read(path: Path, convert: Conversion) -> Float32:
        return return_to(convert(read_canonical(path, modality)), synthesis.grid).data[0]

    ours = scale.normalise(synthesis.data[0], body)
    yield CaseImage("synthesis", modality, shown.cut(ours), shades)
    true = None if truth is None else scale.normalise(truth.data[0], body)
    if true is not None:
        yield CaseImage("truth", modality, shown.cut(true), shades)
        yield CaseImage("error", "synthesis − truth", shown.cut(ours - true))
    if (interval := interval_of(there, modality, stated)) is not None:
        ends = (read(path, shown.units.synthesis) for path in (interval.low, interval.high))
        low, high = (scale.normalise_map(end, synthesis.data[0], body) for end in ends)
        yield CaseImage("low", f"{interval.coverage:.0%} interval", shown.cut(low), shades)
        yield CaseImage("high", f"{interval.coverage:.0%} interval", shown.cut(high), shades)
        if true is not None:
            beyond = np.maximum(low - true, 0) - np.maximum(true - high, 0)
            # Only voxels of the body count.
            yield CaseImage("outside", "truth outside", shown.cut(np.where(body, beyond, 0)))
    if modality + UNFAMILIAR in there and stated.get("familiar", {}).get("unfamiliar"):
        far = read(there[modality + UNFAMILIAR], OWN.synthesis)
        colours = ColourScale(0, 4, "magma", "")
        yield CaseImage(
            "unfamiliar",
            "distance from training scans (1: the farthest of them)",
            shown.cut(far),
            colours,
        )
    if (std := spread_of(modality, there)) is not None:
        spread = read(std, shown.units.spread) / scale.gain(synthesis.data[0], body)
        yield CaseImage("spread", "standard deviation", shown.cut(spread))


def _inputs(
    out: Path, scores: Mapping[str, Any], case: str, stated: Mapping[str, Any]
) -> dict[str, Path]:
    """The source scans of an image by its provenance, at the places that its scores state."""
    # These paths are relative to OUT, and of all images of the case.
    scored = scores.get("source_files", {}).get(case, {})
    own = source_paths(stated)
    inputs = {name: out.resolve() / file for name, file in scored.items() if name in own or not own}
    return inputs or own


def shared_scales(cases: Sequence[CaseImages]) -> Scales:
    """One scale for all errors and one for all standard deviations of a modality, so that cases can be compared."""
    images = [image for case in cases for image in case.images]
    unit = next(
        (image.scale.unit for image in images if image.role == "synthesis" and image.scale),
        "",
    )
    scales = {}
    for role, low, colours in (
        ("error", -1.0, "error"),
        ("spread", 0.0, "magma"),
        ("outside", -1.0, "error"),
    ):
        values = [
            np.abs(values).ravel()
            for image in images
            if image.role == role
            for values in image.slices.values()
        ]
        if values:
            high = pictures.nice(float(np.percentile(np.concatenate(values), 99)))
            scales[role] = ColourScale(low * high, high, colours, unit)
    return scales


def sections_of(
    folders: Mapping[str, Path], scores: Mapping[str, Mapping[str, Any]], most: int
) -> list[dict[str, Any]]:
    """The page's sections of at most `most` cases, evenly from the lowest to the highest error (mean of the methods).

    folders: one method with a column for each image, or several methods with a column for each method.
    scores: their metrics.json; {} if there is none.
    """
    first = next(iter(folders))
    modalities = list(scores[first].get("modalities", {})) or sorted(
        {name for _, name in _made(folders[first])}
    )
    each = max(1, most // max(1, len(modalities)))
    return [
        section for modality in modalities for section in _sections(modality, folders, scores, each)
    ]


def _sections(
    modality: str,
    folders: Mapping[str, Path],
    scores: Mapping[str, Mapping[str, Any]],
    most: int,
) -> Iterator[dict[str, Any]]:
    first = next(iter(folders))
    layout = _alone if len(folders) == 1 else _several
    rows = {name: rows_of(scores[name], modality) for name in folders}
    scored = bool(rows[first])
    cases = (
        list(rows[first])
        if scored
        else [case for case, name in _made(folders[first]) if name == modality]
    )
    ordered = sorted(
        cases,
        key=lambda case: sum(
            scores_of.get(case, {}).get("mae") or 0.0 for scores_of in rows.values()
        ),
    )
    ranks = evenly(len(ordered), most)
    last = len(ordered) - 1
    shown = [_of_methods(folders, scores, ordered[rank], modality) for rank in ranks]
    scales = shared_scales([case for by_method in shown for case in by_method.values()])
    unit = scores[first]["modalities"][modality]["unit"] if scored else ""
    extremes = {0: " (lowest)", last: " (highest)"} if last else {}
    for rank, by_method in zip(ranks, shown):
        if by_method:
            case = ordered[rank]
            facts = [modality, str(next(iter(by_method.values())).grid)]
            facts += (
                [f"error rank {rank + 1} of {len(ordered)}{extremes.get(rank, '')}"]
                if scored
                else []
            )
            warnings = list(
                dict.fromkeys(
                    note for case_images in by_method.values() for note in case_images.warnings
                )
            )
            own_rows = {name: rows[name].get(case, {}) for name in by_method}
            yield {
                "case": case,
                "facts": facts,
                "warnings": warnings,
                **layout(by_method, scales, own_rows, unit),
            }


def _of_methods(
    folders: Mapping[str, Path],
    scores: Mapping[str, Mapping[str, Any]],
    case: str,
    modality: str,
) -> dict[str, CaseImages]:
    """The images of a case by method; those of the first method include the sources."""
    images = dict[str, CaseImages]()
    for name, folder in folders.items():
        if case_images := read_case(folder, scores[name], case, modality, sources=not images):
            images[name] = case_images
    return images


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
            board = {
                plane: _chequered(images[fixed], image, plane, about.pixel_mm(plane))
                for plane in at
            }
            both = CaseImage(
                "chequerboard",
                f"{fixed} and {name}",
                board,
                ColourScale(0, 1, "gray", ""),
            )
            columns.append(
                replace(
                    _column(about, both, {}),
                    bars=[],
                    notes=[notes[name]] if name in notes else [],
                )
            )
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
    return CaseImage(role, name, _cut(values, at), display_scale(scale, name))


def _chequered(
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


def _alone(
    methods: Mapping[str, CaseImages], scales: Scales, rows: Rows, unit: str
) -> dict[str, Any]:
    """A column for each image with its own colour bar."""
    ((name, case),) = methods.items()
    columns = [_column(case, image, scales) for image in case.images]
    return {"columns": columns, "scores": _score_texts(rows[name], CASE_SCORES, unit)}


def _several(
    methods: Mapping[str, CaseImages], scales: Scales, rows: Rows, unit: str
) -> dict[str, Any]:
    """Sources and truth, then a column for each method: its image, error and standard deviation."""
    first = next(iter(methods.values()))
    columns = [
        _column(first, image, scales) for image in first.images if image.role in ("source", "truth")
    ]
    bars: dict[str, tuple[str, ColourScale]] = {}
    for name, case in methods.items():
        ownhesis = [image for image in case.images if image.role in LABELS]
        shown = [
            picture
            for image in ownhesis
            for picture in _pictures(case, image, scales, name, LABELS[image.role])
        ]
        notes = [
            f"{label} {value}" for label, value in _score_texts(rows[name], METHOD_SCORES, unit)
        ]
        columns.append(Column("", name, shown, [], notes))
        bars |= {
            image.role: (LABELS[image.role], image.scale or scales[image.role])
            for image in ownhesis
        }
    # All methods share colour bars, which are placed below the truth if there is one.
    holder = next(
        (n for n, column in enumerate(columns) if column.role == "truth"),
        len(columns) - len(methods),
    )
    columns[holder] = replace(columns[holder], bars=list(bars.values()))
    return {"columns": columns, "in_a_row": in_a_row(len(columns))}


def in_a_row(columns: int) -> int:
    """The number of columns in a row, so that rows are about equally long."""
    return math.ceil(columns / math.ceil(columns / WIDEST))


def _column(case: CaseImages, image: CaseImage, scales: Scales) -> Column:
    scale = image.scale or scales[image.role]
    return Column(
        image.role,
        image.name,
        _pictures(case, image, scales, image.role),
        [("", scale)],
    )


def _pictures(
    case: CaseImages, image: CaseImage, scales: Scales, title: str, label: str = ""
) -> list[dict[str, Any]]:
    """The slices of one image."""
    scale = image.scale or scales[image.role]
    cells = []
    for plane, values in image.slices.items():
        shades = pictures.shades(values, scale.low, scale.high)
        square = pictures.square_pixels(shades, case.pixel_mm(plane), SHORTEST_PIXELS)
        alt = f"{title}{', ' if label else ''}{label} ({image.name}), {plane} slice of {case.case}"
        uri = pictures.data_uri(square, scale.colours)
        cells.append({"uri": uri, "alt": alt, "label": label, "sides": SIDES[plane]})
    return cells


def _score_texts(row: Mapping[str, Any], keys: tuple[str, ...], unit: str) -> list[tuple[str, str]]:
    """Labels and values of some scores of one case."""
    return [
        (
            metric.label,
            f"{metric.text(row[metric.key])} {metric.unit_for(unit)}".strip(),
        )
        for metric in METRICS
        if metric.key in keys and row.get(metric.key) is not None
    ]


def warnings_of(out: Path) -> dict[str, list[str]]:
    """The warnings of all syntheses in a folder, by case."""
    found = dict[str, list[str]]()
    for case, name in _made(out):
        stated = provenance_of(out, case, name).get("warnings", ())
        found[case] = list(dict.fromkeys([*found.get(case, ()), *stated]))
    return found


def _made(out: Path) -> list[tuple[str, str]]:
    """Cases and modalities of the syntheses in a folder."""
    cases = [path for path in sorted(out.iterdir()) if path.is_dir()]
    images_of = {case.name: images_in(case) for case in cases}
    return [
        (case, name)
        for case, images in images_of.items()
        for name in images
        if not is_map(name, images)
    ]


def _cut(values: AnyArray, at: Mapping[Plane, int]) -> dict[Plane, AnyArray]:
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
        window = next(
            (limits for name, limits in WINDOWS_HU.items() if modality.startswith(name)),
            SOFT_TISSUE_HU,
        )
        return ColourScale(*window, "gray", "HU")
    return ColourScale(scale.low, scale.high, PERFUSION_COLOURS.get(scale.unit, "gray"), scale.unit)


def _range(part: Mapping[str, Any]) -> Range:
    low, high = part["range"]
    return Range(
        float(low),
        float(high),
        part["unit"],
        part.get("range_rule", ""),
        part["own_peak"],
    )
