"""Which of the recipes that come with voxlate fit a prepared cohort, and why the others do not."""

from dataclasses import dataclass
from pathlib import Path

from voxlate.data.intensity_checks import check_windows
from voxlate.data.patches import filled_share, padding_note, teaching_cases, usable_cases
from voxlate.data.prepared import Cohort, open_cohort
from voxlate.errors import BadInput
from voxlate.recipe import Recipe, read
from voxlate.recipe.text import names


@dataclass(frozen=True)
class Fit:
    """A shipped recipe and a cohort: `against` says why it cannot be trained on it; `notes`, what is not as usual.

    why: what its rank rests on, in a line. filled: the share of its patches that the cohort's slices do not fill;
    cases: training cases that it learns from; steps: of all its stages.
    """

    name: str
    title: str
    against: str = ""
    notes: tuple[str, ...] = ()
    why: str = ""
    filled: float = 0.0
    unused: tuple[str, ...] = ()
    cases: int = 0
    steps: int = 0

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts recipes: what fits, fills its patches, takes the most cases and modalities, and is soonest trained."""
        empty = round(self.filled, 1)
        return bool(self.against), empty, -self.cases, len(self.unused), len(self.notes), self.steps, self.name


def fits(data: Path | str) -> list[Fit]:
    """Every shipped recipe, the one that fits best first, those that do not fit last; no voxel is read."""
    cohort = open_cohort(data)
    found = [_fit(name, cohort) for name in names()]
    return sorted(found, key=lambda one: one.rank)


def _fit(name: str, cohort: Cohort) -> Fit:
    recipe = read(name)
    if missing := sorted(recipe.modalities - set(cohort.modalities)):
        return Fit(name, recipe.title, f"needs {', '.join(missing)}, which the cohort lacks")
    if not recipe.finds_mask_of(brain_of := cohort.provenance.get("mask_from")):
        return Fit(name, recipe.title, f"works in a mask found in its sources; the cohort's is of {brain_of}")
    try:
        for stage in recipe.all_stages:
            usable_cases(cohort, stage.data, "train")
            headers = [cohort.header(case) for case in teaching_cases(cohort, stage.data)]
            maps = {one: recipe.intensity[one] for one in sorted({*stage.data.source, *stage.data.target})}
            check_windows(headers, maps, cohort.folder, bodies=not recipe.ignores_outside)
    except BadInput as error:
        return Fit(name, recipe.title, _reason(str(error)))
    notes = tuple(dict.fromkeys(_notes(recipe, cohort)))
    taught = {case for stage in recipe.all_stages for case in teaching_cases(cohort, stage.data)}
    filled = max(1 - filled_share(cohort, stage.data) for stage in recipe.all_stages)
    unused = tuple(sorted(set(cohort.modalities) - recipe.modalities))
    steps = sum(stage.train.steps for stage in recipe.all_stages)
    facts = (
        f"patches filled to {1 - filled:.0%}",
        f"{len(taught)} of {len(cohort.splits['train'])} training cases",
        f"{', '.join(unused)} not used" if unused else "every modality used",
        f"{steps} steps" if steps else "a length in epochs",
    )
    return Fit(name, recipe.title, "", notes, "; ".join(facts), filled, unused, len(taught), steps)


def _reason(sentence: str) -> str:
    """An error without its place and its advice: what was expected and found."""
    at = sentence.find("expected")
    return sentence[max(at, 0) :].split(". ")[0].removesuffix(".")


def _notes(recipe: Recipe, cohort: Cohort) -> list[str]:
    depth, deepest = max(stage.data.patch[0] for stage in recipe.all_stages), max(one.shape[0] for one in cohort.cases)
    thin = f"learns from {depth} slices at once, and the cohort's deepest scan has {deepest}" if depth > deepest else ""
    said = [thin, *(padding_note(cohort, stage.data) for stage in recipe.all_stages)]
    return [one for one in said if one]
