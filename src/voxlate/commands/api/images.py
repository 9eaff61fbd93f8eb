"""The commands that synthesise: load, synthesise; and check, which asks before."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from voxlate.base.errors import BadInput, as_list, first_of, plural
from voxlate.base.messages import (
    Message,
    by_consequence,
    message,
    read_messages,
    summarise,
    verdict_of,
    worst_grade,
)
from voxlate.base.option import AllowCode, Device
from voxlate.commands.api.entry import (
    RUN,
    Address,
    Argument,
    Command,
    LoadedModel,
    Out,
    Run,
    Undone,
    function,
)
from voxlate.commands.api.progress import Reporter
from voxlate.scans.layout_options import layout_options, quote_path
from voxlate.synthesis.synth_options import ANSWER, CheckOptions, SynthOptions

if TYPE_CHECKING:
    from voxlate.evaluation.evaluation_options import CalibrateOptions
    from voxlate.synthesis.model import Model
    from voxlate.synthesis.scans import CaseScans

VERDICTS = ("do not trust", "caution", "fits")
Runs = Annotated[Address | Sequence[Address | LoadedModel] | LoadedModel, RUN]
Inputs = Annotated[
    Sequence[Address] | Address | Mapping[str, Address],
    Argument(
        "Cohort, case, DICOM series, file or modality=path pairs; several runs give their mean.",
        metavar="[RUN...] INPUT",
    ),
]


@function
def load(
    run: Run,
    device: Device = "auto",
    allow_code: AllowCode = False,
    answer: Annotated[Literal["mean", "sample"] | None, ANSWER] = None,
) -> "Model":
    """Open a run for synthesis in memory.
    \f
    Returns:
        Model: A model, whose method `synthesise` takes scans in memory and returns a `Synthesised`.

    Raises:
        BadInput: the path is no model; the model cannot give the answer; or it names code without allow_code.

    Example:
        >>> import voxlate
        >>> model = voxlate.load("RUN", device="cpu")
        >>> image = model.synthesise({"t1": "COHORT/case0/t1.nii.gz"}).volume
        >>> image.data.shape, image.unit  # [C, D, H, W]
        ((1, 6, 24, 20), 'a.u.')
    """
    from voxlate.training.load import load

    return load(run, device, allow_code, answer)


@dataclass(frozen=True)
class Syntheses:
    """A folder of synthesised images, as `voxlate.synthesise` returns it.

    Args:
        folder: the output folder.
        cases: names of the cases that were synthesised.
        left_out: a sentence for each case that was left out.
        targets: the modalities that the model synthesises.
        complete: cases that lack no modality, which a model that completes cases leaves out.
        next: the command that scores or shows the images.

    Example:
        >>> import voxlate
        >>> done = voxlate.synthesise("RUN", "COHORT", "NEW", split="val", progress=False)
        >>> done.bounds  # by case, of a calibrated run
        {}
    """

    folder: Path
    cases: tuple[str, ...]
    left_out: Mapping[str, str]
    targets: tuple[str, ...]
    complete: tuple[str, ...] = ()
    next: str = ""

    @property
    def folders(self) -> list[Path]:
        """The folder of each case."""
        return [self.folder / case for case in self.cases]

    @property
    def warnings(self) -> dict[str, list[Message]]:
        """The warnings of each case that has any."""
        from voxlate.synthesis.provenance import provenance_of

        by_case = {folder.name: read_messages(provenance_of(folder)) for folder in self.folders}
        return {case: found for case, found in by_case.items() if found}

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds of the error of each case."""
        from voxlate.synthesis.provenance import bounds_of

        return bounds_of(self.folders)

    @property
    def document(self) -> dict[str, Any]:
        """What was synthesised, as plain values."""
        warnings = {case: [said.table for said in found] for case, found in self.warnings.items()}
        stated = {"out": self.folder, **vars(self), "bounds": self.bounds, "warnings": warnings}
        del stated["folder"], stated["next"]
        return stated


def _synth_lines(done: Syntheses, _: Any) -> Iterator[Any]:
    from voxlate.synthesis.provenance import bound_lines, provenance_of

    stated = [one for one in map(provenance_of, done.folders) if "expected" in one]
    if stated:
        from voxlate.evaluation.intervals.summary import error_lines

        yield from error_lines(*stated)
    yield from bound_lines(done.folders)
    if done.complete:
        yield f"{len(done.complete)} cases lack no modality and are not synthesised without --missing: {', '.join(done.complete)}"
    yield f"{plural(len(done.cases), 'case')} in {done.folder}. {done.next}".rstrip()
    yield from (Undone(f"left out {why}") for why in done.left_out.values())
    if "do not trust" in map(worst_grade, done.warnings.values()):
        yield Undone()


