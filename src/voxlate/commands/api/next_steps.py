"""The commands that a finished command proposes: each works as it is printed on the cohort at hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlate.base.errors import BadInput
from voxlate.scans.cases.case import PROTONS
from voxlate.scans.cases.prepared import COHORT, Cohort, open_cohort
from voxlate.scans.layout_options import layout_options, quote_path
from voxlate.synthesis.inputs import scans_to_give
from voxlate.synthesis.synth_options import SynthOptions
from voxlate.training.recipe.run_provenance import splits_of_training
from voxlate.training.training_options import PlanOptions

if TYPE_CHECKING:
    from voxlate.training.batches.data_settings import DataSettings

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
    """The synthesis of held-out cases; by a model that completes cases, of one modality of complete ones.

    Where the scans were drawn from maps, the synthesis of a scan of the user's.
    """
    splits, cohort = splits_of_training([run]), cohort_of(run)
    name = next((name for name in HELD_OUT if splits.get(name)), "")
    split = f" --split {name}" if name else ""
    if cohort is None:
        return f"synth {quote_path(run)} {COHORT}{split} --out OUT"
    wanted = {*data.source}
    present = {entry.case: {*entry.present} for entry in cohort.cases}
    if data.physics is not None and not any(wanted & there for there in present.values()):
        return f"synth {quote_path(run)} {scans_to_give(data, completes)} --out OUT"
    held_out = splits[name] if name else [*present]
    if completes and any(wanted <= present.get(case, set()) for case in held_out):
        first = f" --missing {data.target[0]}"
        return f"synth {quote_path(run)} {cohort.scans}{split}{first} --out OUT"
    return f"synth {quote_path(run)} {cohort.scans}{split} --out OUT"


def after_folds(runs: Sequence[Path]) -> str:
    """The synthesis of each case by those runs of a cross-validation that did not see it."""
    cohort = cohort_of(runs[0])
    scans = COHORT if cohort is None else cohort.scans
    return f"synth {' '.join(map(quote_path, runs))} {scans} --out CV"


def after_synthesis(done: Any, run: str, asked: SynthOptions) -> list[str]:
    """The scores of images (Syntheses) if the scans include the true targets, else their report; then a synthesis of complete cases."""
    if not done.cases:
        return []
    cohort = f"{quote_path(done.inputs[0])}{layout_options(asked.layout)}"
    out = quote_path(done.folder)
    steps = [f"evaluate {out} --truth {cohort}" if done.with_truth else f"report {out}"]
    if done.complete:
        of_split = f" --split {asked.split}" if asked.split else ""
        missing = f" --missing {done.targets[0]} --out NEW"
        steps.append(f"synth {quote_path(Path(run))} {cohort}{of_split}{missing}")
    return steps


def cohort_of(run: Path) -> Cohort | None:
    """The prepared cohort that a run was trained on; None if it does not exist any more, or has changed."""
    from voxlate.training.run import Run  # here, because it imports torch

    try:
        return Run(run).cohort
    except BadInput:
        return None
