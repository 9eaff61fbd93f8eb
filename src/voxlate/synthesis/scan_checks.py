"""What a model knows of the scans of its training, and whether the scans of a cohort or of a case fit that, before its synthesis."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlate.base.array_types import AnyArray
from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import (
    FEWEST_PATIENTS,
    NOTED,
    Message,
    grade_of_distance,
    message,
    worst_grade,
)
from voxlate.base.records import Name, Number, Record, Several, checksum, write_tensors
from voxlate.checks.check_table import (
    ask,
    called,
    check_guesses,
    check_together,
    exact_messages,
    kind_messages,
)
from voxlate.checks.fingerprint import (
    Fingerprint,
    fingerprint,
    stored_fingerprint,
    value_numbers,
)
from voxlate.checks.reference import Reference, fit_reference
from voxlate.scans.cases.case import CaseHeader, PreparedCase
from voxlate.scans.images.frame import BodyFrame
from voxlate.scans.images.grid import Volume, same_grid
from voxlate.scans.images.intensity import PERCENTILES, Distribution, IntensityMap, Statistics
from voxlate.scans.images.mask import background_value, dilate, foreground
from voxlate.scans.images.misalignment import block_means
from voxlate.synthesis.facts import ModelFacts

if TYPE_CHECKING:
    from voxlate.scans.cases.prepared import Cohort


COARSE_MM = 4.0
MOST_CASES = 100  # the farthest of more is hardly farther


@dataclass(frozen=True)
class Stated:
    """What a file states of the reference of one source; see Reference."""

    names: tuple[Name, ...]
    patients: Several


@dataclass(frozen=True)
class KnownHeader:
    """The header of a file of known scans."""

    backgrounds: dict[Name, Number]
    beyond: dict[Name, Number]
    references: dict[Name, Stated] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownScans:
    """The scans of a training: by source their reference, by target its background and `beyond`.

    backgrounds: in physical units; beyond: the share of a target's body that no source shows, median over cases. A source of
    too few patients has no reference.
    """

    backgrounds: Mapping[str, float]
    beyond: Mapping[str, float]
    references: Mapping[str, Reference] = field(default_factory=dict)

    @classmethod
    def read(cls, stated: KnownHeader, arrays: Mapping[str, AnyArray]) -> "KnownScans":
        """Those of a file's header and arrays."""
        references = {
            name: Reference(of.names, arrays[f"{name}.values"], arrays[f"{name}.mean"], of.patients)
            for name, of in stated.references.items()
        }
        return cls(stated.backgrounds, stated.beyond, references)

    @property
    def header(self) -> KnownHeader:
        """What a file states beside its arrays."""
        stated = {name: Stated(one.names, one.patients) for name, one in self.references.items()}
        return KnownHeader(dict(self.backgrounds), dict(self.beyond), stated)

    @property
    def arrays(self) -> dict[str, AnyArray]:
        """SOURCE.values and SOURCE.mean of each reference."""
        arrays = dict[str, AnyArray]()
        for name, one in self.references.items():
            arrays |= {f"{name}.values": one.values, f"{name}.mean": one.mean}
        return arrays

    def save(self, path: Path) -> None:
        """Write them as a safetensors file."""
        text = json.dumps(asdict(self.header), sort_keys=True, allow_nan=False)
        write_tensors(path, self.arrays, {"anatomy": text, "sha256": checksum(text, self.arrays)})


def read_known_scans(path: Path) -> KnownScans:
    """Read the known scans of a training; those of version 0.7 hold no references.

    Raises BadInput where a file is damaged, was edited, or is of another format.
    """
    record = Record(
        path,
        "what is usual in a training",
        "Remove it, and images are synthesised without these checks; install voxlate again if it is that of a starter.",
    )
    with record.tensors() as file:
        text = file.text("anatomy")
        digest = file.text("sha256")
        earlier = json.loads(text)
        if "usual" in earlier:
            return KnownScans(earlier.get("backgrounds", {}), earlier.get("beyond", {}))
        stated: KnownHeader = record.parse(KnownHeader, text)
        arrays = file.arrays
    record.check_checksum(digest, checksum(text, arrays))
    return KnownScans.read(stated, arrays)


