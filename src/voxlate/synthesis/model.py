"""A model: its facts and its network, which synthesise images in physical units from the scans of a case.

The path of a scan, in the order in which `synthesise` calls these functions:

1. Read: inputs.prepare_inputs reads files and arrays as volumes.
2. Prepare: scans.cases.case.prepare_case resamples, registers, aligns and masks as in training; inputs.prepare_inputs
   compares the scans with the training data: a case of the grade "do not trust" ends here.
3. Network units: patch.Patch scales slices or patches to [-1, 1], called by sampling.sample_targets for each plane.
4. Sample: sampling.sample_targets runs the network, and joins patches and samples to predictions; sampling.predict_case
   joins those of several planes.
5. Physical units: sampling.in_physical_units applies the scale of each target and stretches its bright end.
6. Trust: intervals.case_intervals adds intervals and error bounds, if calibrated.
7. Background: intervals.find_outside finds what is outside of the body of all sources, which becomes background.
8. Output grid: intervals.OutputGrid.images resamples the images to the grid of the scan's file.
9. Result: provenance.Synthesised holds images and provenance, and writes them.

Several models are one as well: the mean of their images, and the standard deviation over all of them.
"""

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from voxlate.base.config import check_options
from voxlate.base.errors import BadInput, known_name, plural, system_refusal
from voxlate.base.executors.case_work import Progress, no_report, report_part
from voxlate.base.files import SYNTHETIC
from voxlate.base.hub import address_of
from voxlate.base.messages import (
    FEWEST_PATIENTS,
    Message,
    Say,
    by_consequence,
    message,
    warn_unless_note,
    worst_grade,
)
from voxlate.base.option import parameters_of
from voxlate.scans.cases.case import MASK
from voxlate.scans.formats.io import content_hash, is_there
from voxlate.scans.images.frame import BodyFrame
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.calibration import Calibration, Calibrations
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.inputs import (
    Checked,
    Scan,
    by_accepted_names,
    check_names,
    prepare_inputs,
    was_in_training,
)
from voxlate.synthesis.intervals import (
    Background,
    OutputGrid,
    background_of_case,
    case_intervals,
    find_output_grid,
    find_outside,
    notes_on_starter,
)
from voxlate.synthesis.provenance import USED_FOR_CALIBRATION, Synthesised, Table, state_units
from voxlate.synthesis.sampling import Moments, Network, SynthesisedImage, planes_read, predict_case
from voxlate.synthesis.scan_checks import KnownScans
from voxlate.synthesis.synth_options import SynthKeys, SynthOptions

# Entries of a provenance that are measured, and of which an ensemble states the sum.
COST = "network_calls", "seconds_per_slice"
# Entries of the ensemble if all members agree.
SHARED_IF_EQUAL = "network_units", "bound"
# Of the narrower range: those of folds of one cohort, and upper ends that are planned for them, differ by a few percent.
MOST_SHIFT = 0.1
OPTIONS_OF_MEMBERS = ("synth", "axes", "range")


