"""The commands on images: load, synthesise, evaluate, compare, report, export, listen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from rich.text import Text

from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import Message, message
from voxlate.base.options.check import check_options
from voxlate.base.options.table import field_types
from voxlate.clinic.archive import fetch_inputs, store_answers
from voxlate.clinic.archive import serve as answer_studies
from voxlate.clinic.delivery import deliver
from voxlate.clinic.dicom_images import write_derived, write_enhanced
from voxlate.clinic.dicom_out import Exported, export_dicom
from voxlate.clinic.export_for import Converted
from voxlate.clinic.export_for import export_for as write_for
from voxlate.clinic.options.consumers import ConsumerOptions
from voxlate.clinic.options.share import ExportOptions, ListenOptions
from voxlate.commands.api.entry import command
from voxlate.commands.api.next_steps import after_completing, after_synthesis
from voxlate.commands.api.progress import Feedback, report_to
from voxlate.evaluation.compare import Comparison
from voxlate.evaluation.compare import compare as compare_scores
from voxlate.evaluation.intervals.bounds import bound_lines, bounds_of
from voxlate.evaluation.missing import Summary, score_run
from voxlate.evaluation.options.evaluate import CompareOptions, EvaluateOptions
from voxlate.evaluation.reports.comparison import write_page
from voxlate.evaluation.reports.page import report as report_images
from voxlate.evaluation.reports.prepared import report_prepared
from voxlate.evaluation.scoring.captions import training_note, truth_messages
from voxlate.evaluation.scoring.evaluate import evaluate as score_images
from voxlate.evaluation.scoring.scored_images import images_in, is_map
from voxlate.evaluation.scoring.tables import Scores
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.synthesis.cohort import warnings_in
from voxlate.synthesis.ensemble import members_and_scans
from voxlate.synthesis.inputs import as_volume
from voxlate.synthesis.model import Model, Synthesised
from voxlate.synthesis.model import load as load_model
from voxlate.synthesis.options import SynthOptions
from voxlate.synthesis.selection import Selection, select
from voxlate.training.recipe.provenance import provenance_of
from voxlate.training.verdict import colour_lines

__all__ = ["members_and_scans"]


@command
def load(
    run: Path | str,
    device: str = "auto",
    allow_code: bool = False,
    answer: Literal["mean", "sample"] | None = None,
) -> Model:
    """Open a run for synthesis in memory.

    run: run folder, weights file, starter:NAME or hf://NAME/REPO@COMMIT.
    device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu.
    allow_code: import and run the model's own Python code.
    answer: of a residual diffusion the mean (least error) or a sample (sharp, the default).
    """
    return load_model(run, device, allow_code, answer)


ScanOrArray = Annotated[Any, "a path, a Volume, a nibabel image, or a pair (array, affine)"]
SCANS = "scans"  # the folder in OUT of scans that are given as arrays


@dataclass(frozen=True)
class Syntheses:
    """A folder of synthesised images: its cases, a sentence for each that was left out, and each case's warnings.

    targets: the modalities that the model synthesises; complete: cases that lack no modality, which a model that
    completes cases leaves out; with_truth: cases whose true scans are among the inputs; others: the number of cases of
    the other parts. inputs: those of the command, with folders in place of addresses.
    """

    folder: Path
    cases: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    complete: tuple[str, ...] = ()
    with_truth: frozenset[str] = frozenset()
    others: int = 0
    inputs: tuple[str, ...] = ()

    @property
    def is_empty_part(self) -> bool:
        """Whether all cases belong to other parts."""
        return bool(self.others) and not self.cases and not self.left_out

    @property
    def folders(self) -> list[Path]:
        """The folder of each case."""
        return [self.folder / case for case in self.cases]

    @property
    def warnings(self) -> dict[str, list[Message]]:
        """The warnings of each case that has any."""
        by_case = {folder.name: warnings_in(folder) for folder in self.folders}
        return {case: found for case, found in by_case.items() if found}

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds of the error of each case."""
        return bounds_of(self.folders)

    @property
    def document(self) -> dict[str, Any]:
        """What was synthesised, as plain values."""
        warnings = {
            case: [warning.table for warning in found] for case, found in self.warnings.items()
        }
        return {
            "cases": [*self.cases],
            "targets": [*self.targets],
            "left_out": {**self.left_out},
            "complete": [*self.complete],
            "bounds": self.bounds,
            "warnings": warnings,
        }

    @property
    def bound_lines(self) -> list[str]:
        """Sentences on the bounds of the error."""
        return [*bound_lines(self.folders)]

    def __repr__(self) -> str:
        lines = [
            f"Syntheses({len(self.cases)} cases in {self.folder}, {len(self.left_out)} left out)"
        ]
        for case, warnings in self.warnings.items():
            lines += [f"  {warning.on(case)}" for warning in warnings]
        return "\n".join(lines)

    def show(self, case: str | None = None) -> Image.Image:
        """Middle slices of the images of a case, by default of the first, with its warnings."""
        if not self.cases or (case is not None and case not in self.cases):
            known = first_of(self.cases) or "none"
            raise BadInput(
                f"case: expected a synthesised case ({known}), found {case!r}. Choose one of these."
            )
        folder = self.folder / (case or self.cases[0])
        images = images_in(folder)
        volumes = {
            name: read_volume(path) for name, path in images.items() if not is_map(name, images)
        }
        return Synthesised(volumes, {}, provenance_of(folder)).show()

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_() or b""


