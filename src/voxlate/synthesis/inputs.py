"""The inputs of a model for one case: scans, read, checked and prepared like the training scans."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np

from voxlate.base.errors import BadInput, DoNotTrust, known_name
from voxlate.base.messages import Grade, Message, Say, codes, message, verdict_of, worst_grade
from voxlate.checks.check_table import ask, mask_numbers
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import (
    DIGITS,
    MASK,
    PreparedCase,
    check_extent,
    compact,
    digest,
    lay_out,
    prepare_case,
)
from voxlate.scans.cohorts.path_names import scans_named
from voxlate.scans.formats.io import read_volume
from voxlate.scans.formats.nifti import grid_of
from voxlate.scans.images.frame import BodyFrame, find_frame
from voxlate.scans.images.grid import (
    Grid,
    Volume,
    canonical_view,
    check_affine,
    flip_onto,
)
from voxlate.scans.images.mask import body_in_any_air, clearest, foreground
from voxlate.scans.images.units import unit_of
from voxlate.synthesis.calibration import Calibration
from voxlate.synthesis.facts import CUBIC, ModelFacts
from voxlate.synthesis.scan_checks import KnownScans, check_scans

T = TypeVar("T")
Scan = Volume | Path | str | nib.spatialimages.SpatialImage | tuple[Any, Any]


@dataclass(frozen=True)
class Checked:
    """The scans of a case as a model takes them, prepared and laid out for its network, which has not computed.

    key: decides the noise; files: where the scans were read from; grids: of these; preparation: entries of the provenance on how
    the scans were prepared; frame: the part of the scans that was prepared, None for all; digests: of whole scans that were
    cut to the frame, if the weights list the training scans; targets: the modalities to synthesise; messages: on names of
    scans, and on the scans; calibration: of the intervals, None without; members: of an ensemble, what each of its models takes.
    """

    prepared: PreparedCase
    key: str
    files: Mapping[str, str]
    grids: Mapping[str, Grid]
    preparation: Mapping[str, Any]
    frame: BodyFrame | None
    digests: frozenset[str]
    targets: tuple[str, ...]
    messages: tuple[Message, ...]
    calibration: Calibration | None = None
    members: tuple["Checked", ...] = ()

    @property
    def grade(self) -> Grade | None:
        """The worst grade of the messages; None where there are none."""
        return worst_grade(self.messages)

    def __repr__(self) -> str:
        first = f"{self.prepared.header.case}: {verdict_of(self.messages)}; to synthesise: {', '.join(self.targets)}"
        return "\n".join([first, *(f"  {said.grade}: {said.text}" for said in self.messages)])

    def refuse(self, say: Say) -> None:
        """Raise DoNotTrust where the grade says so; say: is called with each message before."""
        if self.grade == "do not trust":
            for said in self.messages:
                say(said)
            grave = dict.fromkeys(said.code for said in self.messages if said.grade == self.grade)
            found = "; ".join(codes()[code].meaning for code in grave)
            raise DoNotTrust(
                f"{self.prepared.header.case}: expected scans like those of the training, found that {found}. To synthesise an image all the same, choose --anyway."
            )

    def cut(self, scan: Volume, background: float | None = None) -> Volume:
        """The part of a scan that was prepared, or of a label map with its background (see BodyFrame.cut)."""
        return scan if self.frame is None else self.frame.cut(scan, background)


def prepare_inputs(
    facts: ModelFacts,
    scans: Mapping[str, Scan],
    case: str,
    known: KnownScans | None,
    targets: tuple[str, ...],
) -> Checked:
    """Prepare a case's scans as those of the training were, and compare them with these.

    known: the scans of the training; targets: the modalities that are synthesised. Raises BadInput where a scan shows
    nothing, or the scans do not fit together.
    """
    volumes = {name: as_volume(scan, name) for name, scan in scans.items()}
    files = {name: volume.origin for name, volume in volumes.items()}
    grids = {name: volume.grid for name, volume in volumes.items()}
    mask = volumes.pop(MASK, None)
    for name, volume in volumes.items():
        check_extent(name, volume, case)
    used = preparation_for(facts, volumes)
    frame = _find_frame(facts, volumes, used)
    digests = frozenset[str]()
    bodies: Iterable[Volume] = volumes.values()
    wholes = dict(volumes)
    if frame is not None:
        if facts.seen_voxels:
            arrays = (compact(canonical_view(whole).data[0]) for whole in wholes.values())
            digests = frozenset(digest(array)[:DIGITS] for array in arrays)
        # the noise of a patient does not depend on the air around the body
        around_body = replace(frame, ends=frame.body, held=frame.body)
        bodies = [around_body.cut(volume) for volume in volumes.values()]
        volumes = {name: frame.cut(volume) for name, volume in volumes.items()}
        mask = mask and frame.cut(mask, 0)
    key = _voxels_key(bodies)
    masked = facts.needs_mask or frame is not None
    find_body = foreground if frame is None else body_in_any_air
    prepared = prepare_case(case, volumes, used, mask=mask, masked=masked, find_body=find_body)
    warnings = check_scans(facts, prepared, wholes, frame, known, targets)
    if mask is not None:
        warnings += ask("mask", mask_numbers(mask, prepared.mask(), [*prepared.outlines.values()]))
    elif facts.needs_mask and used.mask_from != facts.preparation.mask_from:
        text = f"The brain was found in {used.mask_from}, not in {facts.preparation.mask_from} as in training (missing)."
        warnings.append(message("brain-mask", text))
    if not facts.makes_targets:
        text = f"{' and '.join(facts.data.target)} is reconstructed from itself: the bound of models with this autoencoder, no synthesis."
        warnings.append(message("reconstruction", text))
    on_grid = {"on_grid_of": used.fixed} if used.register else {}
    registered = {name: asdict(scanned) for name, scanned in prepared.header.registered.items()}
    return Checked(
        lay_out(prepared, facts.data.axes),  # its affine leads the images back to the scans
        key,
        files,
        grids,
        {**asdict(used), **on_grid, "registered": registered},
        frame,
        digests,
        targets,
        tuple(warnings),
    )


def _find_frame(
    facts: ModelFacts, scans: Mapping[str, Volume], used: Preparation
) -> BodyFrame | None:
    """The frame of the bodies that the scans on the fixed one's grid show; None where the model reads all of a scan.

    None, too, where a scan on another grid will be refused, so that the refusal names the grids of the files.
    """
    if facts.data.frame is None:
        return None
    grid = scans[used.fixed or next(iter(scans))].grid
    flipped = [flip_onto(scan, grid) for scan in scans.values()]
    shown = [scan for scan in flipped if scan is not None]
    if len(shown) < len(flipped) and not (used.resample or used.register):
        return None
    return find_frame(shown, facts.data.frame)


def is_in_training(
    facts: ModelFacts,
    prepared: PreparedCase,
    names: Collection[str],
    digests: Collection[str],
) -> bool | None:
    """Whether some arrays of a case, or scans of it that were changed since, were in the training.

    names: of the arrays; digests: of whole scans of which the case is a frame. None where the weights do not state what the training saw.
    """
    known = set(facts.seen_voxels)
    if not known:
        return None
    return not known.isdisjoint(digests) or any(
        digest(prepared.arrays[name][:])[:DIGITS] in known for name in names
    )


def was_in_training(facts: ModelFacts, checked: Checked) -> bool | None:
    """Whether the scans of a case were in the training (see `is_in_training`)."""
    prepared = checked.prepared
    return is_in_training(facts, prepared, facts.visible_sources(prepared), checked.digests)


def by_accepted_names(
    files: Mapping[str, T], aliases: Mapping[str, Sequence[str]], targets: Collection[str] = ()
) -> tuple[dict[str, T], list[Message]]:
    """Scans or files by the model's names of their modalities, and a message for each choice between several.

    aliases: see ModelFacts.accepts; of several accepted scans the first of the list is taken; targets: of the model.
    """
    own = dict(files)
    notes = []
    for modality, names in aliases.items():
        free = own.keys() - {*aliases, *targets, MASK} | own.keys() & {modality}
        first, *others = scans_named(sorted(free), [modality, *names]) or [modality]
        if first != modality:
            own[modality] = own.pop(first)
        if others:
            text = f"{first} is read as {modality}, and {', '.join(others)} is not, which could stand for it."
            notes.append(message("chosen-scan", text))
    return own, notes


def check_names(facts: ModelFacts, scans: Collection[str], case: str) -> None:
    """Raise BadInput where modalities that a model needs are not among a case's scans."""
    sources = facts.data.source
    known = (*sources, *chain.from_iterable(facts.accepts.values()), *facts.data.target, MASK)
    for name in sorted(scans):
        known_name(case, "scans that the model takes", name, known)
    missing = [name for name in sources if name not in scans]
    may_lack = facts.completes or facts.data.allow_missing
    if len(missing) == len(sources) or (missing and not may_lack):
        joint = " or " if may_lack else " and "
        raise BadInput(
            f"{case}: expected {joint.join(sources)}, found {', '.join(sorted(scans)) or 'none of them'}. Add {joint.join(missing)}, or use a model for other modalities."
        )
    if facts.completes and not missing:
        raise BadInput(
            f"{case}: expected a modality to be missing, found all of {', '.join(sources)}. Leave one out (voxlate synth: name it with --missing) to synthesise it anyway."
        )


