"""Pictures of scored cases: sources, synthesis, truth, error and standard deviation, on shared colour scales."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.base.array_types import AnyArray, Bool
from voxlate.base.groups import grouped
from voxlate.base.messages import read_messages
from voxlate.evaluation.intervals.summary import error_lines
from voxlate.evaluation.scoring.metrics import METRIC_OF
from voxlate.evaluation.scoring.scored_images import (
    case_folders,
    images_in,
    interval_of,
    is_map,
    spread_of,
)
from voxlate.evaluation.scoring.scored_truth import read_canonical
from voxlate.evaluation.scoring.scores import Scores
from voxlate.scans.formats.io import is_picture, is_there
from voxlate.scans.images import pictures
from voxlate.scans.images.grid import Grid, Volume, return_to
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.pictures import Plane
from voxlate.scans.images.ranges import (
    NETWORK_RANGE,
    Range,
    as_grey,
    nice,
    range_for,
    shown_range,
)
from voxlate.synthesis.provenance import provenance_of, source_paths

TILE = 240  # pixels of a slice
# The sides of the patient on the left and on the right of a picture.
SIDES: dict[Plane, str] = {"axial": "R - L", "coronal": "R - L", "sagittal": "A - P"}
# Maps of matplotlib that begin with black, as a scan's background, and grow lighter all the way.
PERFUSION_COLOURS = {"ml/100g/min": "CMRmap", "ml/100g": "inferno", "s": "magma"}
# Roles with a scale for all cases: the low end in units of the high one, and the colours.
SHARED = {"error": (-1.0, "error"), "spread": (0.0, "magma")}

Table = Mapping[str, Any]


@dataclass(frozen=True)
class ColourScale:
    """A colour scale: lowest and highest value, colour map, unit."""

    low: float
    high: float
    colours: str
    unit: str

    def __str__(self) -> str:
        unit = self.unit.replace("×", "of the")  # the font of pictures has no such sign
        return f"{self.low:g} to {self.high:g} {unit}".rstrip()


@dataclass(frozen=True)
class CaseImage:
    """One image of a case: its title, and the values of its slices by plane; scale: None if all cases share that of the role."""

    role: str
    title: str
    slices: dict[Plane, AnyArray]
    scale: ColourScale | None = None


@dataclass(frozen=True)
class CaseImages:
    """The images of one case on one grid; sentences: with their grades, the warnings of synth and the expected error.

    oriented: whether a file states which side is the left one; pictures do not.
    """

    case: str
    grid: Grid
    images: Sequence[CaseImage]
    sentences: Sequence[tuple[str, str]] = ()
    oriented: bool = True

    def draw(self, scales: Mapping[str, ColourScale]) -> Table:
        """A picture (uri) with a row for each plane and a column for each image, and its description (alt).

        scales: those that all cases share, by role.
        """
        rows = []
        columns = [(image, image.scale or scales[image.role]) for image in self.images]
        for plane in self.images[0].slices:
            pixel = pictures.pixel_mm(self.grid.spacing_mm, plane)
            tiles = []
            for image, scale in columns:
                shades = pictures.shades(image.slices[plane], scale.low, scale.high)
                square = pictures.square_pixels(shades, pixel)
                tiles.append(pictures.palette(scale.colours)[square])
            rows.append((f"{plane}, {SIDES[plane]}" if self.oriented else plane, tiles))
        heads = [f"{image.title}\n{scale}".rstrip() for image, scale in columns]
        file = io.BytesIO()
        pictures.sheet_with_labels(rows, heads, TILE).save(file, "png")
        content = base64.b64encode(file.getvalue()).decode()
        alt = f"{self.case}: {', '.join(image.title for image in self.images)}"
        return {"uri": f"data:image/png;base64,{content}", "alt": alt}


def read_case(out: Path, header: Table, case: str, modality: str) -> CaseImages | None:
    """The middle slices of one synthesis in OUT, its sources and its truth; None if the synthesis is absent.

    header: of its scores, with the range and the files of truth and sources; {} if it was not scored.
    """
    files = images_in(out / case)
    if modality not in files:
        return None
    provenance = provenance_of(out, case)
    image = read_canonical(files[modality], modality)
    # A CT may have grey values.
    image = replace(image, unit=provenance.get("units", {}).get(modality, image.unit))
    label = f"{case}/{modality}"
    window = header.get("windows", {}).get(label)
    place = header.get("truth_files", {}).get(label)
    file = out.resolve() / place if place else files[modality]
    truth = read_canonical(file, modality) if place and is_there(file) else None
    main = image if truth is None else truth
    body = foreground(main)
    # where a source was moved, the scores state its place in the cohort
    moved = header.get("source_files", {}).get(case, {})
    images = []
    sources = source_paths(provenance)
    for name in sources:
        if name in moved:
            sources[name] = out.resolve() / moved[name]
        if is_there(sources[name]):
            scan = return_to(read_canonical(sources[name], name), main.grid)
            images.append(_scan("source", name, scan, _centre(body)))
    scale = range_for(main.unit, float(main.data.max()))
    for part in header.get("modalities", {}).values():
        # images are shown in their own unit
        if part["modality"] == modality and part["unit"] != NETWORK_RANGE.unit:
            low, high = map(float, part["range"])
            scale = Range(low, high, part["unit"], part["range_rule"], part["own_peak"])
    ours = return_to(image, main.grid)
    shown_in = None if window is None or truth is None else Scale(*window)
    images += _of_synthesis(ours, truth, scale, body, files, provenance, shown_in)
    sentences = [(said.grade, said.text) for said in read_messages(provenance)]
    if "expected" in provenance:  # what was measured is of all cases, and stands above
        sentences += [("note", line) for line in error_lines(provenance)]
    oriented = not any(map(is_picture, [file, *sources.values()]))
    return CaseImages(case, main.grid, images, sentences, oriented)


def _of_synthesis(
    synthesis: Volume,
    truth: Volume | None,
    scale: Range,
    body: Bool,
    files: Mapping[str, Path],
    provenance: Table,
    window: Scale | None = None,
) -> Iterator[CaseImage]:
    """A synthesis, its truth and error, and its maps, as far as they exist; files: of the case, by name.

    window: the HU that black and white of the truth show, of a synthesis in HU whose truth is a picture.
    """
    modality = synthesis.modality

    def in_grey(volume: Volume) -> Volume:
        """A volume of the synthesis in the unit of the truth."""
        if window is None:
            return volume
        return as_grey(volume, (window.low, window.high), scale.low, scale.high)

    synthesis = in_grey(synthesis)
    values = synthesis.data[0]
    at = _centre(body)
    shades = display_scale(scale, synthesis)

    def read_map(path: Path) -> Volume:
        """A map of the synthesis on its grid."""
        return return_to(read_canonical(path, modality), synthesis.grid)

    ours = scale.normalise(values, body)
    yield CaseImage("synthesis", f"synthesis {modality}", _slices(ours, at), shades)
    if truth is not None:
        true = scale.normalise(truth.data[0], body)
        yield CaseImage("truth", f"truth {modality}", _slices(true, at), shades)
        yield CaseImage("error", "error image - truth", _slices(ours - true, at))
    if (interval := interval_of(files, modality, provenance)) is not None:
        ends = (in_grey(read_map(path)).data[0] for path in (interval.low, interval.high))
        low, high = (scale.normalise(end, body, values) for end in ends)
        widest = nice(float(np.percentile((high - low)[body], 99)))
        width = ColourScale(0, widest, "magma", shades.unit)
        title = f"interval width, {interval.coverage:.0%}"
        yield CaseImage("interval", title, _slices(high - low, at), width)
    if (std := spread_of(modality, files)) is not None:
        gain = 1.0 if window is None else scale.width / (window.high - window.low)
        spread = read_map(std).data[0] * np.float32(gain) / scale.gain(values, body)
        yield CaseImage("spread", "spread standard deviation", _slices(spread, at))


def share_scales(cases: Sequence[CaseImages]) -> dict[str, ColourScale]:
    """One scale for all errors and one for all standard deviations of a modality, so that cases can be compared."""
    by_role = grouped((image.role, image) for case in cases for image in case.images)
    scales = {}
    for role in SHARED.keys() & by_role.keys():
        low, colours = SHARED[role]
        values = [slices.ravel() for image in by_role[role] for slices in image.slices.values()]
        high = nice(float(np.percentile(np.abs(np.concatenate(values)), 99)))
        scale = by_role["synthesis"][0].scale
        scales[role] = ColourScale(low * high, high, colours, scale.unit if scale else "")
    return scales


def sections_of(
    folders: Mapping[str, Path], scored: Mapping[str, Scores], most: int
) -> list[Table]:
    """The page's sections of at most `most` cases, evenly from the lowest to the highest error (mean of the methods).

    folders, scored: of each method by its name; there may be no scores. A section has all images of one method;
    of several methods it has the images and errors, after the sources and the truth.
    """
    first = next(iter(scored))
    cases_of = {name: [*scored[first].by_case(name).index] for name in scored[first].parts}
    if not cases_of:
        cases_of = grouped((name, case) for case, name in syntheses_in(folders[first]))
    each = max(1, most // max(1, len(cases_of)))
    sections = list[Table]()
    for name, cases in cases_of.items():
        part = scored[first].parts.get(name, {})
        sections += _sections(name, part, cases, folders, scored, each)
    return sections


def _sections(
    section: str,
    part: Table,
    cases: Sequence[str],
    folders: Mapping[str, Path],
    scored: Mapping[str, Scores],
    most: int,
) -> Iterator[Table]:
    """The page's sections of one section of the scores, which are a part of these conventions."""
    tables = [own.by_case(section)["mae"] for own in scored.values()] if part else []
    ordered = sorted(cases, key=lambda case: sum(table[case] for table in tables))
    shown = dict[int, CaseImages]()
    for rank in evenly(len(ordered), most):
        modality = part.get("modality", section)
        found = dict[str, CaseImages]()
        for name, own in scored.items():
            if images := read_case(folders[name], own.header, ordered[rank], modality):
                found[name] = images
        if found:
            shown[rank] = _beside(found)
    scales = share_scales([*shown.values()])
    for rank, case in shown.items():
        facts = [section, str(case.grid)]
        if part:
            errors = ", ".join(METRIC_OF["mae"].text(table[case.case]) for table in tables)
            facts += [f"MAE {errors} {part['unit']}", f"error rank {rank + 1} of {len(ordered)}"]
        yield {
            "case": case.case,
            "facts": facts,
            **case.draw(scales),
            "warnings": [*dict.fromkeys(case.sentences)],
        }