@dataclass(frozen=True)
class Model:
    """A trained model, which synthesises images in physical units from scans, as `voxlate.load` returns it.

    Args:
        facts: sources, targets, units, intensity maps and synthesis options.
        network: the network on its device.
        origin: the run folder, the weights file or the exported model.
        anatomy: of the training patients, None where scans are not compared with it.
        calibrations: None disables intervals.
        models: of an ensemble, its members.

    Example:
        >>> import voxlate
        >>> model = voxlate.load("RUN", device="cpu")
        >>> model
        Model('tiny', t1 → t2, 6 steps, cpu)
        >>> result = model.synthesise("COHORT/case0/t1.nii.gz", seed=1)
        >>> result.volume.data.shape  # [C, D, H, W]
        (1, 6, 24, 20)
    """

    facts: ModelFacts
    network: Network
    origin: Path
    anatomy: KnownScans | None = None
    calibrations: Calibrations | None = None
    models: tuple["Model", ...] = ()

    def __repr__(self) -> str:
        facts = self.facts
        names = (" + ".join(names) for names in (facts.data.source, facts.data.target))
        return f"Model('{facts.title}', {' → '.join(names)}, {facts.steps} steps, {self.network.device})"

    @property
    def members(self) -> tuple["Model", ...]:
        """The models of which the images are a mean: this model alone, unless it is an ensemble."""
        return self.models or (self,)

    @property
    def origins(self) -> tuple[Path, ...]:
        """The run folder or weights file of each member."""
        return tuple(member.origin for member in self.members)

    def with_options(
        self,
        allow_code: bool = False,
        like: str | None = None,
        intervals: bool = True,
        **changes: Any,
    ) -> "Model":
        """The same model with other synthesis options (sampler, steps, samples, ...); None keeps the recipe's value.

        allow_code: import a sampler outside voxlate; like: a recipe that trains the same method, whose [synth] is taken;
        intervals: False ignores the run's calibrations. Raises BadInput for an unknown option, a value out of range, a type
        of slices that the model does not have, a sampler that does not fit the schedule, and several samples of a method
        that is not stochastic.
        """
        facts, network = self.facts, self.network
        given = {name: value for name, value in changes.items() if value is not None}
        if given or like is not None:
            facts, network = network.with_options(facts, allow_code, like, given)
        calibrations = self.calibrations if intervals else None
        return replace(self, facts=facts, network=network, calibrations=calibrations)

    def synthesise(
        self,
        scans: Mapping[str, Scan] | Scan,
        *,
        case: str = "case",
        seed: int = 0,
        progress: Progress | bool = no_report,
        warn: Say = warn_unless_note,
        anyway: bool = False,
        **options: Any,
    ) -> Synthesised:
        """Synthesise the target modalities of a case.

        The scans are resampled, registered, aligned and masked as in training. The noise depends on the seed and the scans' voxels.

        Args:
            scans: {modality: scan}, or one scan if the model has one source. A scan is a path, a Volume, a nibabel image, or a pair
                of an array (NumPy, torch) [x, y, z] and its affine (to RAS millimetres). A scan with another name that the model
                accepts is taken, with a message. A scan named "mask" replaces the mask that would be computed.
            case: name in messages and provenance.
            seed: random seed.
            progress: is called with the number of finished slices or patches and their total; True and False report nothing.
            warn: is called with each warning; by default Python warns of all that are more than notes.
            anyway: also a case that `check` grades "do not trust".
            options: as in the recipe's [synth] (samples, steps, ...).

        Returns:
            Synthesised: Its images in physical units, on the grid of the first source's own file.

        Raises:
            BadInput: a scan is missing, or scans do not fit together.
            DoNotTrust: the case is graded so, and `anyway` is not set.
        """
        # a progress bar for seconds is of no use
        report = no_report if isinstance(progress, bool) else progress
        _check_call(self, options, seed, anyway)
        model = self.with_options(**options) if options else self
        said = list[Message]()
        try:
            checked = model.check(scans, case)
            if not anyway:
                checked.refuse(said.append)
            result = model.synthesise_checked(checked, seed, report)
            said += result.warnings
            return result
        finally:
            for note in said:  # here, so that Python names the line that called this method
                warn(note)

    def synthesise_checked(self, checked: Checked, seed: int, progress: Progress) -> Synthesised:
        """The images of a case with the options that are set, whatever its grade."""
        facts = self.facts
        prepared = checked.prepared
        plan = self.plan(checked.files, seed)
        grid = find_output_grid(facts, prepared)
        outside = find_outside(prepared, facts.visible_sources(prepared))
        begun = time.monotonic()
        images, calls = predict_case(facts, self.network, checked, seed, progress)
        seconds = (time.monotonic() - begun) / prepared.header.shape[0]
        ends, errors = case_intervals(checked.calibration, facts, prepared, images, grid)
        background = background_of_case(facts, outside, self.anatomy, images)
        provenance = {
            **self.network.software,
            "case": prepared.header.case,
            **plan,
            # what tells arrays in memory apart, which have no file
            "inputs": {
                name: scan or {"voxels": checked.key} for name, scan in plan["inputs"].items()
            },
            **dict(zip(COST, (calls, seconds))),
            "device": self.network.device_name,
            **_provenance(self, checked, images, errors),
        }
        return _on_file_grid(self, images, ends, background, grid, checked.frame, provenance)

    def check(self, scans: Mapping[str, Scan] | Scan, case: str = "case") -> Checked:
        """The scans of a case as inputs of the network, with the verdict on them; nothing is synthesised.

        Args:
            scans: as for `synthesise`.
            case: name in messages.

        Returns:
            Checked: Its `grade` (None, "note", "caution" or "do not trust"), `messages` and `targets`.

        Raises:
            BadInput: the scans cannot be used.
        """
        facts = self.facts
        first, *others = facts.data.source
        if not isinstance(scans, Mapping):
            if others:
                raise BadInput(
                    f"scans: expected scans by modality for a model of {', '.join(facts.data.source)}, found one {type(scans).__name__}. Write {{'{first}': scan, '{others[0]}': …}}."
                )
            scans = {first: scans}
        own, notes = by_accepted_names(scans, facts.accepts, facts.data.target)
        self.check_names(own, case)
        known = {name: own[name] for name in self.scan_names if name in own}
        notes += self.unused(own)
        targets = tuple(facts.targets_for(known))
        try:
            checked = prepare_inputs(facts, known, case, self.anatomy, targets)
        except OSError as error:
            raise system_refusal(error) from error
        # raises BadInput for other weights or options
        calibration = self.calibration()
        if calibration is not None and (why := _why_no_intervals(facts, calibration, checked)):
            calibration = None
            notes.append(message("no-intervals", f"No intervals: {why}"))
        messages = by_consequence([*notes, *checked.messages])
        return replace(checked, messages=tuple(messages), calibration=calibration)

    @property
    def missing_checks(self) -> list[Message]:
        """A message where orientation, field of view and modality of scans cannot be checked."""
        known = set[str]()
        for member in self.members:
            known |= set() if member.anatomy is None else member.anatomy.references.keys()
        missing = [name for name in self.facts.data.source if name not in known]
        if not missing:
            return []
        text = f"Orientation and field of view of scans are not checked, because the model {self.origin.name} has no reference of {' and '.join(missing)} from {FEWEST_PATIENTS} or more training patients."
        return [message("unchecked", text)]

    def calibration(self) -> Calibration | None:
        """The calibration of images with these options; None without intervals.

        Raises BadInput where the run is calibrated for other weights or options.
        """
        return None if self.calibrations is None else self.calibrations.find(self.facts)

    @property
    def synthesis_options(self) -> dict[str, Any]:
        """The options that decide the images, as plain values; the batch size decides roundings alone."""
        return {**self.facts.options, "precision": self.network.precision}

    def check_names(self, scans: Collection[str], case: str) -> None:
        """Raise BadInput where modalities that the model, or a member of it, needs are not among a case's scans."""
        for member in self.members:
            check_names(member.facts, scans, case)

    def unused(self, scans: Collection[str]) -> list[Message]:
        """A message on a case's scans that should count, and do not: its mask, and others of a case to complete."""
        names = {*scans} - {*self.scan_names, *self.facts.data.target}
        if not self.facts.completes:  # other scans may lie in its folder
            names &= {MASK}
        listed = ", ".join(sorted(names))
        text = f"{listed} was not used: this model reads {', '.join(self.scan_names)} alone."
        return [message("unused-scan", text)] if names else []

    def names_of(self, scans: Collection[str]) -> list[str]:
        """The names of the image files for a case with these scans, without their ending."""
        return [f"{self.mark}{name}" for name in self.facts.targets_for(scans)]

    @property
    def mark(self) -> str:
        """The beginning of file names, which tells the images that complete a case from its scans."""
        return SYNTHETIC if self.facts.completes else ""

    @property
    def scan_names(self) -> tuple[str, ...]:
        """The scans of a case that are read: the sources, and a mask where the method of a member works inside one."""
        needs_mask = any(member.facts.needs_mask for member in self.members)
        return (*self.facts.data.source, *([MASK] if needs_mask else []))

    def plan(self, files: Mapping[str, Path | str], seed: int) -> Table:
        """All that decides the images of a case: model, options, seed, and contents of the inputs.

        Equal plans give equal images.
        """
        facts = self.facts
        stated = {"title": facts.title, "weights": facts.weights_hash, "steps": facts.steps}
        stated |= self.network.entry
        if (address := address_of(self.origin)) is not None:
            stated["hub"] = address
        plan: Table = {"model": stated, "seed": seed, "synth": self.synthesis_options}
        if (calibration := self.calibration()) is not None:
            plan["calibration"] = calibration.entry
        windows = {name: facts.intensity[name].window for name in facts.data.target}
        return {
            **plan,
            # a scan in memory has no file, and "" would be the working directory
            "inputs": {
                name: {"sha256": content_hash(Path(file))} if file and is_there(Path(file)) else {}
                for name, file in sorted(files.items())
            },
            "units": facts.units,
            "axes": facts.data.axes,
            "range": {name: [*window] for name, window in windows.items() if window is not None},
        }


