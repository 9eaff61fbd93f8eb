"""Every way in which modalities can be missing: synthesised, scored, and summed up by which and by how many."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from voxlate.errors import BadInput
from voxlate.files import locked, whole_file, write_json
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.provenance import difference, provenance_of, stated_inputs
from voxlate.scoring.tables import Scores
from voxlate.synthesis.calls import no_report
from voxlate.synthesis.cohort import NamedProgress, synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.output_folder import place_from
from voxlate.synthesis.result import check_folder, remove_images, stated_synthesis, write_images
from voxlate.synthesis.scans import Scans, find_scans

HowMany = Literal["one", "all"]
SUMMED = ("mae", "mae_rel", "psnr", "ssim_2d")  # metrics of the summary; metrics.json has all


@dataclass(frozen=True)
class Scenario:
    """Modalities that are missing, and the model that makes them."""

    missing: tuple[str, ...]
    model: Model

    @property
    def folder(self) -> str:
        return "without_" + "_".join(self.missing)


@dataclass(frozen=True)
class ScenarioImages:
    """The folder of a scenario, the cases asked for, and why some of them were not made."""

    place: Path
    cases: tuple[str, ...]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class Summary:
    """Scores of each missing modality in each scenario; `scores`: those of one missing modality at a time.

    incomplete: a sentence for each case that lacks what is to be scored; failed: for each that could not be made.
    """

    scores: Scores
    rows: tuple[Mapping[str, Any], ...]
    incomplete: Mapping[str, str]
    failed: Mapping[str, str]

    def by_number(self) -> dict[int, dict[str, float]]:
        """Mean of each metric over the scenarios and modalities of as many missing ones."""
        numbers = sorted({row["missing"].count("+") + 1 for row in self.rows})
        mine = {n: [row for row in self.rows if row["missing"].count("+") + 1 == n] for n in numbers}
        keys = [key for key in self.rows[0] if key not in ("missing", "modality", "unit", "cases")]
        return {n: {key: float(np.mean([row[key] for row in rows])) for key in keys} for n, rows in mine.items()}

    def table(self) -> Table:
        """A line for each scenario and modality, then for each number of missing ones."""
        shown = Table(title="What is missing, what is made of the rest: means over cases")
        keys = [key for key in self.rows[0] if key in SUMMED]
        for heading in ("missing", "made", "cases", *keys):
            shown.add_column(heading, justify="left" if heading in ("missing", "made") else "right")
        for row in self.rows:
            shown.add_row(row["missing"], row["modality"], str(row["cases"]), *(f"{row[key]:.4g}" for key in keys))
        shown.add_section()
        for number, means in self.by_number().items():
            shown.add_row(f"{number} missing", "all", "", *(f"{means[key]:.4g}" for key in keys))
        return shown


def scenarios_of(models: Sequence[Model], how: HowMany) -> list[Scenario]:
    """The non-empty proper subsets of the modalities (of one: those of one member), each with a model that makes it.

    Fewest missing first. Raises BadInput where no model makes one of them.
    """
    names = list(dict.fromkeys(name for one in models for name in (*one.recipe.data.source, *one.recipe.data.target)))
    sizes = (1,) if how == "one" else range(1, len(names))
    found = []
    for missing in (subset for size in sizes for subset in combinations(names, size)):
        fitting = [one for one in models if _makes(one, missing)]
        if not fitting:
            raise BadInput(
                f"--run: expected a model that makes {' and '.join(missing)} from the others, found none among "
                f"{', '.join(one.origin.name for one in models)}. Add its run."
            )
        found.append(Scenario(missing, fitting[0]))
    return found


def _makes(model: Model, missing: Sequence[str]) -> bool:
    data = model.recipe.data
    if model.recipe.task.completes:
        return set(missing) < set(data.source)
    return set(missing) <= set(data.target) and not set(missing) & set(data.source)


def score_scenarios(
    models: Sequence[Model],
    cohort: Path,
    out: Path,
    how: HowMany = "one",
    *,
    split: str | None = None,
    layout: Mapping[str, Any],
    seed: int = 0,
    progress: NamedProgress = no_report,
    say: Callable[[str], None] = no_report,
    **scoring: Any,
) -> Summary:
    """Make and score OUT/without_<modalities>/<case>/<modality>.nii.gz for each scenario, from cases that have all.

    OUT itself then holds, and has scores of, each modality made from all others: OUT/<case>/<modality>.nii.gz, as
    compare and report read them; OUT/scenarios.json has a line for each scenario and modality. layout: how the cohort
    is found; seed: of the synthesis and of the scores; say: is given the sentences of `synthesise_cases`, each once;
    scoring: options of `evaluate`. Finished images are kept, and only cases of the split are scored, whoever names it.
    Raises BadInput where no case has all, and where OUT has images of another model, whose scores would be lost.
    """
    scenarios, rows = scenarios_of(models, how), list[dict[str, Any]]()
    incomplete, unmade = dict[str, str](), dict[str, str]()
    single, said = dict[str, ScenarioImages](), set[str]()
    _check_own(out, models, seed)
    scoring = {**scoring, **layout, "split": split, "seed": seed}
    scans_of = {model.origin: find_scans([str(cohort)], model, split=split, **layout) for model in models}

    def note(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            say(sentence)

    with locked(out):
        for number, scenario in enumerate(scenarios):
            progress("scenarios", number, len(scenarios))
            place = out / scenario.folder
            scans, lacking = _complete_cases(scenario, scans_of[scenario.model.origin], cohort)
            incomplete |= lacking
            _, failed = synthesise_cases(
                scenario.model, scans, place, seed=seed, progress=progress, warn=note, say=note
            )
            unmade |= failed
            cases = tuple(one.case for one in scans)
            if len(scenario.missing) == 1:
                single[scenario.missing[0]] = ScenarioImages(place, cases, failed)
            else:
                rows += _lines(evaluate(place, cohort, cases=cases, **scoring), scenario)
        alone = evaluate(out, cohort, cases=_gather(single, out), **scoring)
        rows = [line for scenario in scenarios if len(scenario.missing) == 1 for line in _lines(alone, scenario)] + rows
        summary = Summary(alone, tuple(rows), incomplete, unmade)
        numbers = {str(n): means for n, means in summary.by_number().items()}
        write_json(out / "scenarios.json", {"scenarios": rows, "by_number": numbers, "left_out": incomplete | unmade})
    progress("scenarios", len(scenarios), len(scenarios))
    return summary


def _check_own(out: Path, models: Sequence[Model], seed: int) -> None:
    """Raise BadInput where OUT has images that none of these models made, or that synth put there."""
    check_folder(out)
    plans = [model.plan({}, seed) for model in models]
    for path in sorted([*out.glob("*/provenance.json"), *out.glob("without_*/*/provenance.json")]):
        made = stated_synthesis(path)
        if "images" not in made:
            continue
        by_synth = path.parent.parent == out and "made_without" not in made
        if by_synth or ("model" in made and all(made["model"] != plan["model"] for plan in plans)):
            how = difference(made, plans[0]) or "synth made them"
            raise BadInput(
                f"{out}: expected a new folder, or one that this command wrote by the same run, found images of "
                f"another ({path.parent.name}: {how}), whose scores would be lost. Choose another folder."
            )


def _complete_cases(scenario: Scenario, scans: Sequence[Scans], cohort: Path) -> tuple[list[Scans], dict[str, str]]:
    """The cases with all modalities, without those that are to be missing; and why the other cases are left out."""
    data, completes = scenario.model.recipe.data, scenario.model.recipe.task.completes
    names = {*data.source, *scenario.missing}
    kept, left_out = [], {}
    for one in scans:  # a scan of a translation's target is not among them
        if lacking := sorted(names - set(one.files) - set(() if completes else scenario.missing)):
            left_out[one.case] = f"{one.case}: expected all of {', '.join(sorted(names))}, found no {lacking[0]}."
        else:
            files = {name: path for name, path in one.files.items() if name not in scenario.missing}
            kept.append(replace(one, files=files))
    if not kept:
        raise BadInput(
            f"{cohort}: expected cases that have all of {', '.join(sorted(names))}, to score what is made without one, "
            f"found none among {len(scans)}. Check the cohort and --split."
        )
    return kept, left_out


def _gather(made: Mapping[str, ScenarioImages], out: Path) -> list[str]:
    """Put the images of each scenario of one missing modality into OUT/<case>; gives the cases that were asked for."""
    cases = list(dict.fromkeys(case for one in made.values() for case in one.cases))
    failed = dict[str, str]()
    for case in cases:
        places = {name: one.place / case for name, one in made.items() if case in one.cases and case not in one.failed}
        if places:
            _gather_case(places, out / case)
        else:
            remove_images(out / case)
        reasons = {name: one.failed[case] for name, one in made.items() if case in one.failed}
        failed |= {f"{case}/{name}" if places else case: why for name, why in reasons.items()}
    wholes = [_moved(one.place, out) for one in made.values()]
    write_json(out / "provenance.json", {**_shared(wholes), "cases": cases, "failed": failed})
    return cases


def _gather_case(places: Mapping[str, Path], folder: Path) -> None:
    """Copy a case's images of each modality; provenance says once what all share, and what each has of its own."""
    made = {name: _moved(place, folder) for name, place in places.items()}
    images = {image: partial(_copy, places[name] / image) for name, one in made.items() for image in one["images"]}
    shared = _shared(list(made.values()))
    own = {name: {key: value for key, value in one.items() if key not in shared} for name, one in made.items()}
    for one in own.values():
        one.pop("images", None)
    inputs = {name: scan for one in made.values() for name, scan in one["inputs"].items()}
    write_images(folder, images, {**shared, "inputs": inputs, "made_without": own})


