"""Metrics of the user's own: functions of truth, synthesis and mask, each named as "module:function" or given in Python."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import get_args

import numpy as np

from voxlate.base.config import load_object, needs_code
from voxlate.base.errors import BadInput, first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.evaluation.scoring.case_scores import Row
from voxlate.evaluation.scoring.metrics import METRIC_OF, Direction, ImagePair, Score

Function = Callable[..., float]
Description = dict[str, str]
BETTER: tuple[Direction, ...] = get_args(Direction)


def functions_of(given: Sequence[str | Function], allow_code: bool) -> dict[str, Function]:
    """The functions by the keys of their scores; raises BadInput for names without --allow-code, or that are taken."""
    functions = {}
    for one in given:
        if isinstance(one, str):
            if not allow_code:
                raise BadInput(needs_code([one]))
            one = load_object(one)
        key = getattr(one, "__name__", "")
        taken = key in METRIC_OF or key in functions
        if not callable(one) or not key.isidentifier() or taken:
            raise BadInput(
                f"--metrics: expected a function with a name of its own, found {key or one!r}, which is none, or the name of another score. Rename it."
            )
        better = getattr(one, "better", "lower")
        if better not in BETTER:
            raise BadInput(
                f"--metrics {key}: expected its attribute better to be one of {', '.join(BETTER)}, found {better!r}. Change it."
            )
        functions[key] = one
    return functions


def score_by(key: str, function: Function) -> Score:
    """The score of a pair by a user's function of truth, synthesis and mask, each [D, H, W]; raises BadInput where it fails."""

    def score(pair: ImagePair) -> float:
        inside = np.ones(pair.truth.shape, bool) if pair.inside is None else pair.inside
        # copies, because a function may write into its arguments
        copies = (pair.truth.copy(), pair.synthesis.copy(), inside.copy())
        try:
            return float(function(*copies))
        except Exception as error:
            raise BadInput(
                f"--metrics {key}: expected a number from the function, found {type(error).__name__}: {error}. Mend the function."
            ) from error

    return score


def without_value(functions: Collection[str], rows: Iterable[Row]) -> list[Message]:
    """A message on each metric whose score of some image, also in a region or scope, is no finite number."""
    failing = grouped(
        (end, f"{row.method} of {row.case}/{row.modality}")
        for row in rows
        for key, value in row.scores.items()
        if (end := key.rpartition(".")[2]) in functions and not math.isfinite(value)
    )
    return [
        message(
            "not-finite",
            f"--metrics {key} gave no finite number {plural(len(where), 'time')}: {first_of([*dict.fromkeys(where)])}.",
            values=len(where),
        )
        for key, where in failing.items()
    ]


def describe(functions: Mapping[str, Function]) -> dict[str, Description]:
    """What metrics.json states on each: its unit, in which direction it is better, and what it says of itself."""
    return {
        key: {
            "unit": f"{getattr(function, 'unit', '')}",
            "better": getattr(function, "better", "lower"),
            "reduction": (function.__doc__ or "").strip().partition("\n")[0] or "of the user",
        }
        for key, function in functions.items()
    }