@Command(
    """
    synth RUN COHORT --out OUT --split val
    synth RUN t1=scan.nii.gz --out OUT --samples 10
    synth RUN COHORT --out MEANS --answer mean
    synth FOLD0 FOLD1 FOLD2 COHORT --out OUT
    """,
    name="synth",
    lines=_synth_lines,
    waits=True,
)
def synthesise(
    run: Runs, inputs: Inputs, out: Out, *, options: SynthOptions, progress: Reporter
) -> Syntheses:
    """Synthesise the target modalities of a case or a cohort.

    The images are in physical units on the grid of the input.
    \f
    Returns:
        Syntheses: The `cases` that were synthesised, their `folders`, the reason of each case that was `left_out`, and
            `warnings` and error `bounds` by case. The images are NIfTI files OUT/CASE/MODALITY.nii.gz.

    Raises:
        BadInput: no case is found; a single case lacks a scan; an option does not fit the model; or the folder has other images.
        DoNotTrust: the scans of a single case are graded "do not trust", and `anyway` is not set.

    Example:
        >>> import voxlate
        >>> done = voxlate.synthesise("RUN", "COHORT", "NEW", split="val", progress=False)
        >>> len(done.cases), (done.folders[0] / "t2.nii.gz").is_file()
        (1, True)
    """
    from voxlate.scans.formats.itk import ITK, load_writer
    from voxlate.synthesis.cohort import select, synthesise_cases
    from voxlate.synthesis.model import Model

    if isinstance(run, Model):  # which is on a device already
        options = replace(options, device=f"{run.network.device}")
    to = Path(out)
    runs, texts = _runs_and_texts(run, inputs)
    in_archive = options.store or any("://" in text for text in texts)
    if in_archive:
        from voxlate.clinic.archives import fetch_inputs, store_answers  # needs pydicom

        texts, studies = fetch_inputs(texts, to, options)
    selected = select(open_model(runs, options), texts, options)
    scans = selected.scans
    targets = tuple(selected.model.facts.data.target)
    if not scans:  # of this --part
        return Syntheses(to, (), selected.lacking, targets)
    if f".{options.format}" in ITK.written_endings:
        load_writer(f"--format {options.format}")
    if options.dicom is not None:
        from voxlate.clinic.dicom_out import check_dicom, export_dicom  # needs pydicom

        check_dicom({scan.case: [*scan.files.values()] for scan in scans})
    folders, failed = synthesise_cases(
        selected, to, options, progress=progress.step, say=progress.say
    )
    cases = tuple(folder.name for folder in folders)
    if options.dicom is not None and folders:
        exported = export_dicom(to, options.dicom, accept_untrusted=options.accept_untrusted)
        text = f"{exported.summary} in {options.dicom}: derived, synthetic, not for diagnosis."
        for said in (*exported.messages, message("exported", text)):
            progress.say(said)
    if options.store:
        stored = store_answers(studies, folders, progress.say, options.accept_untrusted)
        progress.say(message("stored", stored))
    following = f"report {quote_path(to)}"
    if any(scan.truths and scan.case in cases for scan in scans):
        cohort = f"{quote_path(texts[0])}{layout_options(options.layout)}"
        following = f"evaluate {quote_path(to)} --truth {cohort}"
    shown = f"Next:  voxlate {following}" if cases else ""
    complete = tuple(selected.complete)
    return Syntheses(to, cases, selected.lacking | failed, targets, complete, shown)


synthesize = synthesise


def open_model(
    run: Any, options: "CheckOptions | CalibrateOptions", for_check: bool = False
) -> "Model":
    """A loaded model, or that of a run, or the ensemble of several; for_check: see training.load."""
    from voxlate.synthesis.model import Model
    from voxlate.training.load import load_members

    if isinstance(run, Model):
        return run
    given = options.device, options.allow_code, options.answer
    return load_members(as_list(run), *given, for_check)


@dataclass(frozen=True)
class CheckedCase:
    """A case as a model would take it: the verdict, and why.

    Args:
        case: its name.
        verdict: "fits", "caution" or "do not trust".
        scans: file, grid and unit by modality.
        targets: the modalities to synthesise.
        messages: on the scans, each with its code and grade.

    Example:
        >>> import voxlate
        >>> (case,) = voxlate.check("RUN", "COHORT/case0", progress=False).cases
        >>> case.verdict, case.targets, case.scans["t1"]["grid"]
        ('fits', ('t2',), '20×24×6, 2.00×2.00×3.00 mm')
    """

    case: str
    verdict: str
    scans: Mapping[str, Mapping[str, str]]
    targets: Sequence[str]
    messages: Sequence[Message]

    @property
    def lines(self) -> list[str]:
        """The verdict, and each scan as it would be taken."""
        scans = [
            f"  {name}: {', '.join(filter(None, scan.values()))}"
            for name, scan in self.scans.items()
        ]
        return [f"{self.case}: {self.verdict}; to synthesise: {', '.join(self.targets)}", *scans]


