"""Evaluation of runs: each modality is synthesised from all others of complete cases, and scored."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path

from voxlate.base.errors import BadInput, DoNotTrust, as_list
from voxlate.base.executors.case_work import NamedProgress
from voxlate.base.executors.workers import choose_executor
from voxlate.base.files import lock, write_json
from voxlate.base.messages import Say, message
from voxlate.evaluation.evaluation_options import EvaluateOptions
from voxlate.evaluation.scoring.evaluate import check_options, evaluate
from voxlate.evaluation.scoring.scored_regions import check_mask
from voxlate.evaluation.scoring.scores import Scores
from voxlate.synthesis.cohort import Selection, synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.provenance import WITHOUT, check_folder, difference, read_synthesis
from voxlate.synthesis.scans import CaseScans, find_scans
from voxlate.training.load import load


def score_run(
    cohort: Path,
    out: Path,
    options: EvaluateOptions,
    *,
    progress: NamedProgress,
    say: Say,
) -> Scores:
    """Synthesise and score OUT/without_<modality>/<case>/<modality>.nii.gz for each modality, from complete cases.

    options: of `evaluate`, whose seed is that of the synthesis, too; say: is called once with each message, such as one on
    a case that lacks a true scan. Finished images are kept, and only cases of the split are scored. Raises BadInput where no
    case is complete, and where OUT has images of another model, whose scores would be lost.
    """
    loaded = [load(run, options.device, options.allow_code) for run in as_list(options.run or ())]
    models = [model.with_options(options.allow_code, **options.keys) for model in loaded]
    model_of = _model_of_each_modality(models)
    _check_images(out, models, options.seed)
    scans_of = _find_cases(models, cohort, options)
    say = cache(say)
    failed = dict[str, str]()
    wanted = dict[str, None]()
    is_made = False
    with lock(out):
        for number, (name, model) in enumerate(model_of.items()):
            progress("scenarios", number, len(model_of))
            scans = _complete_cases(name, model, scans_of[model.origin], cohort, say)
            cases = [case.case for case in scans]
            try:
                _, refused, _ = synthesise_cases(
                    Selection(model, scans),
                    out / f"{WITHOUT}{name}",
                    progress=progress,
                    say=say,
                    executor=choose_executor(options, options.device),
                    seed=options.seed,
                    anyway=options.anyway,
                    device=options.device,
                )
            except DoNotTrust as error:  # of a single case
                refused = {cases[0]: f"{error}"}
            wanted |= dict.fromkeys(cases)
            failed |= {f"{case}/{name}": why for case, why in refused.items()}
            is_made = is_made or len(refused) < len(cases)
        if not is_made:
            raise DoNotTrust(" ".join(failed.values()))
        write_json(out / "provenance.json", {"cases": [*wanted], "failed": failed})
        scores = evaluate(out, cohort, options, cases=wanted)
    progress("scenarios", len(model_of), len(model_of))
    return scores


def _model_of_each_modality(models: Sequence[Model]) -> dict[str, Model]:
    """The first model that synthesises each modality from the others; raises BadInput for a modality without one."""
    tables = [model.facts.data for model in models]
    names = dict.fromkeys(chain.from_iterable([*data.source, *data.target] for data in tables))
    model_of = {}
    for name in names:
        able = [model for model in models if _can_synthesise(model, name)]
        if not able:
            runs = ", ".join(model.origin.name for model in models)
            raise BadInput(
                f"--run: expected a model that makes {name} from the others, found none among {runs}. Add its run."
            )
        model_of[name] = able[0]
    return model_of


def _can_synthesise(model: Model, name: str) -> bool:
    """Whether a modality is a target of the model, and no source unless it completes."""
    data = model.facts.data
    if model.facts.completes:
        return name in data.source
    return name in data.target and name not in data.source


def _find_cases(
    models: Sequence[Model], cohort: Path, options: EvaluateOptions
) -> dict[Path, list[CaseScans]]:
    """The cases for each model; a rule or mask that names nothing is refused before hours of synthesis."""
    check_options(options)
    where = {"split": options.split, **options.layout}
    scans_of = {model.origin: find_scans([str(cohort)], model, **where) for model in models}
    for scans in scans_of.values():
        check_mask(options.mask, scans[0].case)
    return scans_of


def _check_images(out: Path, models: Sequence[Model], seed: int) -> None:
    """Raise BadInput where OUT has images of other models, or images that synth wrote there."""
    check_folder(out)
    plans = [model.plan({}, seed) for model in models]
    for path in sorted(
        [*out.glob("*/provenance.json"), *out.glob(f"{WITHOUT}*/*/provenance.json")]
    ):
        synthesis = read_synthesis(path)
        if "images" not in synthesis:
            continue
        if path.parent.parent == out:
            how = "synth made them"
        elif any(synthesis.get("model") == plan["model"] for plan in plans):
            continue
        else:
            how = difference(synthesis, plans[0])
        raise BadInput(
            f"{out}: expected a new folder, or one that this command wrote by the same run, found images of another ({path.parent.name}: {how}), whose scores would be lost. Choose another folder."
        )


def _complete_cases(
    name: str, model: Model, scans: Sequence[CaseScans], cohort: Path, say: Say
) -> list[CaseScans]:
    """The cases with all modalities, without the scan of the modality `name`; say: is called with a message on each other case."""
    sources = {*model.facts.data.source}
    # the scans of a translation do not include its targets
    needed = sources if model.facts.completes else sources - {name}
    kept = []
    for case in scans:
        if lacking := sorted(needed - case.files.keys()):
            text = f"left out {case.case}: expected all of {', '.join(sorted(sources | {name}))}, found no {lacking[0]}."
            say(message("case-left-out", text))
            continue
        files = {source: path for source, path in case.files.items() if source != name}
        kept.append(replace(case, files=files))
    if not kept:
        raise BadInput(
            f"{cohort}: expected cases that have all of {', '.join(sorted(sources | {name}))}, to score what is made without one, found none among {len(scans)}. Check the cohort and --split."
        )
    return kept
