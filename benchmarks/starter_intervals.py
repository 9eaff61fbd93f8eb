"""Fits the intervals of a starter on synthetic heads, and widens them as far as real heads show to be necessary.

`benchmarks/starters.py` calls this after the training.
"""

import csv
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from starter_heads import real_pair, synthesised
from starter_pack import with_intervals
from voxlate.anatomy.drawn import Drawn
from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW, file_hash
from voxlate.base.groups import grouped
from voxlate.base.items import stable_id
from voxlate.base.records import Widening
from voxlate.evaluation.calibrate import calibrate
from voxlate.evaluation.evaluation_options import CalibrateOptions
from voxlate.evaluation.intervals.conformal import least_scale, needed_scale, shares_outside
from voxlate.evaluation.scoring.scored_truth import read_canonical, shows_a_window
from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume, same_grid, slice_margin, through_plane
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import WHITE, Ends, picture_window
from voxlate.synthesis.calibration import (
    Array,
    Calibration,
    describe_fit,
)
from voxlate.synthesis.cohort import Selection, synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.provenance import provenance_of
from voxlate.synthesis.scans import by_accepted_names, find_scans
from voxlate.training.calibration_file import (
    RunCalibrations,
    read_calibration,
    write_calibration,
)
from voxlate.training.load import load
from voxlate.training.recipe import Recipe
from voxlate.training.run import Run
from voxlate.training.starters.card import Card, Intervals
from voxlate.training.torch_network import network_of
from voxlate.training.weights import copy_model

# Each head is drawn twice: with every sixth slice, of 8 mm, which are read in one plane as single slices are, and in turn with
# every fourth or all of them, which are read in three. Features of a voxel compare neighbouring slices.
EVERY = ((6, 4), (6, 1))
SOFT_HU = (-130.0, 130.0)


@dataclass(frozen=True)
class RealHeads:
    """The factors, sorted, by which the intervals of each head's voxels must be wider to contain the truth."""

    needed: Mapping[str, Array]
    coverage: float

    @property
    def factor(self) -> float:
        """The least factor at which the coverage is the nominal one or more, on average over heads.

        Never below 1, because clipped values hide errors: most bone of 8-bit CT is white whatever its HU.
        """
        factor = least_scale([*self.needed.values()], 1 - self.coverage, self.coverage, "none")
        return max(1.0, factor)

    def coverages(self, factor: float) -> dict[str, float]:
        """The share of each head's voxels inside intervals that are wider by a factor."""
        shares = 1 - shares_outside([*self.needed.values()], factor)
        return dict(zip(self.needed, shares.tolist()))


def add_intervals(
    starter: Path, prepared: Path, real: Path, pair: Path, work: Path, device: str
) -> Card:
    """Calibrate a starter on the validation split of prepared phantoms, widen its intervals, and write its card.

    pair: a real head with its CT in HU (see starter_heads.py), which widens them beside the heads of `real`.

    Raises BadInput where the starter cannot have intervals that real heads widen.
    """
    model = load(starter, device)
    recipe = network_of(model).recipe
    if recipe.task.completes:
        raise BadInput(
            f"{starter}: expected a starter that makes a target of other scans, found a completion, whose intervals hold where one modality is missing: real scans lack more. Leave it without intervals."
        )
    scans = write_scans(prepared, recipe, work / "calibration_scans")
    copied = load(_copy(starter, work / "learned"), device)
    file = RunCalibrations(copied.origin).file(copied.facts)
    if not file.is_file():
        asked = CalibrateOptions(anyway=True)
        calibrate(copied, find_cohort(scans).cases, asked, synthetic=True)
    shown = compare(copied, real, pair, work / "learned_images")
    return _write(
        starter,
        copied,
        shown,
        lambda: compare(load(starter, device), real, pair, work / "widened_images"),
    )