def _check_call(model: Model, options: Collection[str], seed: Any, anyway: Any) -> None:
    """Raise BadInput for unknown keywords, a seed that is no whole number or out of its range, and a text in place of a truth."""
    _, *own, _ = signature(Model.synthesise).parameters
    for name in options:
        known = [*own, *parameters_of(SynthKeys), *model.synthesis_options]
        known_name(name, "an option", name, known)
    check_options(SynthOptions, {"seed": seed, "anyway": anyway})


def _on_file_grid(
    model: Model,
    images: Mapping[str, SynthesisedImage],
    ends: Mapping[str, tuple[Volume, Volume]],
    background: Background,
    grid: OutputGrid,
    frame: BodyFrame | None,
    provenance: Table,
) -> Synthesised:
    """The images with their background, resampled to the grid of the file; outside of a frame all is background."""
    result = Synthesised({}, {}, provenance, model.mark)

    def whole(volume: Volume, value: float) -> Volume:
        """A volume of the frame on the whole grid."""
        return volume if frame is None else frame.restore(volume, value)

    for name, made in images.items():
        image = background.fill(name, made)
        air = background.values[name]
        volume = grid.write(image.values, name)
        result.volumes[name] = whole(volume, air)
        if image.physical_sd is not None:
            result.std[name] = whole(grid.write(image.physical_sd, name), 0)
        if name in ends:
            low, high = background.close(volume, *ends[name], grid)
            result.low[name], result.high[name] = whole(low, air), whole(high, air)
        for number, state in enumerate(image.prediction.states, 1):
            result.states[f"{name}_{number}"] = grid.write(image.scale.inverse(state), name)
    return result