def _shared(made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries in which all provenances agree."""
    return {key: value for key, value in made[0].items() if all(key in one and one[key] == value for one in made)}


def _moved(place: Path, folder: Path) -> dict[str, Any]:
    """The provenance of a place, its paths as seen from a folder."""
    mine = provenance_of(place)
    paths = {name: {"path": place_from(path, folder)} for name, path in stated_inputs(mine).items()}
    inputs = {name: {**one, **paths.get(name, {})} for name, one in mine["inputs"].items()}
    return {**mine, "run": place_from(Path(mine["run"]), folder), "inputs": inputs}


def _copy(image: Path, to: Path) -> None:
    with whole_file(to) as temporary:
        shutil.copyfile(image, temporary)


def _lines(scores: Scores, scenario: Scenario) -> Iterator[dict[str, Any]]:
    """A line for each modality of a scenario: means over its cases."""
    for name in scenario.missing:
        mine = [row.scores for row in scores.rows if (row.modality, row.answer) == (name, "synthesis")]
        keys = [key for key in mine[0] if key in SUMMED or "." in key] if mine else []
        means = {key: float(np.nanmean([one.get(key, np.nan) for one in mine])) for key in keys}
        yield {"missing": "+".join(scenario.missing), "modality": name, "cases": len(mine), **means}