def _write(
    starter: Path, calibrated: Model, shown: RealHeads, again: Callable[[], RealHeads]
) -> Card:
    """Write a calibration, wider as real heads showed to be necessary, and the card of its starter.

    again: compares the starter with the real heads, once its intervals are written.
    """
    (target,) = calibrated.facts.data.target
    file = RunCalibrations(calibrated.origin).file(calibrated.facts)
    factor = round(shown.factor, 3)
    widened = {target: Widening(factor=factor, heads=len(shown.needed), bone=1, soft=True)}
    path = starter / file.name
    wider = widen(read_calibration(file), widened)
    write_calibration(path, _in_soft_tissue(wider, factor, calibrated.facts.target_scales[target]))
    said = (
        f"Its intervals of {shown.coverage:.0%} were {describe_fit(read_calibration(path).entry)}"
    )
    entry = Intervals(path.name, file_hash(path), f"{said}.")
    with_intervals(starter, entry)
    shares = again().coverages(1.0).values()
    text = f"{said}. In soft tissue they contain {min(shares):.1%} to {max(shares):.1%} of the voxels of each real head that all its scans show, and guarantee nothing for a patient."
    return with_intervals(starter, replace(entry, text=text))


def widen(calibration: Calibration, widened: Mapping[str, Widening]) -> Calibration:
    """A calibration on synthetic heads with wider intervals, by target, as real heads showed to be necessary.

    It has neither bounds of errors nor reference patches, which hold only for patients like those of the calibration.
    """
    header = calibration.header
    targets = {name: replace(target, bounds={}) for name, target in header.targets.items()}
    stated = replace(header, targets=targets, widened=dict(widened))
    return replace(calibration, header=stated)


def _in_soft_tissue(
    calibration: Calibration, factor: float, scale: tuple[float, float]
) -> Calibration:
    """A calibration whose groups of soft tissue are wider: pictures of 8 bits show nothing else.

    scale: the HU of network units -1 and 1.
    """
    ((name, target),) = calibration.header.targets.items()
    ends = [-np.inf, *Scale(*scale).inverse(np.array(target.borders)), np.inf]
    factors = tuple(
        own * (factor if SOFT_HU[0] < low and high < SOFT_HU[1] else 1.0)
        for own, low, high in zip(target.factors, ends, ends[1:])
    )
    header = replace(calibration.header, targets={name: replace(target, factors=factors)})
    return replace(calibration, header=header)


def _copy(starter: Path, out: Path) -> Path:
    """A copy of the starter; that of other weights is replaced, with its calibration."""
    copied = Run(out).weights()
    if copied.is_file() and file_hash(copied) != file_hash(Run(starter).weights()):
        shutil.rmtree(out)
    return copy_model(starter, out, starter.name)


def layout(cohort: Path) -> dict[str, Any]:
    """How a cohort's files are found: by the manifest next to it, where there is one."""
    manifest = cohort.with_name(f"{cohort.name}.csv")
    return {"manifest": manifest} if manifest.exists() else {}


def write_scans(prepared: Path, recipe: Recipe, out: Path) -> Path:
    """Write scans of the validation heads as a cohort: contrasts drawn as in training, and the true images.

    Each head is drawn several times; scans that are there are kept.
    """
    cohort = recipe.with_maps_of(open_cohort(prepared))
    names = [*recipe.data.source, *recipe.data.target]
    several = EVERY if recipe.data.facts.sees_single_slices else ((1,),)
    rows = list[dict[str, str]]()
    for place, head in enumerate(cohort.splits["val"]):
        for number, step in enumerate(several[place % len(several)]):
            case = f"{head}_{number}"
            files = {name: out / case / f"{name}.nii.gz" for name in names}
            if not all(file.is_file() for file in files.values()):
                for name, volume in _draw(cohort.case(head), case, names, step):
                    write_volume(files[name], volume)
            places = {name: f"{file.relative_to(out)}" for name, file in files.items()}
            rows.append({"case": case, "patient": head, **places})
    with (out / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["case", "patient", *names])
        table.writeheader()
        table.writerows(rows)
    return out


