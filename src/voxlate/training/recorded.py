"""The recipe by which a run continues: that of its provenance, with which its recipe.toml must agree."""

import math
from collections.abc import Sequence
from dataclasses import replace

from voxlate.recipe import Recipe, read_with_head, with_trainings
from voxlate.recipe.training import Training
from voxlate.system.errors import BadInput
from voxlate.training.run import Run

# The pace of a planned training may change its steps by these factors.
LEAST, MOST = 0.5, 4.0


def recorded(run: Run, kept: Recipe, paced: bool, allow_code: bool = False) -> tuple[Recipe, str]:
    """The recipe of recipe.toml and its head; kept: that of the provenance; paced: whether its steps were changed.

    They differ if the run was stopped between writing both files: by the steps that the pace of a plan changed, or by
    additional steps in recipe.toml alone. Raises BadInput if they differ in other keys.
    """
    shown, head = read_with_head(str(run.recipe), allow_code=allow_code)
    trainings = [stage.train for stage in kept.all_stages]
    same = len(trainings) == len(shown.all_stages) and with_trainings(shown, trainings) == kept
    if not same or not _same_trainings(
        [stage.train for stage in shown.all_stages], trainings, paced
    ):
        raise BadInput(
            f"{run.recipe}: expected the recipe that this run began with, found an edited one. Restore it, or train the edited recipe into another --out."
        )
    return shown, head


def _same_trainings(shown: Sequence[Training], kept: Sequence[Training], paced: bool) -> bool:
    *earlier, last = shown
    asked = last.more or ()
    before = replace(last, more=asked[:-1] or None) if asked else last
    return _same_lengths(shown, kept, paced) or _same_lengths([*earlier, before], kept, paced)


def _same_lengths(shown: Sequence[Training], kept: Sequence[Training], paced: bool) -> bool:
    """Whether trainings are equal except for steps that a pace may have changed."""
    for own, other in zip(shown, kept):
        if replace(own, steps=other.steps) != other:
            return False
        in_reach = paced and math.floor(LEAST * own.steps) <= other.steps <= MOST * own.steps
        if own.steps != other.steps and not in_reach:
            return False
    return True
