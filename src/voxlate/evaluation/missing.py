"""Evaluation of all subsets of missing modalities: their synthesis, their scores, and means by the number missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, combinations
from pathlib import Path
from typing import Literal

from pandas import DataFrame, concat

from voxlate.base.errors import BadInput, DoNotTrust, as_list
from voxlate.base.executors.case_work import NamedProgress
from voxlate.base.executors.workers import choose_executor
from voxlate.base.files import lock, write_json
from voxlate.base.messages import Say
from voxlate.evaluation.evaluation_options import EvaluateOptions
from voxlate.evaluation.scoring.evaluate import check_options, evaluate
from voxlate.evaluation.scoring.scored_regions import check_mask
from voxlate.evaluation.scoring.scores import Scores
from voxlate.synthesis.cohort import Selection, synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.provenance import WITHOUT, check_folder, difference, read_synthesis
from voxlate.synthesis.scans import CaseScans, find_scans
from voxlate.training.load import load

HEAD = ["missing", "modality", "cases"]
METRICS = ("mae", "mae_rel", "psnr", "ssim_2d")  # of the summary; scores.csv has all


@dataclass(frozen=True)
class Scenario:
    """Missing modalities, and the model that synthesises them."""

    missing: tuple[str, ...]
    model: Model

    @property
    def folder(self) -> str:
        """The name of the folder of its images."""
        return WITHOUT + "_".join(self.missing)


@dataclass(frozen=True, eq=False)
class Summary:
    """Scores of each missing modality in each scenario; `scores`: of the scenarios with one missing modality.

    frame: a DataFrame of means with a row for each scenario and modality; incomplete: a sentence for each case without one
    of the true scans; failed: for each case whose synthesis failed, and each scenario (by its folder) without any image.
    """

    scores: Scores
    frame: DataFrame
    incomplete: Mapping[str, str]
    failed: Mapping[str, str]

    def by_number(self) -> DataFrame:
        """Means of all metrics over scenarios and modalities, by the number of missing modalities."""
        number = self.frame["missing"].str.count(r"\+") + 1
        return self.frame.drop(columns=HEAD).groupby(number).mean()

    def table(self) -> str:
        """A line for each scenario and modality, and then for each number of missing modalities."""
        keys = [key for key in METRICS if key in self.frame]
        rows, means = self.frame[[*HEAD, *keys]], self.by_number()[keys]
        shown = (
            rows.to_string(index=False, float_format="{:.4g}".format),
            means.to_string(float_format="{:.4g}".format),
        )
        title = "Mean scores over cases, by missing and by synthesised modality"
        return "\n\n".join([title, *shown])

    def write(self, path: Path) -> None:
        """Write a line for each scenario and modality, the means by number, and why cases are left out, as JSON."""
        scenarios, means = (
            {place: dict(row.dropna()) for place, row in frame.iterrows()}
            for frame in (self.frame, self.by_number())
        )
        by_number = {f"{number}": of for number, of in means.items()}
        document = {"scenarios": [*scenarios.values()], "by_number": by_number}
        write_json(path, {**document, "left_out": {**self.incomplete, **self.failed}})


def scenarios_of(models: Sequence[Model], how: Literal["one", "all"]) -> list[Scenario]:
    """A scenario for each non-empty proper subset of the modalities (how = "one": for each modality), with its model.

    Scenarios with the fewest missing modalities come first. Raises BadInput where no model fits one of them.
    """
    tables = [model.facts.data for model in models]
    names = list(
        dict.fromkeys(chain.from_iterable([*data.source, *data.target] for data in tables))
    )
    sizes = (1,) if how == "one" else range(1, len(names))
    scenarios = []
    for missing in chain.from_iterable(combinations(names, size) for size in sizes):
        model = next((model for model in models if _can_synthesise(model, {*missing})), None)
        if model is None:
            runs = ", ".join(model.origin.name for model in models)
            raise BadInput(
                f"--run: expected a model that makes {' and '.join(missing)} from the others, found none among {runs}. Add its run."
            )
        scenarios.append(Scenario(missing, model))
    return scenarios


def _can_synthesise(model: Model, missing: set[str]) -> bool:
    """Whether the modalities are targets of the model, and no sources unless it completes."""
    data = model.facts.data
    if model.facts.completes:
        return missing < {*data.source}
    return missing <= {*data.target} and not missing & {*data.source}


def score_run(
    cohort: Path,
    out: Path,
    options: EvaluateOptions,
    *,
    progress: NamedProgress,
    say: Say,
) -> Summary:
    """Synthesise and score OUT/without_<modalities>/<case>/<modality>.nii.gz for each scenario, from complete cases.

    The scores of OUT are those of each modality synthesised from all others, in the folders of one missing modality;
    OUT/scenarios.json has a line for each scenario and modality. options: of `evaluate`, whose
    seed is that of the synthesis, too; say: is called once with each message of `synthesise_cases`. Finished images
    are kept, and only cases of the split are scored. Raises BadInput where no case is complete, and where OUT has
    images of another model, whose scores would be lost.
    """
    loaded = [load(run, options.device, options.allow_code) for run in as_list(options.run or ())]
    models = [model.with_options(options.allow_code, **options.keys) for model in loaded]
    scenarios = scenarios_of(models, options.missing or "one")
    _check_images(out, models, options.seed)
    scans_of = _find_cases(models, cohort, options)
    synthesise = partial(
        synthesise_cases,
        progress=progress,
        say=cache(say),
        executor=choose_executor(options, options.device),
        seed=options.seed,
        anyway=options.anyway,
        device=options.device,
    )
    frames = []
    incomplete = dict[str, str]()
    all_failed = dict[str, str]()
    single = dict[str, dict[str, str]]()
    with lock(out):
        for number, scenario in enumerate(scenarios):
            progress("scenarios", number, len(scenarios))
            folder = out / scenario.folder
            scans = _complete_cases(scenario, scans_of[scenario.model.origin], cohort, incomplete)
            cases = [case.case for case in scans]
            try:
                _, failed, _ = synthesise(Selection(scenario.model, scans), folder)
            except DoNotTrust as error:  # of a single case
                failed = {cases[0]: f"{error}"}
            if len(failed) == len(cases):
                refused = next(iter(failed.values()))
                all_failed[scenario.folder] = (
                    f"{scenario.folder}: none of its {len(cases)} cases is synthesised; {refused}"
                )
                continue
            all_failed |= failed
            if len(scenario.missing) > 1:
                scored = evaluate(folder, cohort, options, cases=cases)
                frames.append(_means(scored, scenario.missing))
            else:
                single[scenario.missing[0]] = {case: failed.get(case, "") for case in cases}
        if not single:
            raise DoNotTrust(" ".join(all_failed.values()))
        cases = list(dict.fromkeys(chain.from_iterable(single.values())))
        failed = {
            f"{case}/{name}": why for name, of in single.items() for case, why in of.items() if why
        }
        write_json(out / "provenance.json", {"cases": cases, "failed": failed})
        scores = evaluate(out, cohort, options, cases=cases)
        frame = concat([*(_means(scores, (name,)) for name in single), *frames])
        summary = Summary(scores, frame.reset_index(drop=True), incomplete, all_failed)
        summary.write(out / "scenarios.json")
    progress("scenarios", len(scenarios), len(scenarios))
    return summary


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
    scenario: Scenario, scans: Sequence[CaseScans], cohort: Path, incomplete: dict[str, str]
) -> list[CaseScans]:
    """The cases with all modalities, without the scans that are to be missing.

    incomplete: receives why other cases are left out.
    """
    facts = scenario.model.facts
    names = {*facts.data.source, *scenario.missing}
    # the scans of a translation do not include its targets
    needed = names if facts.completes else names - set(scenario.missing)
    kept = []
    for case in scans:
        lacking = sorted(needed - set(case.files))
        if lacking:
            incomplete[case.case] = (
                f"{case.case}: expected all of {', '.join(sorted(names))}, found no {lacking[0]}."
            )
            continue
        files = {name: path for name, path in case.files.items() if name not in scenario.missing}
        kept.append(replace(case, files=files))
    if not kept:
        raise BadInput(
            f"{cohort}: expected cases that have all of {', '.join(sorted(names))}, to score what is made without one, found none among {len(scans)}. Check the cohort and --split."
        )
    return kept


def _means(scores: Scores, missing: Sequence[str]) -> DataFrame:
    """Means over cases, a row for each missing modality of a scenario."""
    rows = []
    for name in missing:
        table = scores.by_case(name)
        means = table[[key for key in table if key in METRICS or "." in key]].mean().dropna()
        rows.append({"missing": "+".join(missing), "modality": name, "cases": len(table), **means})
    return DataFrame(rows)