def scans_to_give(data: Any, completes: bool) -> str:
    """The scans in a suggested command, such as t1=SCAN t2=SCAN; one of a model that may or must lack some.

    data: of a recipe, or of facts.
    """
    named = data.source[:1] if completes or data.allow_missing else data.source
    return " ".join(f"{name}=SCAN" for name in named)


def preparation_for(facts: ModelFacts, scans: Mapping[str, Volume]) -> Preparation:
    """The preparation of the training, adapted to the scans of a case.

    A missing fixed scan is replaced by the first source, and a missing scan for the brain mask by the clearest one. A
    starter of single slices resizes pixels alone: slices keep their distance, thin ones of three planes excepted.
    """
    used = facts.preparation
    first = next(iter(scans))
    is_starter = facts.starter is not None and facts.data.sees_single_slices
    if is_starter and used.spacing_mm is not None:
        slice_mm = canonical_view(scans.get(used.fixed or "", scans[first])).grid.spacing_mm[0]
        if not facts.data.by_plane[1:] or slice_mm > CUBIC * used.spacing_mm[0]:
            used = replace(used, spacing_mm=(slice_mm, *used.spacing_mm[1:]))
    if used.mask == "brain" and used.mask_from not in scans:
        units = {name: scan.unit for name, scan in scans.items()}
        used = replace(used, mask_from=clearest(units))
    if used.fixed in scans:
        return used
    moved = used.fixed is not None and (used.resample or used.register)
    if moved and facts.training_spacing_mm and not used.changes_voxels:
        used = replace(used, spacing_mm=facts.training_spacing_mm)  # the fixed scan's, in training
    return replace(used, fixed=first)


