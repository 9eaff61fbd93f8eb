"""Pictures of scored cases: sources, synthesis, truth, error and spread, on colour scales that all cases share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.files import UNFAMILIAR
from voxlate.images import pictures
from voxlate.images.grid import Grid, canonical, return_to
from voxlate.images.mask import foreground
from voxlate.images.pictures import Plane
from voxlate.images.ranges import Range, range_for
from voxlate.images.volume import Volume, is_there, read_volume
from voxlate.scoring.intervals import interval_of
from voxlate.scoring.items import images_in, is_map, spread_of
from voxlate.scoring.metrics import METRICS
from voxlate.scoring.network_units import RANGE as NETWORK_RANGE
from voxlate.scoring.network_units import network_units
from voxlate.scoring.provenance import provenance_of, stated_inputs
from voxlate.scoring.tables import figure, rows_of

SHORTEST_PIXELS = 160  # tiny volumes are enlarged here, since a browser would blur them
SOFT_TISSUE_HU = (-160.0, 240.0)  # the usual window (width 400, level 40) where a wider range is scored
WINDOWS_HU = {"ncct": (0.0, 80.0), "cta": (0.0, 200.0)}  # of the brain and its vessels, by how a modality's name begins
PERFUSION_COLOURS = {"ml/100g/min": "cbf", "ml/100g": "cbv", "s": "tmax"}
SIDES: dict[Plane, tuple[str, str]] = {"axial": ("R", "L"), "coronal": ("R", "L"), "sagittal": ("A", "P")}

SQUARES = 8  # of a chequerboard, along its shorter side
WIDEST = 7  # columns that fit next to each other; more stand in rows of about equal length
CASE_SCORES = ("mae", "psnr", "ssim_2d", "ssim_3d", "mae_z", "gradient_strength")
METHOD_SCORES = ("mae", "ssim_2d")
LABELS = {"synthesis": "image", "error": "− truth", "spread": "sd"}

Rows = Mapping[str, Mapping[str, Any]]  # scores of a case by method


@dataclass(frozen=True)
class ColourScale:
    """How values become colours: lowest and highest value, colour map, unit."""

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
        return (f"−{-self.low:g}" if self.low < 0 else f"{self.low:g}", f"{'+' if signed else ''}{self.high:g}")


Scales = Mapping[tuple[str, str], ColourScale]  # those that the cases of a modality share, by modality and role


@dataclass(frozen=True)
class CaseImage:
    """One image of a case: the values of its slices by plane; scale: None where all cases share one."""

    role: str
    name: str
    slices: dict[Plane, NDArray[Any]]
    scale: ColourScale | None = None


@dataclass(frozen=True)
class CaseImages:
    """The images of one case and the size of their pixels in mm, by plane; warnings: what synth said of it."""

    case: str
    modality: str
    grid: Grid
    images: tuple[CaseImage, ...]
    pixels: dict[Plane, tuple[float, float]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A slice in the page: a PNG, what it shows, and the letters of its left and right side."""

    uri: str
    alt: str
    label: str
    sides: tuple[str, str]


@dataclass(frozen=True)
class Column:
    """Pictures below each other with a heading, and colour bars with their labels."""

    role: str
    title: str
    pictures: Sequence[Picture]
    bars: Sequence[tuple[str, ColourScale]]
    notes: Sequence[str] = ()