def _provenance(
    model: Model,
    checked: Checked,
    images: Mapping[str, SynthesisedImage],
    errors: Mapping[str, Mapping[str, Any]],
) -> Table:
    """The entries of the provenance that describe a case's inputs, images and error bounds; entries without content are left out."""
    facts = model.facts
    calibration = checked.calibration
    warnings = [*checked.messages, *_notes(model, checked)]
    for name, image in images.items():
        warnings += image.peak.check(name) if image.peak else ()
    stated = {key: of for key, of in errors.items() if any(of.values())}
    if stated and worst_grade(warnings) == "do not trust":
        stated = {}
        text = "Expected errors and their bounds are not stated, because they hold for scans like those of the calibration."
        warnings.append(message("no-bounds", text))
    scales = {name: (image.scale.low, image.scale.high) for name, image in images.items()}
    maps = {name: facts.intensity[name] for name in facts.data.target}
    measured = (facts.starter or {}).get("measured", {})  # on the card of the starter
    optional = {
        **stated,
        "measured": {name: own for name, own in measured.items() if name in images},
        USED_FOR_CALIBRATION: calibration is not None and calibration.has_case(checked.files),
        "warnings": [note.table for note in by_consequence(warnings)],
        "bound": facts.bound,
        "anyway": checked.grade == "do not trust",
    }
    entries = {
        "prepared": checked.preparation,
        "network_units": state_units(maps, facts.target_scales | scales),
        **{key: value for key, value in optional.items() if value},
    }
    in_training = was_in_training(facts, checked)
    return entries if in_training is None else {**entries, "in_training": in_training}


