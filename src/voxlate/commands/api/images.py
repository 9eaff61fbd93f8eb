"""The commands that synthesise: load, synthesise; and check, which asks before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image

from voxlate.base.errors import BadInput, first_of
from voxlate.base.messages import Message, message, worst_grade
from voxlate.base.options.check import check_options
from voxlate.base.options.table import field_types
from voxlate.clinic.address import is_dicomweb
from voxlate.commands.api.entry import command
from voxlate.commands.api.progress import Feedback, report_to
from voxlate.evaluation.intervals.bounds import bound_lines, bounds_of
from voxlate.scans.cohorts.pseudonyms import check_outside
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.formats.itk import ITK, load_writer
from voxlate.synthesis.cohort import synthesise_cases, warnings_in
from voxlate.synthesis.inputs import as_volume
from voxlate.synthesis.model import Model, Synthesised
from voxlate.synthesis.options import CheckOptions, SynthOptions
from voxlate.synthesis.provenance import provenance_of
from voxlate.synthesis.scans import Scans
from voxlate.synthesis.selection import Selection, select
from voxlate.training.model import load as load_model
from voxlate.training.model import load_members


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
    completes cases leaves out; refused: those that were left out because their scans are graded "do not trust"; with_truth: cases whose true scans are among the inputs; others: the number of cases of
    the other parts. inputs: those of the command, with folders in place of addresses.
    """

    folder: Path
    cases: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    complete: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()
    with_truth: frozenset[str] = frozenset()
    others: int = 0
    inputs: tuple[str, ...] = ()

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
            "refused": sorted(self.refused),
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
        from voxlate.evaluation.scoring.scored_images import images_in, is_map

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
    asked = check_options(
        SynthOptions, options, {name: changes[name] for name in changes if name in known}
    )
    asked = replace(asked, synth={**(asked.synth or {}), **keys})
    if isinstance(run, Model):  # which is on a device already
        asked = replace(asked, device=f"{run.device}")
    to = Path(out)
    with report_to(progress) as report:
        texts = _texts_of_inputs(inputs, to)
        in_archive = asked.store or any(map(is_dicomweb, texts))
        if in_archive:
            from voxlate.clinic.archive import fetch_inputs, store_answers  # needs pydicom

            fetched = fetch_inputs(texts, to, asked)
            texts = fetched.inputs
        selected = select(open_model(run, asked), texts, asked)
        scans, left_out = selected.scans, {**selected.lacking}
        described = partial(
            Syntheses,
            to,
            targets=tuple(selected.model.facts.data.target),
            complete=tuple(selected.complete),
            others=len(selected.others or ()),
            inputs=tuple(texts),
        )
        if not scans:
            return described((), left_out)
        if asked.pseudonymise is not None:
            check_outside(asked.pseudonymise, to)
        if f".{asked.format}" in ITK.written_endings:
            load_writer(f"--format {asked.format}")
        has_layout = asked.bids or asked.dicom is not None
        if has_layout:
            from voxlate.clinic.layouts import check_layouts, write_layouts  # needs pydicom

            check_layouts(scans, to, asked)
        folders, failed, refused = synthesise_cases(
            selected, to, asked, progress=report.step, say=report.say
        )
        if has_layout and folders:
            write_layouts(folders, scans, to, asked, report.say)
        if asked.store:
            report.say(
                message(
                    "stored", store_answers(fetched, folders, report.say, asked.accept_untrusted)
                )
            )
    cases = tuple(folder.name for folder in folders)
    with_truth = frozenset(case.case for case in scans if case.truths and case.case in cases)
    return described(cases, left_out | failed, refused=refused, with_truth=with_truth)


synthesize = synthesise


def open_model(run: Model | Path | str | Sequence[Path | str], asked: CheckOptions) -> Model:
    """A loaded model, or that of a run, or the ensemble of several."""
    if isinstance(run, Model):
        return run
    runs = [run] if isinstance(run, Path | str) else run
    return load_members(runs, asked.device, asked.allow_code, asked.answer)


@dataclass(frozen=True)
class CheckedCase:
    """A case as a model would take it: its verdict ("fits", "caution" or "do not trust"), and why.

    scans: file, grid and unit by modality; targets: the modalities to synthesise.
    """

    case: str
    verdict: str
    scans: Mapping[str, Mapping[str, str]]
    targets: Sequence[str]
    messages: Sequence[Message]

    def __repr__(self) -> str:
        lines = [f"{self.case}: {self.verdict}; to synthesise: {', '.join(self.targets)}"]
        lines += [
            f"  {name}: {', '.join(filter(None, scan.values()))}"
            for name, scan in self.scans.items()
        ]
        return "\n".join([*lines, *(f"  {said.grade}: {said.text}" for said in self.messages)])


@dataclass(frozen=True)
class Checks:
    """The cases of a command; left_out: a sentence for each case that cannot be used."""

    cases: Sequence[CheckedCase]
    left_out: Mapping[str, str]

    @property
    def document(self) -> dict[str, Any]:
        """The cases as plain values, and their number by verdict."""
        return {"verdicts": Counter(case.verdict for case in self.cases), **asdict(self)}

    def __repr__(self) -> str:
        counts = [f"{count} {verdict}" for verdict, count in self.document["verdicts"].items()]
        lines = [", ".join([*counts, f"{len(self.left_out)} left out"]), *map(repr, self.cases)]
        return "\n".join(lines if len(self.cases) > 1 else lines[1:])


@command
def check(
    run: Model | Path | str | Sequence[Path | str],
    inputs: Path | str | Sequence[Path | str] | Mapping[str, ScanOrArray],
    options: CheckOptions | None = None,
    *,
    progress: Feedback = True,
    **changes: Any,
) -> Checks:
    """State whether a model fits scans, before anything is computed.

    run: as of synthesise.
    inputs: as of synthesise.
    """
    asked = check_options(CheckOptions, options, changes)
    model, left_out = open_model(run, asked), dict[str, str]()
    cases = list[CheckedCase]()
    if isinstance(inputs, Mapping):
        selected = Selection(model, [Scans("case", {**inputs})])
    else:
        texts = [inputs] if isinstance(inputs, Path | str) else inputs
        selected = select(model, [*map(str, texts)], SynthOptions(**vars(asked)))
    with report_to(progress) as report:
        for number, scans in enumerate(selected.scans):
            report.step("cases", number, len(selected.scans))
            try:
                cases.append(_check_case(selected.model, scans))
            except BadInput as error:
                if len(selected.scans) == 1:
                    raise
                left_out[scans.case] = str(error)
    return Checks(cases, {**selected.lacking, **left_out})


def _check_case(model: Model, scans: Scans) -> CheckedCase:
    checked = model.check(scans.files, scans.case)
    messages = [*scans.notes, *checked.messages, *model.missing_checks]
    grade = worst_grade(messages)
    verdict = "fits" if grade in (None, "note") else str(grade)
    inputs, found = checked.inputs, dict[str, dict[str, str]]()
    for name, grid in inputs.grids.items():
        unit = inputs.prepared.header.units.get(name, "")
        found[name] = {"file": str(inputs.files[name]), "grid": f"{grid}", "unit": unit}
    return CheckedCase(scans.case, verdict, found, checked.targets, messages)


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