def read_case(
    out: Path,
    scores: Mapping[str, Any],
    case: str,
    modality: str,
    sources: bool = True,
) -> CaseImages | None:
    """The middle slices of one synthesis in OUT, its sources and its truth; None where the synthesis is gone.

    scores: its metrics.json, which names the files of truth and sources and the range; {} where it was not scored.
    """
    made_here = images_in(out / case)
    path, std = made_here.get(modality), spread_of(modality, made_here)
    if path is None:
        return None
    truth = out.resolve() / scores.get("truth_files", {}).get(f"{case}/{modality}", "")
    part = scores.get("modalities", {}).get(modality)
    made, stated = _read(path, modality), provenance_of(out, case, modality)
    reference = _read(truth, modality) if truth != out.resolve() and is_there(truth) else None
    main = reference or made
    body = foreground(main)
    of_network = stated.get("network_units", {}) if part and part["unit"] == NETWORK_RANGE.unit else {}
    units = {name: network_units(stated, name, out / case) for name in of_network}
    if modality in units:
        made, own = units[modality].synthesis(made), units[modality]
        reference = None if reference is None else own.truth(reference)
    scale = _range(part) if part else range_for(main.unit, float(main.data.max()))
    images: list[tuple[str, str, NDArray[Any], ColourScale | None]] = []
    for name, place in _inputs(out, scores, case, stated).items() if sources else ():
        if is_there(place):
            source = _read(place, name)
            source = return_to(units[name].truth(source) if name in units else source, main.grid)
            shades = NETWORK_RANGE if name in units else range_for(source.unit, float(source.data.max()))
            values = shades.normalise(source.data[0], foreground(source))
            images.append(("source", name, values, _scale_of(shades, name)))
    ours = scale.normalise(return_to(made, main.grid).data[0], body)
    images.append(("synthesis", modality, ours, _scale_of(scale, modality)))
    if reference is not None:
        true = scale.normalise(reference.data[0], body)
        images.append(("truth", modality, true, _scale_of(scale, modality)))
        images.append(("error", "synthesis − truth", ours - true, None))
    if (interval := interval_of(made_here, modality, stated)) is not None:
        ends = [_read(one, modality) for one in (interval.low, interval.high)]
        ends = [units[modality].synthesis(one) for one in ends] if modality in units else ends
        low, high = (scale.alike(return_to(one, main.grid).data[0], made.data[0], body) for one in ends)
        images += [("low", f"{interval.coverage:.0%} interval, low", low, _scale_of(scale, modality))]
        images += [("high", f"{interval.coverage:.0%} interval, high", high, _scale_of(scale, modality))]
        if reference is not None:
            beyond = np.maximum(low - true, 0) - np.maximum(true - high, 0)
            beyond = np.where(foreground(return_to(reference, main.grid)), beyond, 0)  # nothing is promised around it
            images.append(("outside", "truth outside", beyond, None))
    strange = made_here.get(modality + UNFAMILIAR)
    if strange is not None and stated.get("familiar", {}).get("unfamiliar"):
        far = return_to(_read(strange, modality), main.grid).data[0]
        images.append(
            ("unfamiliar", "unlike known scans (1: as the last of them)", far, ColourScale(0, 4, "magma", ""))
        )
    if std is not None:
        sd = _read(std, modality) if modality not in units else units[modality].spread(_read(std, modality))
        spread = return_to(sd, main.grid).data[0] / scale.gain(made.data[0], body)
        images.append(("spread", "standard deviation", spread, None))
    at = _centre(body)
    return CaseImages(
        case,
        modality,
        main.grid,
        tuple(CaseImage(role, name, _cut(values, at), own) for role, name, values, own in images),
        {plane: pictures.pixel_mm(main.grid.spacing_mm, plane) for plane in at},
        tuple(stated.get("warnings", ())),
    )


def _inputs(out: Path, scores: Mapping[str, Any], case: str, stated: Mapping[str, Any]) -> dict[str, Path]:
    """The scans that an image was made from, by its provenance, and of those where its scores found them."""
    scored = scores.get("source_files", {}).get(case, {})  # as seen from OUT, and of all images of the case
    own = stated_inputs(stated)
    found = {name: out.resolve() / file for name, file in scored.items() if name in own or not own}
    return found or own


def shared_scales(cases: Sequence[CaseImages]) -> dict[tuple[str, str], ColourScale]:
    """One scale for all errors, and one for all spreads, of a modality: pictures then compare between cases."""
    found = {}
    for modality in {case.modality for case in cases}:
        images = [image for case in cases if case.modality == modality for image in case.images]
        unit = next((image.scale.unit for image in images if image.role == "synthesis" and image.scale), "")
        for role, low, colours in (("error", -1.0, "error"), ("spread", 0.0, "magma"), ("outside", -1.0, "error")):
            values = [np.abs(one).ravel() for image in images if image.role == role for one in image.slices.values()]
            if values:
                high = pictures.nice(float(np.percentile(np.concatenate(values), 99)))
                found[modality, role] = ColourScale(low * high, high, colours, unit)
    return found


