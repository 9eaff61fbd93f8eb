"""From a model, inputs and options to cases, and their synthesis into a folder; finished cases are kept, so that a stopped command resumes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, CannotWrite
from voxlate.base.executors.case_work import (
    Context,
    Executor,
    InProcess,
    NamedProgress,
    case_sentence,
    no_report,
    run_cases,
)
from voxlate.base.executors.workers import choose_executor
from voxlate.base.files import lock, safe_name, write_json
from voxlate.base.messages import Message, Say, message, read_messages, warn_unless_note
from voxlate.base.option import merge, parameters_of
from voxlate.synthesis.exported import OnnxNetwork
from voxlate.synthesis.model import Model
from voxlate.synthesis.provenance import (
    OF_TRAINING,
    OTHER_PATIENT,
    SHARED_SECONDS,
    STATES,
    Synthesised,
    check_folder,
    check_free,
    check_scans,
    is_unchanged,
    place_from,
    provenance_of,
)
from voxlate.synthesis.scans import CaseScans, find_scans, splits_of
from voxlate.synthesis.synth_options import SynthKeys, SynthOptions, part_of

# Keys of a plan that it may lack.
OPTIONAL = "calibration", "members"
OTHER = "other"  # the split of a patient whose case has the name of a training case


@dataclass(frozen=True)
class Selection:
    """A model with the options' settings, and the cases that it synthesises.

    others: the cases of the other parts. lacking: by case, why it cannot be synthesised. complete: cases in which no
    modality is missing.
    """

    model: Model
    scans: list[CaseScans]
    others: list[str] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)
    complete: list[str] = field(default_factory=list)


def select(model: Model, inputs: Sequence[str], options: SynthOptions) -> Selection:
    """Set the options of the sampling, and find the cases (see find_scans).

    Raises BadInput where no case can be synthesised; for a single case with its own sentence.
    """
    own = {name: getattr(options, name) for name in parameters_of(SynthKeys)}
    further = own.pop("set") or {}
    model = model.with_options(
        options.allow_code, options.like, options.intervals, **{**own, **further}
    )
    scans = find_scans(
        list(inputs), model, split=options.split, missing=options.missing, **options.layout
    )
    result = Selection(model, [])
    for case in scans:
        try:
            model.check_names(case.files, case.case)
            result.scans.append(case)
        except BadInput as error:
            if len(scans) == 1:
                raise
            if model.facts.completes and set(model.facts.data.source) <= set(case.files):
                result.complete.append(case.case)
            else:
                result.lacking[case.case] = str(error)
    if not result.scans:
        first = "".join(f" ({why})" for why in [*result.lacking.values()][:1])
        raise BadInput(
            f"INPUT: expected cases to synthesise, found {len(result.lacking)} that lack scans{first} and {len(result.complete)} that lack none. Check INPUT, --split and --missing."
        )
    if options.part is None:
        return result
    part = part_of(options.part)
    others = [case.case for case in result.scans]
    del others[part]
    return replace(result, scans=result.scans[part], others=others)


def synthesise_cases(
    selected: Selection,
    out: Path,
    options: SynthOptions | None = None,
    *,
    progress: NamedProgress = no_report,
    say: Say = warn_unless_note,
    executor: Executor | None = None,
    **changes: Any,
) -> tuple[list[Path], dict[str, str]]:
    """Write OUT/<case>/<modality>.nii.gz, <modality>_std.nii.gz and provenance.json for each case.

    Images that complete a case are called desc-synthetic_<modality>. Of the options, changed by `changes`, the seed, the
    format, anyway, the device and the workers count. Images in OUT of cases that cannot be synthesised are recorded as those of
    an earlier run; other processes may write other cases into OUT at the same time. say: is called with
    each message, by default Python warns of all but notes. executor: works on the cases instead of the stated workers.
    Returns the folders, and a sentence for each case that failed; a single case that fails raises BadInput.
    """
    asked = merge(SynthOptions, options, changes)
    model = selected.model
    scans = selected.scans
    check_folder(out)
    for missing in model.missing_checks:
        say(missing)
    in_torch = not all(isinstance(member.network, OnnxNetwork) for member in model.members)
    chosen = executor or choose_executor(asked, asked.device if in_torch else None)
    wait_seconds = 0.0 if isinstance(chosen, InProcess) else SHARED_SECONDS
    job = _SynthesisJob(model, out, asked, splits_of(model), wait_seconds, in_torch)
    cases = [case.case for case in scans]
    finished = []
    failed = {}
    for case, outcome in zip(cases, run_cases(chosen, job, scans, progress, say, CannotWrite)):
        error = outcome.error
        if error is None:
            finished.append(outcome.result)
        elif isinstance(error, BadInput) and len(cases) == 1:
            raise error
        else:
            failed[case] = case_sentence(case, error)
    if finished:
        with lock(out, SHARED_SECONDS):
            job.write_provenance([*cases, *selected.others], selected.lacking | failed)
    if kept := sum(is_kept for _, is_kept in finished):
        text = f"{kept} of {len(cases)} cases were synthesised before and are kept."
        say(message("already-synthesised", text, cases=kept))
    return [folder for folder, _ in finished], failed


@dataclass(frozen=True)
class _SynthesisJob:
    """The synthesis of cases into folders of OUT; wait_seconds: how long it waits for the folder of a worker that ended."""

    model: Model
    out: Path
    options: SynthOptions
    splits: Mapping[str, str]
    wait_seconds: float
    uses_network: bool

    @property
    def ending(self) -> str:
        """That of the images' files."""
        return f".{self.options.format}"

    def open(self) -> Callable[[CaseScans, Context], tuple[Path, bool]]:
        """The work on one case: returns its folder, and whether its images were made before."""
        return self._work

    def _work(self, scans: CaseScans, context: Context) -> tuple[Path, bool]:
        """Synthesise a case, unless its images are there and unchanged."""
        folder = self.out / safe_name(scans.case, "case")
        check_folder(folder)
        stated = provenance_of(folder)
        model = self.model
        plan = model.plan(scans.files, self.options.seed)

        def warn(warning: Message) -> None:
            """Report a warning on this case."""
            context.warn(warning.on(scans.case))

        if self._is_done(plan, stated, folder):
            # a run that was stopped says what an unbroken one does
            for said in read_messages(stated):
                warn(said)
            return folder, True
        inputs = {
            name: {**scan, "path": place_from(scans.files[name], folder)}
            for name, scan in plan["inputs"].items()
        }
        with lock(folder, self.wait_seconds):
            check_free(folder, [f"{name}{self.ending}" for name in model.names_of(scans.files)])
            check_scans(folder, inputs)
            checked = model.check(scans.files, scans.case)
            if not self.options.anyway:
                checked.refuse(warn)
            image = model.synthesise_checked(checked, self.options.seed, context.progress)
            for said in image.warnings:
                warn(said)
            self._write(scans, image, inputs, folder, warn)
        return folder, False

    def _is_done(self, plan: Mapping[str, Any], stated: Mapping[str, Any], folder: Path) -> bool:
        """Whether a folder has the images of a plan, unchanged since they were written."""
        contents = {name: scan.get("sha256") for name, scan in stated.get("inputs", {}).items()}
        planned = {name: scan.get("sha256") for name, scan in plan["inputs"].items()}
        decisive = {*plan, *OPTIONAL} - {"inputs"}  # a missing calibration is a difference
        if contents != planned or any(stated.get(key) != plan.get(key) for key in decisive):
            return False
        has_states = not self.model.facts.synth.keep_states or (folder / STATES).is_dir()
        return has_states and is_unchanged(folder, self.ending)

    def _write(
        self,
        scans: CaseScans,
        image: Synthesised,
        inputs: Mapping[str, Any],
        folder: Path,
        warn: Say,
    ) -> None:
        """Write the images of a case with their whole provenance."""
        provenance = image.provenance
        split, of_split = self._split_of(scans.case, provenance)
        notes = [*scans.notes, *of_split]
        for note in notes:
            warn(note)
        stated = {**provenance, **self._runs_from(folder, provenance.get("held_out_by"))}
        stated["inputs"] = inputs
        if notes:
            stated["warnings"] = [*stated.get("warnings", ()), *(note.table for note in notes)]
        if split:  # in the provenance of the case, so that it stays with the image
            stated["split"] = split
        replace(image, provenance=stated).write(folder, self.ending)

    def _split_of(
        self, case: str, provenance: Mapping[str, Any]
    ) -> tuple[str | None, list[Message]]:
        """The split of a case, by its name and by whether the training saw its voxels, with a message on a training case."""
        in_training = provenance.get("in_training")
        split = self.splits.get(case)
        if "held_out_by" in provenance:
            return "val", []
        if in_training:
            return "train", [message("trained-on", OF_TRAINING)]
        if split == "train" and in_training is False:
            return OTHER, [message("name-of-training-case", OTHER_PATIENT)]
        return split, []

    def _runs_from(self, folder: Path, members: Sequence[int] | None = None) -> dict[str, Any]:
        """The entries of a provenance on where models are: `run`, the first, and of an ensemble also `runs`, all of them.

        members: the numbers of those that made the images, None for all. The scores use the naive baselines of the first.
        """
        origins = self.model.origins
        used = origins if members is None else [origins[number] for number in members]
        places = [place_from(origin, folder) for origin in used]
        return {"run": places[0], **({"runs": places} if len(places) > 1 else {})}

    def write_provenance(self, cases: Sequence[str], left_out: Mapping[str, str]) -> None:
        """Write OUT/provenance.json: what all cases have in common, their names, and why some have no image.

        cases: of all parts.
        """
        before = provenance_of(self.out)
        plan = self.model.plan({}, self.options.seed)
        del plan["inputs"]
        earlier = before.get("failed", {})
        failed = {case: why for case, why in earlier.items() if case not in cases} | {
            case: why
            for case, why in left_out.items()
            # of cases that cannot be synthesised, only those with an image of an earlier run
            if case in cases or (self.out / case).is_dir()
        }
        listed = [*before.get("cases", []), *cases]  # evaluate states which have no image
        document = {
            **self.model.network.software,
            **plan,
            **self._runs_from(self.out),
            "cases": [*dict.fromkeys(listed)],
            "failed": failed,
        }
        write_json(self.out / "provenance.json", document)
