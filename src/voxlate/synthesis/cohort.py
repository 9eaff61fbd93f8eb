"""Synthesis of many cases into a folder; finished cases are kept, so that a stopped command resumes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from voxlate.executors.job import Context, Executor, InProcess, Outcome, busy_line, case_sentence
from voxlate.formats.io import is_picture
from voxlate.images.face import may_show_face
from voxlate.scoring.provenance import provenance_of
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.model import Model
from voxlate.synthesis.model_transfer import SentModel
from voxlate.synthesis.output_folder import SHARED_SECONDS, OutputFolder, place_from
from voxlate.synthesis.progress import no_report, warn_unless_note
from voxlate.synthesis.result import Synthesised, check_folder, check_free, has_format, is_unchanged
from voxlate.synthesis.scans import Scans, splits_of
from voxlate.system.errors import BadInput, CannotWrite
from voxlate.system.files import lock
from voxlate.system.messages import Message, Say, message, read_messages
from voxlate.system.slabs import scratch_in

NamedProgress = Callable[[str, int, int], None]
OTHER = "other"  # the split of a patient whose case has the name of a training case


@dataclass
class _Results:
    """The folders of finished cases, why others failed, how many were kept, and what was replaced or removed."""

    folders: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    kept: int = 0
    replaced: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def report(self, cases: int, say: Say) -> None:
        """State what happened to images of an earlier synthesis."""
        if self.replaced:
            text = f"{len(self.replaced)} cases are synthesised again: their images are gone, changed, not recorded, or in another format ({self.replaced[0]})."
            say(message("synthesised-again", text, cases=len(self.replaced)))
        if self.kept:
            text = f"{self.kept} of {cases} cases were synthesised before and are kept."
            say(message("already-synthesised", text, cases=self.kept))
        if self.removed:
            text = f"{len(self.removed)} images of an earlier synthesis, which is not this one, are removed ({self.removed[0]})."
            say(message("removed", text, images=len(self.removed)))


def synthesise_cases(
    model: Model | Ensemble,
    scans: list[Scans],
    out: Path,
    *,
    seed: int = 0,
    lacking: Mapping[str, str] | None = None,
    others: Sequence[str] | None = None,
    parts: int = 0,
    ending: str = ".nii.gz",
    hidden: Mapping[str, str] | None = None,
    progress: NamedProgress = no_report,
    say: Say = warn_unless_note,
    executor: Executor | None = None,
    device: str = "auto",
) -> tuple[list[Path], dict[str, str]]:
    """Write OUT/<case>/<modality>.nii.gz, <modality>_std.nii.gz and provenance.json for each case.

    Images that complete a case are called desc-synthetic_<modality>.
    lacking: why other cases cannot be synthesised; their images in OUT are recorded as those of an earlier run.
    others: cases that other processes write into OUT at the same time (see Part), of so many parts; None where there are none.
    ending: of the images' files, one of result.ENDINGS. hidden: where cases have pseudonyms, see OutputFolder.
    say: is called with each message, by default Python warns of those that are more than notes. executor: works on the cases, by default this process; device:
    of its workers. Returns the folders, and a sentence for each case that failed; a single case that fails raises
    BadInput.
    """
    if not scans:
        raise BadInput(f"{out}: expected cases to synthesise, found none. Check INPUT and --split.")
    check_folder(out)
    for unchecked in model.unchecked:
        say(unchecked)
    cases = [one.case for one in scans]
    output = OutputFolder(out, model.plan({}, seed), model.origins, others, ending, hidden, parts)
    splits = splits_of(model)

    def say_cleanly(one: Message) -> None:
        say(replace(one, text=output.clean(one.text), case=output.clean(one.case)))

    results = _Results()
    with lock(out) if others is None else nullcontext():
        if others is None:
            outdated = output.outdated(cases)
            if outdated:
                text = f"{len(outdated)} images in {out} with other options ({outdated[0]}) are synthesised again."
                say(message("synthesised-again", text, images=len(outdated)))
        else:
            with lock(out, SHARED_SECONDS):  # a process that synthesises all cases would hold it
                output.claim([*cases, *others])
        chosen = executor or InProcess()
        apart = not isinstance(chosen, InProcess)
        job = _SynthesisJob(SentModel(model, device), output, splits, seed, apart)
        progress("cases", 0, len(scans))
        running = chosen.run(job, scans, progress=partial(progress, "slices"), warn=say_cleanly)
        outcomes = dict[int, Outcome]()
        with closing(running):
            for number, outcome in running:
                if isinstance(outcome.error, CannotWrite):
                    raise _clean_error(outcome.error, output)
                outcomes[number] = outcome
                progress("cases", len(outcomes), len(scans))
        for number, one in enumerate(scans):
            _add(outcomes[number], one, len(scans) == 1, output, results)
        if results.folders:
            with output.lock(out, SHARED_SECONDS):
                output.write_provenance(results.folders[0], cases, lacking or {}, results.failed)
    results.report(len(scans), say)
    if busy := busy_line([outcome.cost for outcome in outcomes.values()]):
        say(message("workers", busy))
    return results.folders, results.failed


def warnings_in(folder: Path) -> list[Message]:
    """The warnings in the provenance of a case's images."""
    return read_messages(provenance_of(folder).get("warnings", ()))


@dataclass(frozen=True)
class _CaseFolder:
    """The folder of a finished case, whether its images were kept or replaced, and images that were removed."""

    folder: Path
    kept: bool
    replaced: bool
    removed: list[str]