def _beside(methods: Mapping[str, CaseImages]) -> CaseImages:
    """The images of one method; of several, sources and truth, then the image and the error of each method."""
    first = next(iter(methods.values()))
    if len(methods) == 1:
        return first
    images = [image for image in first.images if image.role in ("source", "truth")]
    sentences = []
    for name, case in methods.items():
        for image in case.images:
            if image.role in ("synthesis", "error"):
                images.append(replace(image, title=f"{name}, {image.role}"))
        sentences += [(grade, f"{name}: {text}") for grade, text in case.sentences]
    return replace(first, images=images, sentences=sentences)


def scan_sheet(case: str, scans: Mapping[str, Volume], fixed: str) -> Table:
    """A picture of scans on one grid, `fixed` first, as of `CaseImages.draw`."""
    names = sorted(scans, key=lambda name: name != fixed)
    at = _centre(foreground(scans[fixed]))
    images = [_scan("scan", name, scans[name], at) for name in names]
    return CaseImages(case, scans[fixed].grid, images).draw({})


def _scan(role: str, name: str, scan: Volume, at: Mapping[Plane, int]) -> CaseImage:
    """The image of a single scan on the scale of its unit."""
    scale = range_for(scan.unit, float(scan.data.max()))
    values = scale.normalise(scan.data[0], foreground(scan))
    return CaseImage(role, f"{role} {name}", _slices(values, at), display_scale(scale, scan))


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly from the first to the last."""
    chosen: list[int] = np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
    return chosen


def syntheses_in(out: Path) -> list[tuple[str, str]]:
    """Cases and modalities of the syntheses in a folder."""
    return [
        (folder.name, name)
        for folder, images in case_folders(out)
        for name in images
        if not is_map(name, images)
    ]


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


def display_scale(scale: Range, image: Volume) -> ColourScale:
    """The colours in which an image of a range is shown: of a CT a window, of a perfusion map the usual colours."""
    low, high = shown_range(scale, image)
    return ColourScale(low, high, PERFUSION_COLOURS.get(scale.unit, "gray"), scale.unit)
