"""Which of the recipes that come with voxlate fit a prepared cohort, and why the others do not."""

from dataclasses import dataclass
from pathlib import Path

from voxlate.data.familiar import check_windows
from voxlate.data.patches import padding_note, teaching_cases, usable_cases
from voxlate.data.prepared import Cohort, open_cohort
from voxlate.errors import BadInput
from voxlate.recipe import Recipe, read
from voxlate.shipped_recipes.text import names


@dataclass(frozen=True)
class Fit:
    """A shipped recipe and a cohort: `against` says why it cannot be trained on it; `notes`, what is not as usual."""

    name: str
    title: str
    against: str = ""
    notes: tuple[str, ...] = ()


def fits(data: Path | str) -> list[Fit]:
    """Every shipped recipe, those that fit first; no voxel is read."""
    cohort = open_cohort(data)
    found = [_fit(name, cohort) for name in names()]
    return sorted(found, key=lambda one: (bool(one.against), len(one.notes), one.name))


def _fit(name: str, cohort: Cohort) -> Fit:
    recipe = read(name)
    if missing := sorted(recipe.modalities - set(cohort.modalities)):
        return Fit(name, recipe.title, f"needs {', '.join(missing)}, which the cohort lacks")
    if not recipe.finds_mask_of(brain_of := cohort.made.get("mask_from")):
        return Fit(name, recipe.title, f"works in a mask found in its sources; the cohort's is of {brain_of}")
    try:
        for stage in recipe.all_stages:
            usable_cases(cohort, stage.data, "train")
            headers = [cohort.header(case) for case in teaching_cases(cohort, stage.data)]
            maps = {one: recipe.intensity[one] for one in sorted({*stage.data.source, *stage.data.target})}
            check_windows(headers, maps, cohort.folder, bodies=not recipe.ignores_outside)
    except BadInput as error:
        return Fit(name, recipe.title, _reason(str(error)))
    return Fit(name, recipe.title, notes=tuple(dict.fromkeys(_notes(recipe, cohort))))


def _reason(sentence: str) -> str:
    """An error without its place and its advice: what was expected and found."""
    at = sentence.find("expected")
    return sentence[max(at, 0) :].split(". ")[0].removesuffix(".")


def _notes(recipe: Recipe, cohort: Cohort) -> list[str]:
    depth, deepest = max(stage.data.patch[0] for stage in recipe.all_stages), max(one.shape[0] for one in cohort.cases)
    thin = f"learns from {depth} slices at once, and the cohort's deepest scan has {deepest}" if depth > deepest else ""
    said = [thin, *(padding_note(cohort, stage.data) for stage in recipe.all_stages)]
    return [one for one in said if one]
