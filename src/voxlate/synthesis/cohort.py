"""From a model, inputs and options to cases, and their synthesis into a folder; finished cases are kept, so that a stopped command resumes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, CannotWrite, DoNotTrust
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
from voxlate.base.files import lock
from voxlate.base.messages import Message, Say, message, read_messages, warn_unless_note
from voxlate.base.option import merge
from voxlate.scans.formats.io import is_picture
from voxlate.scans.images.ranges import picture_window
from voxlate.synthesis.model import Model
from voxlate.synthesis.network import OnnxNetwork
from voxlate.synthesis.output_folder import SHARED_SECONDS, OutputFolder, place_from
from voxlate.synthesis.provenance import OF_TRAINING, OTHER_PATIENT, provenance_of
from voxlate.synthesis.result import (
    STATES,
    Synthesised,
    check_folder,
    check_free,
    is_unchanged,
)
from voxlate.synthesis.scans import CaseScans, find_scans, splits_of
from voxlate.synthesis.synth_options import SynthOptions, part_of

OTHER = "other"  # the split of a patient whose case has the name of a training case


@dataclass(frozen=True)
class Selection:
    """A model with the options' settings, and the cases that it synthesises.

    others: the cases of the other parts, None if the cases are not split into parts; parts: their number. lacking: by case, why it cannot be
    synthesised. complete: cases in which no modality is missing. patients: by case, those of other parts and those that
    cannot be synthesised, too.
    """

    model: Model
    scans: list[CaseScans]
    others: list[str] | None = None
    lacking: dict[str, str] = field(default_factory=dict)
    complete: list[str] = field(default_factory=list)
    patients: dict[str, str] = field(default_factory=dict)
    parts: int = 0


def select(
    model: Model, inputs: Sequence[str], options: SynthOptions, unpack_into: Path | None = None
) -> Selection:
    """Set the options of the sampling, and find the cases (see find_scans); raises BadInput if there are none."""
    if not options.intervals:
        model = model.without_intervals()
    if options.like is not None:
        model = model.like(options.like, options.allow_code)
    model = model.with_options(options.allow_code, **options.keys)
    cases = find_scans(
        list(inputs),
        model,
        split=options.split,
        missing=options.missing,
        series=options.series,
        unpack_into=unpack_into,
        **options.layout,
    )
    if options.missing is not None and model.facts.completes:
        model = model.with_only(options.missing)
    if not cases:
        in_split = "" if options.split is None else f" in the split {options.split}"
        raise BadInput(
            f"INPUT: expected cases{in_split}, found none. Choose another --split or INPUT."
        )
    selected = sort_cases(model, cases)
    if options.part is not None:
        part = part_of(options.part)
        others = [case.case for case in selected.scans]
        del others[part]
        selected = replace(selected, scans=selected.scans[part], others=others, parts=part.step)
    return selected


def sort_cases(model: Model, scans: list[CaseScans]) -> Selection:
    """The cases by what the model can do with them.

    Raises BadInput where no case can be synthesised; for a single case with its own sentence.
    """
    result = Selection(model, [], patients={case.case: case.patient for case in scans})
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
        lacking = result.lacking
        first = f" ({next(iter(lacking.values()))})" if lacking else ""
        raise BadInput(
            f"INPUT: expected cases to synthesise, found {len(lacking)} that lack scans{first} and {len(result.complete)} that lack none. Check INPUT, --split and --missing."
        )
    return result


def synthesise_cases(
    selected: Selection,
    out: Path,
    options: SynthOptions | None = None,
    *,
    progress: NamedProgress = no_report,
    say: Say = warn_unless_note,
    executor: Executor | None = None,
    **changes: Any,
) -> tuple[list[Path], dict[str, str], frozenset[str]]:
    """Write OUT/<case>/<modality>.nii.gz, <modality>_std.nii.gz and provenance.json for each case.

    Images that complete a case are called desc-synthetic_<modality>. Of the options, changed by `changes`, the seed, the
    format, anyway, the device and the workers count. Images in OUT of cases that cannot be synthesised are recorded as those of
    an earlier run; other processes may write the cases of other parts into OUT at the same time. say: is called with
    each message, by default Python warns of all but notes. executor: works on the cases instead of the stated workers.
    Returns the folders, a sentence for each case that failed, and those whose scans are graded "do not trust"; a single
    case that fails raises BadInput.
    """
    asked = merge(SynthOptions, options, changes)
    model = selected.model
    scans = selected.scans
    others = selected.others
    if not scans:
        raise BadInput(f"{out}: expected cases to synthesise, found none. Check INPUT and --split.")
    check_folder(out)
    for missing in model.missing_checks:
        say(missing)
    plan = model.plan({}, asked.seed)
    ending = f".{asked.format}"
    output = OutputFolder(out, plan, model.origins, others, ending, selected.parts)
    cases = [case.case for case in scans]
    finished = {}
    failed = {}
    refused = set()
    with lock(out) if others is None else nullcontext():
        _claim(output, cases, say)
        in_torch = not all(isinstance(member.network, OnnxNetwork) for member in model.members)
        chosen = executor or choose_executor(asked, asked.device if in_torch else None)
        apart = not isinstance(chosen, InProcess)
        job = _SynthesisJob(
            model, output, splits_of(model), asked.seed, asked.anyway, apart, in_torch
        )
        for case, outcome in zip(cases, run_cases(chosen, job, scans, progress, say, CannotWrite)):
            error = outcome.error
            if error is None:
                finished[case] = outcome.result
            elif isinstance(error, BadInput) and len(cases) == 1:
                raise error
            else:
                failed[case] = case_sentence(case, error)
                if isinstance(error, DoNotTrust):
                    refused.add(case)
        folders = [done.folder for done in finished.values()]
        if folders:
            with output.lock(out, SHARED_SECONDS):
                output.write_provenance(folders[0], cases, selected.lacking, failed)
    for change in _changes(finished, len(cases)):
        say(change)
    return folders, failed, frozenset(refused)


def _claim(output: OutputFolder, cases: list[str], say: Say) -> None:
    """State what will be replaced in the folder of this process, or claim that of several processes."""
    if output.others is None:
        if outdated := output.differences(cases):
            say(
                message(
                    "synthesised-again",
                    f"{len(outdated)} images in {output.path} made in another way ({outdated[0]}) are synthesised again.",
                    images=len(outdated),
                )
            )
        return
    with lock(output.path, SHARED_SECONDS):  # a process that synthesises all cases would hold it
        output.claim([*cases, *output.others])


def _changes(finished: Mapping[str, "_CaseFolder"], cases: int) -> Iterator[Message]:
    """What happened to images of an earlier synthesis."""
    replaced = [case for case, done in finished.items() if done.replaced]
    kept = sum(done.kept for done in finished.values())
    removed = list(chain.from_iterable(done.removed for done in finished.values()))
    if replaced:
        yield message(
            "synthesised-again",
            f"{len(replaced)} cases are synthesised again: their images are gone, changed, not recorded, or in another format ({replaced[0]}).",
            cases=len(replaced),
        )
    if kept:
        yield message(
            "already-synthesised",
            f"{kept} of {cases} cases were synthesised before and are kept.",
            cases=kept,
        )
    if removed:
        yield message(
            "removed",
            f"{len(removed)} images of an earlier synthesis, which is not this one, are removed ({removed[0]}).",
            images=len(removed),
        )


def warnings_in(folder: Path) -> list[Message]:
    """The warnings in the provenance of a case's images."""
    return read_messages(provenance_of(folder))


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

    model: Model
    output: OutputFolder
    splits: Mapping[str, str]
    seed: int
    anyway: bool
    apart: bool
    uses_network: bool

    def open(self) -> Callable[[CaseScans, Context], _CaseFolder]:
        """The work on one case."""
        return self._work

    def _work(self, scans: CaseScans, context: Context) -> _CaseFolder:
        """Synthesise a case, unless its images are there and unchanged."""
        output = self.output
        folder = output.folder_of(scans.case)
        recorded = output.has_images_of(scans.case, scans.files)
        unchanged = recorded and is_unchanged(folder, output.ending)
        if unchanged and self._has_all_and_no_other(scans, folder):
            # a run that was stopped says what an unbroken one does
            for said in warnings_in(folder):
                context.warn(said.on(scans.case))
            return _CaseFolder(folder, True, False, [])
        hold = lock(folder, SHARED_SECONDS) if self.apart else output.lock(folder)
        with hold:
            removed = self._synthesise(scans, folder, context)
        return _CaseFolder(folder, False, recorded, [f"{folder.name}/{name}" for name in removed])

    def _has_all_and_no_other(self, scans: CaseScans, folder: Path) -> bool:
        """Whether the folder has the images that are asked for, and none of those that --missing leaves out."""
        model = self.model
        ending = self.output.ending
        wanted = set(model.names_of(scans.files))
        possible = model.with_only(()).names_of(scans.files)
        if model.facts.synth.keep_states and not (folder / STATES).is_dir():
            return False
        return all((folder / f"{name}{ending}").exists() == (name in wanted) for name in possible)

    def _synthesise(self, scans: CaseScans, folder: Path, context: Context) -> list[str]:
        """Synthesise the images of a case; returns the images of an earlier synthesis that are removed."""
        model = self.model
        output = self.output

        def warn(warning: Message) -> None:
            """Report a warning on this case."""
            context.warn(warning.on(scans.case))

        check_free(folder, [f"{name}{output.ending}" for name in model.names_of(scans.files)])
        image = model.synthesise(
            scans.files,
            case=scans.case,
            seed=self.seed,
            progress=context.progress,
            warn=warn,
            anyway=self.anyway,
        )
        notes = [*scans.notes]
        in_training = image.provenance.get("in_training")
        is_held_out = "held_out_by" in image.provenance
        if in_training and not is_held_out:
            notes.append(message("trained-on", OF_TRAINING))
        split = self.splits.get(scans.case)
        if is_held_out:
            split = "val"
        elif split == "train" and in_training is False:
            split = OTHER
            notes.append(message("name-of-training-case", OTHER_PATIENT))
        elif in_training:
            split = "train"
        windows = {}
        if all(is_picture(path) for path in scans.files.values()):
            windows = {name: picture_window(volume) for name, volume in image.volumes.items()}
        for name, (low, high) in windows.items():
            if (unit := image.volumes[name].unit) != "grey":
                file = f"{image.mark}{name}"
                notes.append(
                    message(
                        "picture-window",
                        f"{file}.png shows {low:.4g} to {high:.4g} {unit} as black to white. The values are in {file}{output.ending}.",
                    )
                )
        stated = _provenance_for(image, scans, folder, output)
        if notes:
            stated["warnings"] = [*stated.get("warnings", ()), *(note.table for note in notes)]
        for note in notes:
            warn(note)
        if split:  # in the provenance of the case, so that it stays with the image
            stated["split"] = split
        return replace(image, provenance=stated).write(folder, output.ending, windows)


def _provenance_for(
    image: Synthesised, scans: CaseScans, folder: Path, output: OutputFolder
) -> dict[str, Any]:
    """The provenance of a case with the places of its model and scans."""
    inputs = {
        name: {**scan, "path": place_from(scans.files[name], folder)}
        for name, scan in image.provenance["inputs"].items()
    }
    runs = output.runs_from(folder, image.provenance.get("held_out_by"))
    return {**image.provenance, **runs, "inputs": inputs}
