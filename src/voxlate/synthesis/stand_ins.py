"""Images that a model synthesises of a cohort's scans, to which scans of the synthesised modality are registered.

A synthesised CT and a true one are one modality, so registration, and the audit of the alignment, find more in common
than between MR and CT.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from voxlate.data.audit import THROUGH
from voxlate.data.find import find_cohort
from voxlate.data.options import PrepareOptions
from voxlate.data.prepare import prepare
from voxlate.data.prepared import Cohort, stated
from voxlate.errors import BadInput
from voxlate.executors.options import HERE, ExecutorOptions
from voxlate.synthesis.calls import no_report
from voxlate.synthesis.cohort import NamedProgress, synthesise_cases
from voxlate.synthesis.ensemble import Ensemble, load_members
from voxlate.synthesis.model import Model
from voxlate.synthesis.options import SynthOptions
from voxlate.synthesis.selection import select


def prepare_through(
    run: Path | str,
    cohort: Path,
    out: Path,
    options: PrepareOptions,
    *,
    by: ExecutorOptions = HERE,
    device: str = "auto",
    progress: NamedProgress = no_report,
    say: Callable[[str], None] = no_report,
) -> Cohort:
    """Prepare a cohort whose scans of the run's targets are registered to the run's synthesis of the fixed scan.

    The audit compares them with the same images; without a method of registration they are only compared. The images
    are kept in OUT/through. by: the workers of the synthesis and of the preparation. Raises BadInput without registration and audit, where the run has several sources, and
    where the fixed scan is not its source; see data.prepare.prepare.
    """
    if options.register is None and not options.audit:
        raise BadInput(
            "--through: expected a registration or an audit that uses the synthesised images, found neither. Add --register smooth, or drop --no-audit."
        )
    model = load_members([run], device, False, None)
    fixed = options.fixed or _fixed_scan(cohort, options, model)
    if fixed not in _accepted(model):
        raise BadInput(
            f"--through: expected --fixed {_accepted(model)[0]}, the source of '{model.recipe.title}', found {fixed}. Change --fixed."
        )
    _check_targets(model, cohort, options)
    if (out / "cohort.json").is_file() and stated(out).get("made", {}).get("through") != str(run):
        raise BadInput(
            f"{out}: expected a new folder, or a cohort that was prepared --through {run}, found another one. Choose another --out."
        )
    selected = select(
        model, [str(cohort)], SynthOptions(**options.layout, intervals=False, device=device)
    )
    _, failed = synthesise_cases(
        selected.model,
        selected.scans,
        out / THROUGH,
        seed=0,
        lacking=selected.lacking,
        progress=progress,
        say=say,
        executor=None if by.executor is None else by.chosen(device, say),
        device=device,
    )
    used = "compared with" if options.register is None else "registered to"
    for case, why in {**selected.lacking, **failed}.items():
        say(f"{case} is {used} its own {fixed}, because it has no synthesis: {why}")
    return prepare(
        cohort,
        out,
        **by.of_preparation,
        progress=lambda done, total, _: progress("prepare", done, total),
        say=say,
        stand_ins=out / THROUGH,
        through=str(run),
        **vars(replace(options, fixed=fixed)),
    )


def _check_targets(model: Model | Ensemble, cohort: Path, options: PrepareOptions) -> None:
    """Raise BadInput if the cohort has no scan of a modality that the run synthesises."""
    cases = find_cohort(cohort, modalities=options.modalities, **options.layout).cases
    modalities = {name for case in cases for name in case.files}
    targets = model.recipe.data.target
    if not modalities & set(targets):
        raise BadInput(
            f"--through: expected scans of {' or '.join(targets)}, which '{model.recipe.title}' synthesises, found {', '.join(sorted(modalities))}. Choose another run."
        )


def _accepted(model: Model | Ensemble) -> list[str]:
    """The names of the scans that the run takes as its source; raises BadInput if it has several sources."""
    (source, *others) = model.recipe.data.source
    if others:
        raise BadInput(
            f"--through: expected a run with one source, found {source} and {', '.join(others)} in '{model.recipe.title}'. Choose another run."
        )
    return [source, *model.aliases.get(source, ())]


def _fixed_scan(cohort: Path, options: PrepareOptions, model: Model | Ensemble) -> str:
    """The first scan that the run takes and every case has."""
    names = _accepted(model)
    cases = find_cohort(cohort, modalities=options.modalities, **options.layout).cases
    for name in names:
        if all(name in case.files for case in cases):
            return name
    raise BadInput(
        f"--through: expected a scan in all cases that the run takes ({', '.join(names)}), found none. Leave cases out (--exclude)."
    )