@dataclass(frozen=True)
class _SynthesisJob:
    """The synthesis of cases into a folder.

    apart: whether a worker may end without this process, so that a case's folder is locked and cleared on its own.
    """

    sent: SentModel
    output: OutputFolder
    splits: Mapping[str, str]
    seed: int
    apart: bool
    uses_network: bool = True

    def open(self) -> Callable[[Scans, Context], _CaseFolder]:
        return self._synthesise_or_keep

    def _synthesise_or_keep(self, scans: Scans, context: Context) -> _CaseFolder:
        """Synthesise a case, unless its images are there and unchanged."""
        output = self.output
        folder = output.folder_of(scans.case)
        recorded = output.has_images_of(scans.case, scans.files)
        unchanged = recorded and is_unchanged(folder) and has_format(folder, output.ending)
        if unchanged and _has_all_and_no_other(self.sent.model, scans, folder, output.ending):
            return _CaseFolder(folder, True, False, [])
        hold = lock(folder, SHARED_SECONDS) if self.apart else output.lock(folder)
        with hold, scratch_in(folder):
            removed = _synthesise_case(
                self.sent.model, scans, folder, output, self.splits, self.seed, context
            )
        return _CaseFolder(folder, False, recorded, removed)


def _add(
    outcome: Outcome, scans: Scans, alone: bool, output: OutputFolder, results: _Results
) -> None:
    """Add the outcome of a case to the results; raises the error of a case that is the only one."""
    if outcome.error is None:
        done: _CaseFolder = outcome.result
        results.folders.append(done.folder)
        results.kept += done.kept
        results.replaced += [scans.case] if done.replaced else []
        results.removed += done.removed
        return
    if alone and isinstance(outcome.error, BadInput):
        raise _clean_error(outcome.error, output)
    results.failed[scans.case] = output.clean(case_sentence(scans.case, outcome.error))


def _clean_error(error: BadInput, output: OutputFolder) -> BadInput:
    """The error without the names that pseudonyms stand for."""
    return error if output.hidden is None else type(error)(output.clean(str(error)))


def _has_all_and_no_other(model: Model | Ensemble, scans: Scans, folder: Path, ending: str) -> bool:
    """Whether the folder has the images that are asked for, and none of those that --missing leaves out."""
    wanted = set(model.names_of(scans.files))
    possible = model.with_only(()).names_of(scans.files)
    return all((folder / f"{name}{ending}").exists() == (name in wanted) for name in possible)


def _synthesise_case(
    model: Model | Ensemble,
    scans: Scans,
    folder: Path,
    output: OutputFolder,
    splits: Mapping[str, str],
    seed: int,
    context: Context,
) -> list[str]:
    """Synthesise the images of a case; returns the images of an earlier synthesis that are removed."""

    def warn(one: Message) -> None:
        context.warn(one.on(scans.case))

    check_free(folder, [f"{name}{output.ending}" for name in model.names_of(scans.files)])
    image = model.synthesise(
        scans.files,
        case=scans.case,
        seed=seed,
        progress=context.progress,
        warn=warn,
        turn=context.turn,
    )
    for one in scans.notes:
        warn(one)
    if scans.others and model.recipe.task.completes:  # another name would count as missing
        text = f"{', '.join(scans.others)} was not used: no modality of this model has that name."
        warn(message("unused-scan", text))
    stated = _stated(image, scans, folder, output)
    for one in _faces(image) if output.hidden is not None else ():
        warn(one)
        stated["warnings"] = [*stated.get("warnings", ()), one.stated]
    split = splits.get(scans.known_as or scans.case)
    in_training = image.provenance.get("in_training")
    if split == "train" and in_training is False:
        split = OTHER
        text = "It has the name of a training case and other voxels: it counts as another patient."
        warn(message("name-of-training-case", text))
    elif in_training:
        split = "train"
    if split:  # in the provenance of the case, so that it stays with the image
        stated["split"] = split
    only_pictures = all(is_picture(path) for path in scans.files.values())
    suffixes = (output.ending, ".png") if only_pictures else (output.ending,)
    removed = replace(image, provenance=stated).write(folder, suffixes)
    return [f"{folder.name}/{name}" for name in removed]


def _stated(image: Synthesised, scans: Scans, folder: Path, output: OutputFolder) -> dict[str, Any]:
    """The provenance of a case with the places of its model and scans; without names and places where these are hidden."""
    inputs = dict[str, Any]()
    for name, scan in image.provenance["inputs"].items():
        place = {} if output.hidden is not None else {"path": place_from(scans.files[name], folder)}
        inputs[name] = {**scan, **place}
    stated = {**image.provenance, **output.runs_from(folder), "inputs": inputs}
    if output.hidden is None:
        return stated
    kept = output.plan.keys() - {"inputs"}  # by which a stopped synthesis is resumed
    return {key: value if key in kept else _cleaned(value, output) for key, value in stated.items()}


def _cleaned(value: Any, output: OutputFolder) -> Any:
    """A value of a provenance with clean texts."""
    if isinstance(value, str):
        return output.clean(value)
    if isinstance(value, list | tuple):
        return [_cleaned(one, output) for one in value]
    if isinstance(value, dict):
        return {key: _cleaned(one, output) for key, one in value.items()}
    return value


def _faces(image: Synthesised) -> list[Message]:
    """A warning for each image that shows a whole head."""
    shown = [name for name, volume in image.volumes.items() if may_show_face(volume)]
    rest = "shows a whole head, whose face may be recognised although its name is a pseudonym."
    return [message("face", f"{name} {rest}") for name in shown]
