"""The commands that a finished command proposes: each works as it is printed on the cohort at hand."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlate.base.errors import BadInput
from voxlate.scans.cases.case import PROTONS
from voxlate.scans.cases.prepared import COHORT, Cohort, open_cohort
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.layout_options import layout_of, layout_options, quote_path
from voxlate.synthesis.inputs import scans_to_give
from voxlate.synthesis.synth_options import SynthOptions
from voxlate.training.recipe.run_provenance import splits_of_training
from voxlate.training.training_options import PlanOptions

if TYPE_CHECKING:
    from voxlate.training.batches.patches import DataSettings

HELD_OUT = ("val", "test")


def after_prepare(prepared: Path) -> str:
    """The training of a prepared cohort, of a phantom's maps by a recipe with [data.physics]; raises BadInput if none can be planned."""
    from voxlate.training.planning.cohort_facts import choose_roles, cohort_facts

    cohort = open_cohort(prepared)
    if PROTONS in cohort.modalities:
        cohort_facts(cohort)
        return f"train PHYSICS_RECIPE.toml --data {quote_path(prepared)} --out RUN"
    choose_roles(cohort, PlanOptions())
    return f"train auto --data {quote_path(prepared)} --out RUN"


def after_training(run: Path, data: "DataSettings", completes: bool) -> str:
    """The scores of a model that completes cases, or the synthesis of held-out cases.

    If held-out cases lack scans, the synthesis of all cases that lack some, or of one case; where the scans were drawn
    from maps, the synthesis of a scan of the user's.
    """
    splits, cohort = splits_of_training([run]), cohort_of(run)
    wanted = set(data.any_source or data.source)
    if cohort is None:
        unseen = next((f" --split {name}" for name in HELD_OUT if splits.get(name)), "")
        return f"synth {quote_path(run)} {COHORT}{unseen} --out OUT"
    present = {entry.case: set(entry.present) for entry in cohort.cases}
    if data.physics is not None and not any(wanted & there for there in present.values()):
        return f"synth {quote_path(run)} {scans_to_give(data, completes)} --out OUT"
    scans = cohort.scans
    held_out = {name: splits[name] for name in HELD_OUT if splits.get(name)} or {"": [*present]}

    def fits(there: set[str]) -> bool:
        """Whether the model can synthesise a case with these modalities."""
        if completes:
            return bool(there) and there != wanted
        return bool(there) if data.allow_missing or data.any_source else there == wanted

    for name, cases in held_out.items():
        split = f" --split {name}" if name else ""
        having = [wanted & present.get(case, set()) for case in cases]
        if completes and wanted in having:
            return f"evaluate NEW --truth {scans} --run {quote_path(run)} --missing one --units network{split}"
        if all(map(fits, having)):
            return f"synth {quote_path(run)} {scans}{split} --out OUT"
    held = {*chain.from_iterable(held_out.values())}
    for case in sorted(_cases(cohort), key=lambda case: case.case not in held):
        files = {name: path for name, path in case.files.items() if name in wanted}
        if fits(set(files)):
            pairs = " ".join(f"{name}={quote_path(path)}" for name, path in files.items())
            return f"synth {quote_path(run)} {pairs} --out OUT"
    return f"synth {quote_path(run)} {scans} --out OUT"


def after_folds(runs: Sequence[Path]) -> str:
    """The synthesis of each case by those runs of a cross-validation that did not see it."""
    cohort = cohort_of(runs[0])
    scans = COHORT if cohort is None else cohort.scans
    return f"synth {' '.join(map(quote_path, runs))} {scans} --out CV"


def after_synthesis(done: Any, run: str, asked: SynthOptions) -> list[str]:
    """The scores of images (Syntheses) if the scans include the true targets, else their report; then those on complete cases."""
    if not done.cases:
        return []
    truth = f"--truth {quote_path(done.inputs[0])}{layout_options(asked.layout)}"
    if not done.with_truth:
        steps = [f"report {quote_path(done.folder)}"]
    else:
        steps = [f"evaluate {quote_path(done.folder)} {truth}"]
    if done.complete:
        of_split = f" --split {asked.split}" if asked.split else ""
        model = f"--run {quote_path(Path(run))} --missing one --units network"
        steps.append(f"evaluate NEW {truth}{of_split} {model}")
    return steps


def _cases(cohort: Cohort) -> Sequence[CaseFiles]:
    """The files of a prepared cohort's scans; none if they do not exist any more."""
    root = cohort.root
    if root is None:
        return []
    try:
        return find_cohort(root, **layout_of(cohort.provenance)).cases
    except BadInput:  # scans that were changed since do not make a training fail
        return []


def cohort_of(run: Path) -> Cohort | None:
    """The prepared cohort that a run was trained on; None if it does not exist any more, or has changed."""
    from voxlate.training.continuing import training_cohort  # here, because it imports torch
    from voxlate.training.run import Run

    try:
        place = training_cohort(Run(run))
        return None if place is None else open_cohort(place)
    except BadInput:
        return None