def sections_of(
    folders: Mapping[str, Path], scores: Mapping[str, Mapping[str, Any]], most: int
) -> list[dict[str, Any]]:
    """At most so many cases, evenly from the lowest to the highest error (mean of the methods), ready for the page.

    folders: one method, whose images each get a column, or several, which get a column each.
    scores: their metrics.json; {} where there is none.
    """
    first = next(iter(folders))
    layout = _alone if len(folders) == 1 else _several
    modalities = list(scores[first].get("modalities", {})) or sorted({name for _, name in _made(folders[first])})
    found = []
    for modality in modalities:
        rows = {name: rows_of(scores[name], modality) for name in folders}
        scored = bool(rows[first])
        cases = list(rows[first]) if scored else [case for case, name in _made(folders[first]) if name == modality]
        error = {case: sum(mine.get(case, {}).get("mae") or 0.0 for mine in rows.values()) for case in cases}
        chosen = evenly(sorted(cases, key=lambda case: error[case]), max(1, most // len(modalities)))
        there: dict[str, dict[str, CaseImages]] = {case: {} for case, _ in chosen}
        for case, mine in there.items():
            for name, folder in folders.items():
                one = read_case(folder, scores[name], case, modality, sources=not mine)
                mine |= {name: one} if one else {}
        scales = shared_scales([one for mine in there.values() for one in mine.values()])
        unit = scores[first]["modalities"][modality]["unit"] if scored else ""
        for case, rank in chosen:
            if there[case]:
                mine_rows = {name: rows[name].get(case, {}) for name in there[case]}
                facts = [modality, str(next(iter(there[case].values())).grid), *([rank] if scored else [])]
                warnings = list(dict.fromkeys(note for one in there[case].values() for note in one.warnings))
                about = {"case": case, "facts": facts, "warnings": warnings}
                found.append({**about, **layout(there[case], scales, mine_rows, unit)})
    return found


def scan_columns(case: str, scans: Mapping[str, Volume], fixed: str | None, notes: Mapping[str, str]) -> list[Column]:
    """The middle slices of scans on one grid, a column each, and for each but `fixed` a chequerboard of it and `fixed`.

    notes: words below the heading of a scan's chequerboard.
    """
    names = sorted(scans, key=lambda name: name != fixed)
    main = scans[names[0]]
    at, spacing = _centre(foreground(main)), main.grid.spacing_mm
    images = dict[str, CaseImage]()
    for name in names:
        own = range_for(scans[name].unit, float(scans[name].data.max()))
        values = own.normalise(scans[name].data[0], foreground(scans[name]))
        role = ("fixed" if name == fixed else "moving") if fixed else "scan"
        images[name] = CaseImage(role, name, _cut(values, at), _scale_of(own, name))
    about = CaseImages(case, "", main.grid, (), {plane: pictures.pixel_mm(spacing, plane) for plane in at})
    columns = list[Column]()
    for name, image in images.items():
        columns.append(_column(about, image, {}))
        if fixed and name != fixed:
            board = {plane: _chequered(images[fixed], image, plane, about.pixels[plane]) for plane in at}
            both = CaseImage("chequerboard", f"{fixed} and {name}", board, ColourScale(0, 1, "gray", ""))
            columns.append(replace(_column(about, both, {}), bars=[], notes=[notes[name]] if name in notes else []))
    return columns


def _chequered(one: CaseImage, other: CaseImage, plane: Plane, pixel: tuple[float, float]) -> NDArray[Any]:
    """Two slices of one plane in turn, in squares, each in shades of its own scale from 0 to 1."""
    shown = []
    for image in (one, other):
        low, high = (image.scale.low, image.scale.high) if image.scale else (0.0, 1.0)
        shown.append((image.slices[plane] - low).clip(0, high - low) / (high - low))
    rows, columns = shown[0].shape
    side = min(rows * pixel[0], columns * pixel[1]) / SQUARES
    row, column = (np.arange(count) * size // side for count, size in zip((rows, columns), pixel))
    return np.where((row[:, None] + column) % 2 == 0, *shown)


def evenly(ordered: Sequence[str], most: int) -> list[tuple[str, str]]:
    """At most so many cases, evenly from the lowest to the highest error, each with its rank in words."""
    last, count = len(ordered) - 1, min(most, len(ordered))
    picks = [round(number * last / (count - 1)) for number in range(count)] if count > 1 else range(count)
    extremes = {0: " (lowest)", last: " (highest)"} if last else {}
    return [(ordered[n], f"error rank {n + 1} of {len(ordered)}{extremes.get(n, '')}") for n in picks]


def _alone(methods: Mapping[str, CaseImages], scales: Scales, rows: Rows, unit: str) -> dict[str, Any]:
    """A column an image, each with its own colour bar."""
    ((name, case),) = methods.items()
    columns = [_column(case, image, scales) for image in case.images]
    return {"columns": columns, "scores": _score_texts(rows[name], CASE_SCORES, unit)}


def _several(methods: Mapping[str, CaseImages], scales: Scales, rows: Rows, unit: str) -> dict[str, Any]:
    """Sources and truth, then a column a method: its image, its error and its spread."""
    first = next(iter(methods.values()))
    columns = [_column(first, one, scales) for one in first.images if one.role in ("source", "truth")]
    bars: dict[str, tuple[str, ColourScale]] = {}
    for name, case in methods.items():
        made = [image for image in case.images if image.role in LABELS]
        found = [one for image in made for one in _pictures(case, image, scales, name, LABELS[image.role])]
        notes = [f"{label} {value}" for label, value in _score_texts(rows[name], METHOD_SCORES, unit)]
        columns.append(Column("", name, found, [], notes))
        bars |= {one.role: (LABELS[one.role], one.scale or scales[case.modality, one.role]) for one in made}
    # all methods share their bars: below the truth, where there is room
    holder = next((n for n, one in enumerate(columns) if one.role == "truth"), len(columns) - len(methods))
    columns[holder] = replace(columns[holder], bars=list(bars.values()))
    return {"columns": columns, "in_a_row": in_a_row(len(columns))}


def in_a_row(columns: int) -> int:
    """How many columns stand next to each other, so that rows are about equally long."""
    return math.ceil(columns / math.ceil(columns / WIDEST))


def _column(case: CaseImages, image: CaseImage, scales: Scales) -> Column:
    scale = image.scale or scales[case.modality, image.role]
    return Column(image.role, image.name, _pictures(case, image, scales, image.role), [("", scale)])


def _pictures(case: CaseImages, image: CaseImage, scales: Scales, title: str, label: str = "") -> list[Picture]:
    """The slices of one image."""
    scale = image.scale or scales[case.modality, image.role]
    found = []
    for plane, values in image.slices.items():
        shades = pictures.shades(values, scale.low, scale.high)
        square = pictures.square_pixels(shades, case.pixels[plane], SHORTEST_PIXELS)
        alt = f"{title}{', ' if label else ''}{label} ({image.name}), {plane} slice of {case.case}"
        found.append(Picture(pictures.data_uri(square, scale.colours), alt, label, SIDES[plane]))
    return found


def _score_texts(row: Mapping[str, Any], keys: tuple[str, ...], unit: str) -> list[tuple[str, str]]:
    """Labels and values of some scores of one case."""
    return [
        (one.label, f"{figure(row[one.key], one)} {one.unit_for(unit)}".strip())
        for one in METRICS
        if one.key in keys and row.get(one.key) is not None
    ]


def _made(out: Path) -> list[tuple[str, str]]:
    """Cases and modalities of the syntheses in a folder."""
    cases = [path for path in sorted(out.iterdir()) if path.is_dir()]
    found = {case.name: images_in(case) for case in cases}
    return [(case, name) for case, images in found.items() for name in images if not is_map(name, images)]


def _read(path: Path, modality: str) -> Volume:
    return canonical(read_volume(path, modality))


def _cut(values: NDArray[Any], at: Mapping[Plane, int]) -> dict[Plane, NDArray[Any]]:
    """Slices of a canonical volume [D, H, W] as radiologists see them."""
    return {plane: pictures.plane_of(values, plane, index).astype(np.float32) for plane, index in at.items()}


def _centre(body: NDArray[np.bool_]) -> dict[Plane, int]:
    """Where to cut: through the middle of the foreground; a single slice has only itself."""
    if len(body) == 1:
        return {"axial": 0}
    middle = [round(float(axis.mean())) for axis in np.nonzero(body)] if body.any() else None
    depth, row, column = middle or [size // 2 for size in body.shape]
    return {"axial": depth, "coronal": row, "sagittal": column}


def _scale_of(scale: Range, modality: str) -> ColourScale:
    if scale.unit == "HU" and scale.width > 1000:
        window = next((one for name, one in WINDOWS_HU.items() if modality.startswith(name)), SOFT_TISSUE_HU)
        return ColourScale(*window, "gray", "HU")
    return ColourScale(scale.low, scale.high, PERFUSION_COLOURS.get(scale.unit, "gray"), scale.unit)


def _range(part: Mapping[str, Any]) -> Range:
    low, high = part["range"]
    return Range(float(low), float(high), part["unit"], part.get("range_rule", ""), part["own_peak"])