def _missing(facts: ModelFacts, files: Collection[str]) -> list[str]:
    """The modalities of a completion that a case lacks, of which a calibration knows one at a time; [] of other models."""
    return [name for name in facts.data.source if facts.completes and name not in files]


def _why_no_intervals(facts: ModelFacts, calibration: Calibration, checked: Checked) -> str:
    """Why a calibration does not hold for a case; "" where it does."""
    if len(missing := _missing(facts, checked.files)) > 1:
        return f"the run is calibrated for one missing modality, and this case lacks {' and '.join(missing)}."
    read = len(planes_read(facts, checked.prepared.header))
    if read not in (calibration.header.planes or (len(facts.data.by_plane),)):
        return f"the slices of this case are read in {plural(read, 'plane')}, and those of no case of the calibration were. Calibrate on scans with slices like these."
    return ""


def _notes(model: Model, checked: Checked) -> Iterator[Message]:
    """Messages on a model's answer: intervals that it lacks, its steps, its verdict, and that it is a starter."""
    facts = model.facts
    if model.calibrations is not None:
        yield from model.calibrations.messages(facts)
    if facts.synth.samples > 1 and not facts.shows_doubt:
        yield message(
            "grain",
            "The samples of a flow differ in grain alone: their standard deviation does not show what may be wrong.",
        )
    steps = facts.options["steps"]
    if facts.trained_steps and steps not in facts.trained_steps:
        sizes = ", ".join(map(str, facts.trained_steps))
        text = f"The flow takes {plural(steps, 'step')}, of a size for which it was not trained: {sizes} steps are."
        yield message("flow-steps", text)
    # at 0 the image is the mean, on which the verdict says nothing
    if facts.synth.sharpness:
        for name in checked.targets:
            if name in facts.worse:
                text = f"{name}: {facts.worse[name]}"
                yield message("worse-than-naive", text, grade="caution")
    calibration = checked.calibration
    if facts.starter:
        can_have = len(_missing(facts, checked.files)) < 2
        yield from notes_on_starter(facts.starter, calibration, can_have, checked.targets)
    if facts.was_calibrated and model.calibration() is None:
        yield message(
            "no-intervals",
            "No intervals: the run was adapted to other scans, and the calibration from before does not hold any more. Run voxlate calibrate again.",
        )