def _voxels_key(scans: Iterable[Volume]) -> str:
    """A hash of the scans' voxels and affines: a patient has the same noise, whatever the case and files are called."""
    digest = hashlib.sha256()
    for scan in scans:
        in_ras = canonical_view(scan)
        affine = np.round(in_ras.affine, 3) + 0.0  # + 0.0 makes -0 to 0
        digest.update(repr((in_ras.data.shape, affine.tolist())).encode())
        digest.update(np.ascontiguousarray(in_ras.data).data)
    return digest.hexdigest()


def as_volume(scan: Scan, modality: str) -> Volume:
    """A scan as a volume; raises BadInput where it is none of the types that Scan names."""
    match scan:
        case str() | Path():
            return read_volume(Path(scan), modality)
        case Volume():
            volume = scan
        case nib.spatialimages.SpatialImage():
            grid, guesses = grid_of(scan, modality)
            volume = _of_array(scan.dataobj, grid.affine, modality)
            volume = replace(volume, guesses=guesses, codes=grid.codes)
        case (data, affine):
            volume = _of_array(data, affine, modality)
        case _:
            raise BadInput(
                f"{modality}: expected a path, a Volume, a nibabel image, or a pair of an array [x, y, z] and its affine, found {type(scan).__name__}. Give one of these."
            )
    check_affine(volume.affine, modality)
    voxels = volume.data
    if voxels.shape[:-3] != (1,) or not voxels.size or not np.isfinite(voxels).all():
        raise BadInput(
            f"{modality}: expected three axes of finite values (a Volume: [1, D, H, W]), found the shape {voxels.shape}, or values that are not finite. Change it."
        )
    return volume


def _of_array(data: Any, affine: Any, modality: str) -> Volume:
    """An array [x, y, z] as a volume; raises BadInput where it holds no real numbers."""
    try:
        values = np.asarray(data)
        if values.dtype.kind not in "biuf":
            raise ValueError(f"values of the type {values.dtype}")
        placed = np.asarray(affine, np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{modality}: expected real numbers, found none ({error}). Change it."
        ) from error
    return Volume(values.astype(np.float32).T[None].copy(), placed, unit_of(modality), modality)