def known_scans_of(
    cohort: "Cohort",
    cases: Sequence[str],
    sources: Collection[str],
    targets: Mapping[str, IntensityMap],
) -> KnownScans:
    """The known scans of a cohort's training cases; at most MOST_CASES of them, evenly chosen."""
    step = -(-len(cases) // MOST_CASES) or 1
    scans = {name: list[tuple[str, Fingerprint]]() for name in sources}
    airs = defaultdict[str, list[float]](list)
    beyond = defaultdict[str, list[float]](list)
    for case_name in cases[::step]:
        case = cohort.case(case_name)
        header = case.header
        # Read once each, because drawn ones are computed.
        volumes = {name: case.volume(name) for name in {*sources, *targets} & {*header.visible}}
        shown = [name for name in sources if name in volumes]
        for name in shown:
            measured = stored_fingerprint(header, name)
            if measured is None:
                measured = fingerprint(volumes[name])
            if measured.numbers:
                scans[name].append((header.patient, measured))
        for name in targets.keys() & volumes.keys():
            scale = targets[name].scale(header.statistics[name])
            airs[name].append(float(scale.forward(np.float32(background_value(volumes[name])))))
            beyond[name].append(_beyond(volumes[name], [volumes[source] for source in shown]))
    backgrounds = {}
    for name, values in airs.items():
        scale = cohort.target_scale(targets[name], name, cases)
        backgrounds[name] = float(scale.inverse(np.median(values)))
    shares = {name: round(float(np.median(own)), 4) for name, own in beyond.items()}
    return KnownScans(backgrounds, shares, references_of(scans))


def references_of(scans: Mapping[str, Sequence[tuple[str, Fingerprint]]]) -> dict[str, Reference]:
    """The reference of each source from the patient and the fingerprint of its scans; none of few patients."""
    references = {}
    for name, some in scans.items():
        patients = [patient for patient, _ in some]
        if len({*patients}) >= FEWEST_PATIENTS:
            references[name] = fit_reference([scan for _, scan in some], patients)
    return references


def _beyond(target: Volume, sources: Sequence[Volume]) -> float:
    """The share of a target's body that is a voxel of COARSE_MM or more away from the body that any source shows."""
    body, *shown = (foreground(_coarse(volume)) for volume in (target, *sources))
    near = dilate(np.logical_or.reduce(shown), 1, (1, 1, 1))
    return float((body & ~near).sum() / max(1, body.sum()))


def _coarse(volume: Volume) -> Volume:
    """A volume averaged over blocks of about COARSE_MM; voxels that fill no block are left out."""
    data = volume.data[0]
    sides_mm = volume.grid.spacing_mm
    blocks = [min(n, max(1, round(COARSE_MM / mm))) for n, mm in zip(data.shape, sides_mm)]
    z, y, x = np.multiply(sides_mm, blocks)
    means = block_means(data, blocks)[None]
    return Volume(means, np.diag([x, y, z, 1.0]), volume.unit, volume.modality)


# BodyPartExamined (PS3.16, annex L) of no head, in English; a text with a word of the head may mean one.
ELSEWHERE = re.compile(
    r"^(?!.*(head|brain|skull|neck|c.?spine|whole)).*(?<![a-z])(abdomen|ankle|(fore|upper)?.?arm|breast|chest|elbow|extremity"
    r"|foot|hand|heart|hip|knee|leg|liver|pelvis|prostate|shoulder|[tl]?.?spine|thigh|thorax|wrist)s?(?![a-z])",
    re.I,
)
# Percentiles of a scan's foreground that are compared, in network units.
POINTS = (5, 25, 50, 75, 95)
MOST_BELOW = 0.2  # of a foreground under the floor; interpolation leaves a percent
NARROWEST = (
    0.02  # share of a window that the middle 98 % of bodies fill: in other units it is a flat grey
)
TOLERANCE = 0.15  # of the network's range of 2, beyond what the training cases span


def check_scans(
    facts: ModelFacts,
    prepared: PreparedCase,
    wholes: Mapping[str, Volume],
    frame: BodyFrame | None,
    known: KnownScans | None,
    targets: Sequence[str],
) -> list[Message]:
    """Messages on guesses and on scans that differ from the training data; raises BadInput for an empty scan.

    wholes: the scans before they were cut to the frame and resampled, which hides noise; targets: that are synthesised.
    """
    header = prepared.header
    said = list[Message]()
    for name, statistics in header.statistics.items():
        if statistics.blank:
            raise BadInput(
                f"{header.case}: expected {name} to show something, found every voxel {statistics.all.at(0):g}. Check the scan."
            )
        spec = facts.intensity[name]
        check_floor(name, spec, header, header.case)
        said += check_guesses(name, header.origins[name].guesses)
        # a range of one or two patients is none
        patients = math.inf if known is None or name in known.references else 0
        said += check_brightness(name, statistics, spec, facts.training_ranges, patients)
        if name in wholes:
            part = header.origins[name].body_part
            said += _check_scan(facts, wholes[name], name, part, frame, known)
    said += [*check_together(prepared), *_check_spacing(facts, prepared)]
    for name in targets:
        said += check_scales(name, facts.target_widths.get(name, ()))
    if any(facts.fills_crown(prepared, name) for name in targets):
        said += ask("crown", {"apart_mm": header.spacing_mm[0]})
    return said


def _check_scan(
    facts: ModelFacts,
    whole: Volume,
    name: str,
    part: str,
    frame: BodyFrame | None,
    known: KnownScans | None,
) -> list[Message]:
    """What one scan says alone, for the kind of head that a model takes, and beside the scans of its training.

    part: of the body, as the header states it.
    """
    unit = whole.unit
    if known is None:  # of a model that does not state how its training looked, the values alone
        values = Fingerprint(value_numbers(whole), Fingerprint.none().picture)
        return exact_messages(values, unit, name)
    scan = fingerprint(whole)
    axes = whole.affine[:3, :3] / whole.grid.spacing_mm[::-1]
    of_grid = {"straight": float(abs(np.linalg.det(axes)))}
    heads = facts.data.heads
    if heads is not None and frame is not None and same_grid(whole.grid, frame.grid):
        of_grid["elsewhere"] = frame.beside(whole)  # where another head may be
    groups = ("scan",) if heads is None else ("array", "scan")
    said = exact_messages(scan, unit, name, groups, **of_grid)
    if heads is not None:
        if ELSEWHERE.search(part):
            said += ask("part", {"elsewhere": 1, "part": part}, name)
        if heads.stripped in (0, 1):
            of_kind = kind_messages(scan, "brain" if heads.stripped else "head", name)
            said += of_kind
            if worst_grade(of_kind) == "do not trust":
                return said  # what else is unusual in it follows from that
    reference = known.references.get(name)
    return said if reference is None else said + reference.messages(scan, called(name))


def _check_spacing(facts: ModelFacts, prepared: PreparedCase) -> list[Message]:
    """A message where the size of voxels differs much from the training's, and nothing resamples them."""
    trained = facts.training_spacing_mm
    here = prepared.header.spacing_mm
    if not trained or facts.preparation.changes_voxels:
        return []
    ratios = [max(a / b, b / a) for a, b in zip(trained, here)]
    ratio = max(ratios[1:] if facts.data.sees_single_slices else ratios)
    sides, known = (" x ".join(f"{side:.3g}" for side in spacing) for spacing in (here, trained))
    return ask("voxels", {"ratio": ratio, "sides": sides, "trained": known})


def check_one_scale(headers: Sequence[CaseHeader], targets: Sequence[str], where: object) -> None:
    """Raise BadInput where some scans of a target are z-scored and others are not: images could have either scale."""
    for name in targets:
        shown = [one for one in headers if name in one.visible and one.units[name] != "HU"]
        signed = [one.case for one in shown if one.statistics[name].is_signed]
        if 0 < len(signed) < len(shown):
            raise BadInput(
                f"{where}: expected the scans of the target {name} on one scale, found {len(signed)} of {len(shown)} training cases z-scored ({first_of(signed, 3)}) and the others not, so that images would have neither scale. Give all one scale, or prepare the cohort without one kind (--exclude CASE) into another --out."
            )


def check_floor(name: str, spec: IntensityMap, header: CaseHeader, where: str) -> None:
    """Raise BadInput where much of a scan is below the floor of its intensity map, and would become background."""
    floor = spec.floor
    if floor is None or name not in header.statistics:
        return
    below = _share_below(header.statistics[name].foreground, floor)
    if below > MOST_BELOW:
        raise BadInput(
            f"{where}: expected {name} to be above {floor:g} (intensity.{name}.floor), found {below:.0%} of its foreground below: is it z-scored, inverted, or a CT? Take the scan from before, or raise its values so that air is {floor:g} and tissue above; a training may also leave the case out, or take an intensity.{name} without a floor."
        )


def check_filled(
    name: str, spec: IntensityMap, headers: Sequence[CaseHeader], where: object
) -> None:
    """Raise BadInput where bodies fill next to nothing of a window, as scans in another unit than the recipe's do."""
    bodies = [header.statistics[name].foreground for header in headers if name in header.statistics]
    if spec.window is None or not bodies:
        return
    low, high = spec.window
    firsts = [body.at(1) for body in bodies]
    lasts = [body.at(99) for body in bodies]
    widths = [min(last, high) - max(first, low) for first, last in zip(firsts, lasts)]
    filled = float(np.median(widths)) / (high - low)
    if filled < NARROWEST:
        raise BadInput(
            f"{where}: expected the scans' bodies to fill the window {low:g} to {high:g} of intensity.{name}, found {max(filled, 0):.1%} filled ({np.median(firsts):.4g} to {np.median(lasts):.4g}): are the scans in the recipe's unit? Change the window."
        )


def _share_below(values: Distribution, floor: float) -> float:
    """The share of a distribution below a value."""
    if values.percentiles[0] >= floor:
        return 0.0
    return float(np.interp(floor, values.percentiles, PERCENTILES, right=100)) / 100


def training_ranges(
    headers: Sequence[CaseHeader],
    intensity: Mapping[str, IntensityMap],
) -> dict[str, Any]:
    """The range of POINTS over training cases, by modality, in network units: {"t1": {"low": [...], "high": [...]}}."""
    ranges = {}
    for name, spec in intensity.items():
        having = [header.statistics[name] for header in headers if name in header.statistics]
        points = np.array([_points(statistics, spec) for statistics in having])
        if points.size:
            ranges[name] = {"low": points.min(0).tolist(), "high": points.max(0).tolist()}
    return ranges


def check_brightness(
    name: str,
    statistics: Statistics,
    spec: IntensityMap,
    ranges: Mapping[str, Any],
    patients: float,
) -> list[Message]:
    """A message where a scan's statistics are outside the range of a training of so many patients."""
    if name not in ranges:
        return []
    values = np.array([_points(statistics, spec), ranges[name]["low"], ranges[name]["high"]])
    own, lows, highs = values.clip(-1, 1)  # as network input
    beyond = np.maximum(lows - own, own - highs)
    worst = int(beyond.argmax())
    scale = spec.scale(statistics)
    value, least, most = (float(scale.inverse(point)) for point in values[:, worst])
    times = float(beyond[worst] / (TOLERANCE + (highs - lows)[worst] / 2))
    if times <= NOTED:
        return []
    text = f"Brightness of {called(name)}: {value:.4g} ({POINTS[worst]}th percentile in the body); training cases: {least:.4g} to {most:.4g} at the same scale (few patients give a narrow range)."
    grade = grade_of_distance(times, patients)
    return [message("brightness", text, grade=grade, times=times, value=value)]


def check_scales(name: str, widths: Sequence[float]) -> list[Message]:
    """A message where the widths of a modality's scale in the training cases differ much."""
    if not widths:
        return []
    return ask("scales", {"ratio": max(widths) / max(min(widths), 1e-37)}, name)


def _points(statistics: Statistics, spec: IntensityMap) -> list[float]:
    scale = spec.scale(statistics)
    width = max(scale.high - scale.low, 1e-37)
    return [2 * (statistics.foreground.at(point) - scale.low) / width - 1 for point in POINTS]