class Ensemble(Model):
    """Models of the same task, whose images are averaged; the spread is over members and samples.

    All members have the same noise. Raises BadInput where they differ in targets, sources or units; they may differ in
    all else, which an ensemble has of its first member. There are no intervals, because calibrations do not hold for
    the mean.
    """

    def __init__(self, members: Sequence[Model]):
        first, *others = members
        for member in others:
            if _task(member) != _task(first):
                raise BadInput(
                    f"{member.origin}: expected a model that makes {_task(first)}, as {first.origin} does, found one that makes {_task(member)}. Leave it out, or run synth for each."
                )
            _check_intensity(member, first)
        super().__init__(**{**vars(first), "models": (*members,), "calibrations": None})

    def with_options(self, *options: Any, **changes: Any) -> "Ensemble":
        """The ensemble with other synthesis options (see Model.with_options)."""
        return Ensemble([member.with_options(*options, **changes) for member in self.members])

    def check(self, scans: Mapping[str, Scan] | Scan, case: str = "case") -> Checked:
        """The scans of a case as the first member would use them, with the messages of all (see Model.check)."""
        checks = tuple(member.check(scans, case) for member in self.members)
        said = dict.fromkeys(message for checked in checks for message in checked.messages)
        return replace(checks[0], messages=tuple(said), members=checks)

    def synthesise_checked(self, checked: Checked, seed: int, progress: Progress) -> Synthesised:
        """The mean of the members' images of a case; the spread is over members and samples.

        Members that trained on the case are left out, unless all of them did (cross-validation).
        """
        pairs = [*zip(self.members, checked.members)]
        kept = [
            number
            for number, (member, own) in enumerate(pairs)
            if not was_in_training(member.facts, own)
        ] or [*range(len(pairs))]
        warnings = dict[Message, None]()
        if len(kept) < len(pairs):
            text = f"Synthesised by {len(kept)} of {len(pairs)} runs: the others trained on it."
            warnings[message("held-out", text, runs=len(kept))] = None
        pools = dict[str, Moments]()
        shown = dict[str, Volume]()
        stated = list[dict[str, Any]]()
        depth, *_ = checked.prepared.header.shape
        for place, number in enumerate(kept):
            member, own = pairs[number]
            report = partial(report_part, progress, place, len(kept), depth)
            made = member.synthesise_checked(own, seed, report)
            for name, image in made.volumes.items():
                known = shown.setdefault(name, image).grid
                if known != image.grid:
                    raise BadInput(
                        f"{checked.prepared.header.case}: expected {name} on the same grid from every member, found {known} and {image.grid}: they were prepared in other ways. Leave one out, or run synth for each."
                    )
                sd = made.std[name].data if name in made.std else None
                pools.setdefault(name, Moments()).add(image.data, sd, member.facts.synth.samples)
            stated.append(made.provenance)
            warnings |= dict.fromkeys(made.warnings)
        first = stated[0]
        provenance = {**first, **self.plan({}, seed), "inputs": first["inputs"]}
        for key in SHARED_IF_EQUAL:
            if any(entry.get(key) != first.get(key) for entry in stated):
                provenance.pop(key, None)
        for key in COST:
            provenance[key] = sum(entry[key] for entry in stated)
        if warnings:
            provenance["warnings"] = [entry.table for entry in warnings]
        for key in "in_training", "anyway":
            if any(entry.get(key) for entry in stated):
                provenance[key] = True
        if len(kept) < len(pairs):
            provenance["held_out_by"] = kept
        volumes, std = {}, {}
        for name, pool in pools.items():
            volumes[name] = replace(shown[name], data=pool.mean)
            if pool.has_spread:
                std[name] = replace(shown[name], data=pool.sd())
        return Synthesised(volumes, std, provenance, self.mark, states=made.states)

    def plan(self, files: Mapping[str, Path | str], seed: int) -> dict[str, Any]:
        """All that decides a case's images; `members` has the entries in which the models may differ."""
        first, *others = self.members
        plans = [first.plan(files, seed), *(member.plan({}, seed) for member in others)]
        joined = "".join(plan["model"]["weights"] for plan in plans)
        weights = hashlib.sha256(joined.encode()).hexdigest()[:16]
        title = f"{plans[0]['model']['title']} (ensemble of {len(plans)})"
        members = [plan["model"] | {key: plan[key] for key in OPTIONS_OF_MEMBERS} for plan in plans]
        return {**plans[0], "model": {"title": title, "weights": weights}, "members": members}


def _task(model: Model) -> str:
    """The targets and sources of a model with their units, in words."""
    data = model.facts.data
    target, source = (
        " + ".join(f"{name} [{model.facts.units.get(name, 'a.u.')}]" for name in names)
        for names in (data.target, data.source)
    )
    return f"what is missing of {target}" if model.facts.completes else f"{target} of {source}"


def _check_intensity(member: Model, first: Model) -> None:
    """Raise BadInput where the windows or ranges of targets differ, because a mean would have neither of them."""
    for name, (low, high) in member.facts.target_scales.items():
        least, most = first.facts.target_scales.get(name, (low, high))
        narrower = min(high - low, most - least)
        if max(abs(low - least), abs(high - most)) > MOST_SHIFT * narrower:
            raise BadInput(
                f"{member.origin}: expected the range of {name} that {first.origin} has ({least:.4g} to {most:.4g}, in the median training case or by its window), found {low:.4g} to {high:.4g}: a mean would be of neither. Leave it out, or run synth for each."
            )
