"""The error of the weights from which a planned training starts, on the cohort's validation cases, before any step."""

from voxlate.cases.prepared import Cohort
from voxlate.planning.rules import Tables
from voxlate.recipe import from_dict
from voxlate.scoring.verdict import Verdict
from voxlate.system.devices import find_device
from voxlate.training.item_baselines import begin_errors, verdicts_on
from voxlate.training.precision import with_precision
from voxlate.training.train import initial_method
from voxlate.training.validate import validate, validation_items

ITEMS = 16  # validation items, of which the starters take a few seconds on one core


def measure_start(tables: Tables, cohort: Cohort, device: str) -> list[Verdict]:
    """The verdict on each target of a plan by its first weights; none without validation cases.

    tables: of a plan of one stage.
    """
    if not cohort.splits["val"]:
        return []
    place = find_device(device)
    train = {**tables["train"], "validation_items": ITEMS}
    recipe = with_precision(from_dict({**tables, "train": train}, "the plan"), place)
    stage = recipe.all_stages[0]
    method, _ = initial_method(stage, {})
    errors = begin_errors(recipe, stage, cohort)
    items = validation_items(recipe, stage, cohort)
    validate(method.to(place).eval(), items, recipe, stage, place, measure=errors.add)
    return verdicts_on(errors, stage, cohort)
