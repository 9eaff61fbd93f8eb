"""The fit of each shipped recipe to a prepared cohort: its rank, or the reason against a training."""

from dataclasses import dataclass
from pathlib import Path

from voxlate.batches.patches import filled_share, padding_note, teaching_cases, usable_cases
from voxlate.batches.windows import check_windows
from voxlate.cases.prepared import Cohort, open_cohort
from voxlate.recipe import Recipe, read
from voxlate.recipe.text import names
from voxlate.system.errors import BadInput


@dataclass(frozen=True)
class Fit:
    """The fit of a shipped recipe to a cohort.

    against: the reason why the recipe cannot be trained on the cohort; notes: sentences on unusual facts; why: the
    reasons for its rank in one line; filled: share of its patches that slices do NOT fill (0 is best); cases: number of
    its training cases; steps: sum over all its stages.
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
        """Sort key: recipes that fit, with filled patches, many cases, many modalities and few steps come first."""
        return (
            bool(self.against),
            round(self.filled, 1),
            -self.cases,
            len(self.unused),
            len(self.notes),
            self.steps,
            self.name,
        )


def fits(data: Path | str) -> list[Fit]:
    """All shipped recipes, sorted from the best fit to those that do not fit.

    No voxel is read, except for recipes with data.physics.
    """
    cohort = open_cohort(data)
    results = [_fit(name, cohort) for name in names()]
    return sorted(results, key=lambda result: result.rank)


def _fit(name: str, cohort: Cohort) -> Fit:
    recipe = read(name)
    try:
        cohort = recipe.drawn_from(cohort)
    except BadInput as error:
        return Fit(name, recipe.title, _reason(str(error)))
    missing = sorted(recipe.modalities - set(cohort.modalities))
    if missing:
        return Fit(name, recipe.title, f"needs {', '.join(missing)}, which the cohort lacks")
    brain_of = cohort.provenance.get("mask_from")
    if not recipe.finds_mask_of(brain_of):
        against = (
            f"needs a mask that is computed from its sources; the cohort's mask is of {brain_of}"
        )
        return Fit(name, recipe.title, against)
    try:
        for stage in recipe.all_stages:
            usable_cases(cohort, stage.data, "train")
        notes = tuple(dict.fromkeys(_notes(recipe, cohort)))
    except BadInput as error:
        return Fit(name, recipe.title, _reason(str(error)))
    training_cases = {
        case for stage in recipe.all_stages for case in teaching_cases(cohort, stage.data)
    }
    empty = max(1 - filled_share(cohort, stage.data) for stage in recipe.all_stages)
    unused = tuple(sorted(set(cohort.modalities) - recipe.modalities))
    steps = sum(stage.train.steps for stage in recipe.all_stages)
    facts = (
        f"patches filled to {1 - empty:.0%}",
        f"{len(training_cases)} of {len(cohort.splits['train'])} training cases",
        f"{', '.join(unused)} not used" if unused else "every modality used",
        f"{steps} steps" if steps else "a length in epochs",
    )
    return Fit(
        name,
        recipe.title,
        notes=notes,
        why="; ".join(facts),
        filled=empty,
        unused=unused,
        cases=len(training_cases),
        steps=steps,
    )


def _reason(sentence: str) -> str:
    """The part of an error that states what was expected and found, without its place and advice."""
    at = sentence.find("expected")
    return sentence[max(at, 0) :].split(". ")[0].removesuffix(".")


def _notes(recipe: Recipe, cohort: Cohort) -> list[str]:
    depth = max(stage.data.patch[0] for stage in recipe.all_stages)
    deepest = max(entry.shape[0] for entry in cohort.cases)
    notes = [padding_note(cohort, stage.data) for stage in recipe.all_stages]
    notes += [
        check_windows(cohort, stage.data, recipe.intensity, not recipe.ignores_outside)
        for stage in recipe.all_stages
    ]
    if depth > deepest:
        notes.insert(
            0,
            f"needs {depth} slices at once, and the cohort's deepest scan has {deepest}",
        )
    return [note for note in notes if note]