@command
def synthesise(
    run: Model | Path | str | Sequence[Path | str],
    inputs: Path | str | Sequence[Path | str] | Mapping[str, ScanOrArray],
    out: Path | str,
    options: SynthOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Syntheses:
    """Synthesise the target modalities of a case or a cohort into a folder; images are in physical units on the grid of the input.

    run: run folder, weights file, starter:NAME, hf://NAME/REPO or loaded model; of several runs the mean and its spread.
    inputs: cohort, case, DICOM series, file, modality=path texts, or scans by modality: paths, Volumes, nibabel images, or pairs of an array (NumPy, torch) [x, y, z] and its affine.
    out: output folder.
    changes: also other keys of the recipe's synth table, such as overlap=0.25.
    """
    known = field_types(SynthOptions)
    keys = {name: value for name, value in changes.items() if name not in known}
    own = {name: value for name, value in changes.items() if name in known}
    asked = check_options(SynthOptions, options, own)
    asked = replace(asked, synth={**(asked.synth or {}), **keys})
    if isinstance(run, Model):  # which is on a device already
        asked = replace(asked, device=f"{run.device}")
    to = Path(out)
    with report_to(progress) as report:
        fetched = fetch_inputs(_texts_of_inputs(inputs, to), to, asked)
        runs = [run] if isinstance(run, Path | str) else run
        selected = select(runs, fetched.inputs, asked)
        if not selected.scans:
            return _describe(selected, to, [], {}, fetched.inputs)
        folders, failed = deliver(selected, to, asked, progress=report.step, say=report.say)
        if asked.store:
            stored = store_answers(fetched, folders, report.say)
            report.say(message("stored", stored))
    return _describe(selected, to, folders, failed, fetched.inputs)


synthesize = synthesise


def _texts_of_inputs(inputs: Any, out: Path) -> list[str]:
    """Inputs as texts of the command line; scans that are no paths are written into OUT/scans first."""
    if isinstance(inputs, Path | str):
        return [str(inputs)]
    if not isinstance(inputs, Mapping):
        return [str(text) for text in inputs]
    texts = []
    for name, scan in inputs.items():
        if not isinstance(scan, Path | str):
            folder = out / SCANS / "case"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.nii.gz"
            write_volume(path, as_volume(scan, name), f"voxlate: {name}")
            scan = path
        texts.append(f"{name}={scan}")
    return texts


def _describe(
    selected: Selection,
    out: Path,
    folders: Sequence[Path],
    failed: Mapping[str, str],
    inputs: Sequence[str],
) -> Syntheses:
    """What was synthesised of the selected cases."""
    cases = tuple(folder.name for folder in folders)
    with_truth = {scans.case for scans in selected.scans if scans.truths}
    return Syntheses(
        out,
        cases,
        {**selected.lacking, **failed},
        targets=tuple(selected.model.recipe.data.target),
        complete=tuple(selected.complete),
        with_truth=frozenset(with_truth & {*cases}),
        others=len(selected.others or ()),
        inputs=tuple(inputs),
    )


def next_commands(done: Syntheses, run: Path | str, scans: str, asked: SynthOptions) -> list[str]:
    """The commands that the command line proposes after a synthesis; scores need the names of cases."""
    if not done.cases:
        return []
    can_score = bool(done.with_truth) and asked.pseudonymise is None
    found = [after_synthesis(done.folder, scans, asked.layout, can_score)]
    if done.complete and asked.pseudonymise is None:
        found.append(after_completing(Path(run), scans, asked.layout, asked.split))
    return found


@command
def evaluate(
    out: Path | str,
    truth: Path | str,
    options: EvaluateOptions | None = None,
    *,
    cases: Sequence[str] | None = None,
    progress: Feedback = True,
    **changes: Any,
) -> Scores:
    """Score synthesised images and naive baselines against the true scans, into metrics.csv and metrics.json.

    out: folder that synthesise wrote; with `run` a new one.
    truth: cohort with the true scans.
    cases: the cases to score, instead of those of the split; not with `run`.
    """
    asked = check_options(EvaluateOptions, options, changes)
    return score(Path(out), Path(truth), asked, cases, progress).scores


@dataclass(frozen=True)
class Evaluation:
    """Scores, and what the command line prints of them; with a run the summary of all missing modalities."""

    scores: Scores
    asked: EvaluateOptions
    summary: Summary | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The scores as plain values, as in metrics.json."""
        return self.scores.document()

    @property
    def verdict(self) -> Text:
        """Whether the images are better than the best naive baseline, coloured for a terminal."""
        return colour_lines(self.scores.verdicts)

    @property
    def messages(self) -> list[Message]:
        """What the scores leave out and assume."""
        header = self.scores.header
        absent = {} if self.summary is None else self.summary.incomplete
        found = [message("case-left-out", f"left out {why}") for why in absent.values()]
        if self.asked.align:
            text = f"--align: {header['scopes']['aligned'].rpartition('; ')[2]}."
            found.append(message("aligned", text))
        assumed = [*header["shared_masks"], *header.get("windows", ())]
        return [*found, *(message("assumed", f"assumed: {text}.") for text in assumed)]

    @property
    def training_notes(self) -> list[Message]:
        """A message where scored cases were in the training."""
        text = training_note(self.document)
        return [message("trained-on", text)] if text else []

    @property
    def wrong_truths(self) -> list[Message]:
        """Messages on truths that cannot be those of their images."""
        return truth_messages(self.document)

    @property
    def undone(self) -> list[str]:
        """Sentences on cases that were not scored."""
        absent = self.scores.header["not_synthesised"]
        failed = {} if self.summary is None else self.summary.failed
        return [
            *(f"not scored: {case} ({why})" for case, why in absent.items()),
            *(f"left out {sentence}" for sentence in failed.values()),
        ]


def score(
    out: Path,
    truth: Path,
    asked: EvaluateOptions,
    cases: Sequence[str] | None = None,
    progress: Feedback = True,
) -> Evaluation:
    """Score images as `evaluate` does."""
    if not asked.run:
        asked.refuse_without_run()
    elif cases is not None:
        raise BadInput(
            "cases: expected no cases with a run, which synthesises those of the split, found some. Leave them out, or use exclude."
        )
    with report_to(progress) as report:
        if asked.run:
            summary = score_run(truth, out, asked, progress=report.step, say=report.say)
            return Evaluation(summary.scores, asked, summary)
        scores = score_images(out, truth, asked, cases=cases, progress=report.count("evaluate"))
        return Evaluation(scores, asked)


@command
def compare(
    folders: Sequence[Path | str], options: CompareOptions | None = None, **changes: Any
) -> Comparison:
    """Compare scored methods by paired tests.

    folders: scored folders of the same cases.
    """
    asked = check_options(CompareOptions, options, changes)
    found = compare_scores(folders, reference=asked.reference, answer=asked.answer)
    if asked.out:
        found.write(asked.out)
    if asked.report:
        write_page(found.document, Path(asked.report))
    return found


@command
def report(path: Path | str, out: Path | str | None = None) -> Path:
    """Write an offline HTML page with pictures, curves and tables, and return its path.

    path: run, folder that synthesise wrote, or prepared cohort.
    out: HTML file; by default PATH/report.html.
    """
    is_cohort = (Path(path) / "cohort.json").is_file()
    write = report_prepared if is_cohort else report_images
    return write(Path(path), None if out is None else Path(out))


@command
def export(
    out: Path | str,
    dicom: Path | str,
    options: ExportOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Exported:
    """Write synthesised images as derived DICOM series in the study of their source (research use only).

    out: folder that synthesise wrote, or one case's folder in it.
    dicom: new folder for the DICOM series.
    """
    asked = check_options(ExportOptions, options, changes)
    like = None if asked.like is None else Path(asked.like)
    with report_to(progress) as report:
        write = write_enhanced if asked.enhanced else write_derived
        return export_dicom(Path(out), Path(dicom), like, report.count("images"), write)


@command
def export_for(
    out: Path | str,
    to: Path | str,
    options: ConsumerOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Converted:
    """Write CTs in HU for planning, protons, ultrasound or PET, in the unit of each, with the ends of their intervals.

    out: folder that synthesise wrote, one case's folder in it, or a CT in HU.
    to: folder with a folder for each case.
    """
    asked = check_options(ConsumerOptions, options, changes)
    with report_to(progress) as report:
        return write_for(Path(out), Path(to), asked, report.count("export"))


@command
def listen(
    run: Path | str,
    out: Path | str,
    options: ListenOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> None:
    """Receive studies by C-STORE, synthesise one at a time, and send the images by C-STORE, until interrupted.

    run: run folder, weights file, starter:NAME or hf://NAME/REPO.
    out: folder of the queue, on a disk of its own.
    """
    asked = check_options(ListenOptions, options, changes)
    with report_to(progress) as report:
        answer_studies(run, Path(out), asked, report.say)