@dataclass(frozen=True)
class Checks:
    """The cases of a cohort with their verdicts, as `voxlate.check` returns them.

    Args:
        cases: a CheckedCase each.
        left_out: a sentence for each case that cannot be used.

    Example:
        >>> import voxlate
        >>> checks = voxlate.check("RUN", "COHORT", progress=False)
        >>> dict(checks.document["verdicts"]), checks.left_out
        ({'fits': 6}, {})
    """

    cases: Sequence[CheckedCase]
    left_out: Mapping[str, str]

    @property
    def document(self) -> dict[str, Any]:
        """The cases as plain values, and their number by verdict."""
        return {"verdicts": Counter(case.verdict for case in self.cases), **asdict(self)}

    @property
    def lines(self) -> list[str]:
        """The numbers of cases by verdict, each case, those of the gravest verdicts first, and what is said of them."""
        counts = [f"{count} {verdict}" for verdict, count in self.document["verdicts"].items()]
        graded = sorted(self.cases, key=lambda case: VERDICTS.index(case.verdict))
        messages = [said.on(case.case) for case in graded for said in case.messages]
        return [
            ", ".join([*counts, f"{len(self.left_out)} left out"]),
            *(line for case in graded for line in case.lines),
            *(f"{said.grade}: {said.text}" for said in summarise(messages)),
        ]

    def __repr__(self) -> str:
        return first_of(self.lines, separator="\n")


def _check_lines(found: Checks, _: Any) -> Iterator[Any]:
    yield from found.lines
    yield from (Undone(f"left out {why}") for why in found.left_out.values())
    if "do not trust" in found.document["verdicts"]:
        yield Undone()


@Command(
    """
    check RUN COHORT --split val
    check starter:head-mr-to-ct scan.nii.gz
    """,
    lines=_check_lines,
    reads=True,
)
def check(run: Runs, inputs: Inputs, *, options: CheckOptions, progress: Reporter) -> Checks:
    """State whether a model fits scans, before anything is computed.

    The exit code is 3 where a case is graded "do not trust": synth leaves it out unless --anyway.
    \f
    Returns:
        Checks: For each of the `cases` its verdict ("fits", "caution" or "do not trust"), scans and messages; and a sentence
            for each case in `left_out`, which cannot be used.

    Raises:
        BadInput: no case is found, or a single case cannot be used.

    Example:
        >>> import voxlate
        >>> checks = voxlate.check("RUN", "COHORT", split="val", progress=False)
        >>> [case.verdict for case in checks.cases]
        ['fits']
    """
    from voxlate.synthesis.cohort import select

    runs, texts = _runs_and_texts(run, inputs)
    model = open_model(runs, options, for_check=True)
    asked = SynthOptions(**vars(options))
    selected = select(model, texts, asked)
    left_out, cases = {}, []
    for number, scans in enumerate(selected.scans):
        progress.step("cases", number, len(selected.scans))
        try:
            cases.append(check_case(selected.model, scans))
        except BadInput as error:
            if len(selected.scans) == 1:
                raise
            left_out[scans.case] = str(error)
    return Checks(cases, {**selected.lacking, **left_out})


def check_case(model: "Model", scans: "CaseScans") -> CheckedCase:
    """A case as a model would take it."""
    checked = model.check(scans.files, scans.case)
    messages = by_consequence([*scans.notes, *checked.messages, *model.missing_checks])
    units = checked.prepared.header.units
    files = {
        name: {"file": str(checked.files[name]), "grid": f"{grid}", "unit": units.get(name, "")}
        for name, grid in checked.grids.items()
    }
    return CheckedCase(scans.case, verdict_of(messages), files, checked.targets, messages)


def _runs_and_texts(run: Any, inputs: Any) -> tuple[Any, list[str]]:
    """The runs, of which the first inputs may be others, and the inputs as texts of the command line."""
    from voxlate.training.load import members_and_scans

    if isinstance(inputs, Mapping):
        return run, [f"{name}={scan}" for name, scan in inputs.items()]
    if isinstance(inputs, Path | str):
        return run, [str(inputs)]
    members, scans = members_and_scans([str(text) for text in inputs])
    return [*as_list(run), *members] if members else run, scans