def _draw(
    head: PreparedCase, case: str, names: list[str], step: int
) -> Iterator[tuple[str, Volume]]:
    """The scans of a head, every `step`-th slice, in the contrasts of a draw that the name of the case decides."""
    drawn = head.contrasts
    assert isinstance(drawn, Drawn)
    named = replace(head, header=replace(head.header, case=case))
    thickness_mm = drawn.item(head, stable_id("physics", case)).slice_mm
    spacing_mm = head.header.spacing_mm[0]
    reach = slice_margin(thickness_mm, spacing_mm)
    for name in names:
        volume = named.volume(name)
        data = volume.data[0]
        if name not in drawn.names:  # of a training's item, stored images have its slice thickness
            around = np.pad(data, ((reach, reach), (0, 0), (0, 0)), mode="edge")
            data = through_plane(around, thickness_mm, spacing_mm)
        affine = volume.affine.copy()
        affine[:3, 2] *= step
        yield name, replace(volume, data=data[None, ::step], affine=affine)


def compare(model: Model, real: Path, pair: Path, out: Path) -> RealHeads:
    """Synthesise real heads, a pair in HU among them, and compare their intervals with the true images."""
    calibration = model.calibration()
    assert calibration is not None
    scans = find_scans([str(real)], model, **layout(real))
    synthesise_cases(Selection(model, scans), out, anyway=True, say=lambda _: None)
    (target,) = model.facts.data.target
    found = list[tuple[str, Array]]()
    for case in find_cohort(real, **layout(real)).cases:
        files, _ = by_accepted_names(case.files, model.facts.accepts)
        of_case = _needed(out / case.case, model.facts.data.source, target, files)
        found.append((case.patient or case.case, of_case))
    needed = {head: np.sort(np.concatenate(own)) for head, own in grouped(found).items()}
    return RealHeads(needed | {pair.name: _of_pair(model, pair)}, calibration.header.coverage)


def _of_pair(model: Model, pair: Path) -> Array:
    """The factors that the voxels of a real head with its CT need, sorted."""
    name, mr, ct, _ = real_pair(pair)
    made = synthesised(model, name, mr)
    inside = (foreground(mr) & foreground(ct)).reshape(ct.data[0].shape)
    image, low, high = (of["ct"].data[0][inside] for of in (made.volumes, made.low, made.high))
    return np.sort(needed_scale(ct.data[0][inside] - image, image - low, high - image))


def _needed(folder: Path, sources: Sequence[str], target: str, files: Mapping[str, Path]) -> Array:
    """The factors that a case's voxels need, where the truth and all sources show the body.

    Elsewhere the scans show different bodies: one head has 7 % more swelling and bandages in its CT than in its MR.
    """
    image, low, high = (
        read_canonical(folder / f"{target}{end}.nii.gz", target) for end in ("", LOW, HIGH)
    )
    truth = read_canonical(files[target], target)
    inside = foreground(truth)
    for scan in (truth, *(read_canonical(files[name], name) for name in sources)):
        if not same_grid(image.grid, scan.grid):
            raise BadInput(
                f"{folder.name}: expected {scan.modality} on the grid of the image ({image.grid}), found {scan.grid}. Resample it."
            )
        inside &= foreground(scan)
    in_window = shows_a_window(provenance_of(folder), target, truth.unit)
    least = most = truth.data[0]
    if in_window:
        least, most = ends_in_window(truth.data[0], picture_window(image))
    values = image.data[0]
    error = np.maximum(least - values, 0) + np.minimum(most - values, 0)
    distances = values - low.data[0], high.data[0] - values
    return needed_scale(error[inside], *(distance[inside] for distance in distances))


def ends_in_window(grey: Array, window: Ends) -> tuple[Array, Array]:
    """The least and the largest HU that a grey value may show: black and white show all that a window has cut."""
    low, high = window
    shown = low + grey / np.float32(WHITE) * (high - low)
    least = np.where(grey <= 0, -np.inf, shown)
    most = np.where(grey >= WHITE, np.inf, shown)
    return least, most
