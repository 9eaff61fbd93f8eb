"""A plan: a whole recipe for a cohort, with the reason for each choice and the predicted cost; and the run that keeps it."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from voxlate.base.files import write_text
from voxlate.training.planning.rules import Tables
from voxlate.training.recipe import Recipe, from_dict, header, stated_keys
from voxlate.training.recipe.run_provenance import Budgets
from voxlate.training.recipe.text import apply_changes, as_toml

# After changes of these keys, steps were set by hand, or a step takes another time than the probed one.
DECIDES_LENGTH = r"train$|train\.(steps|epochs|stop|ema|optimiser)|opponent|task|method"
ENDS_EARLY = 0.8  # share of the minutes; below, a plan states why it ends before them


@dataclass(frozen=True)
class Plan:
    """A recipe for a cohort with the reason for each of its keys, and its predicted cost, as `voxlate.plan` returns it.

    Args:
        tables: the recipe as plain tables.
        why: the reason for each key that a fact decides; an option such as --mode in place of a key that it decides.
        seconds: predicted time of the training.
        memory: predicted memory of the training, in bytes.
        minutes: time that was asked for.
        where: the cohort and the machine, in words.
        budgets: what the plan gives each stage, none if a length was set by hand or a speed was stated.
        allow_code: import the code outside voxlate that changes of the recipe name.
        speed: the stated speed of steps in GFLOP/s, None if they were timed.

    Example:
        >>> import voxlate
        >>> from voxlate.training.planning.plan import Plan
        >>> tables = voxlate.recipes("t1_to_t2_brain")
        >>> del tables["name"]
        >>> plan = Plan(tables, {"train.steps": "by hand"}, 600, 4e9, 10, "PREPARED")
        >>> plan.change({"train.steps": 500}).recipe.train.steps
        500
    """

    tables: Tables
    why: Mapping[str, str]
    seconds: float
    memory: float
    minutes: float
    where: str
    budgets: Budgets = field(default_factory=dict)
    allow_code: bool = False
    speed: float | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe; raises BadInput where a change makes it invalid."""
        return from_dict(self.tables, "the plan", self.allow_code)

    @property
    def with_head(self) -> tuple[Recipe, str]:
        """The recipe and its reasons as comment lines."""
        return self.recipe, header(self.text)

    def change(self, changes: Mapping[str, Any], allow_code: bool = False) -> "Plan":
        """The plan with changes of its recipe's keys, such as {"train.steps": "500"}.

        allow_code: import the code outside voxlate that they name.
        """
        changed = replace(self, allow_code=allow_code or self.allow_code)
        if not changes:
            return changed
        why = {key: reason for key, reason in self.why.items() if not _concerns(key, changes)}
        listed = ", ".join(changes)
        why["--set"] = f"{listed}: the other reasons and the prediction do not consider this"
        fixes_length = any(re.search(DECIDES_LENGTH, key) for key in changes)
        tables = apply_changes(self.tables, changes)
        return replace(
            changed, tables=tables, why=why, budgets={} if fixes_length else self.budgets
        )

    def save(self, path: Path | str) -> None:
        """Write the recipe."""
        write_text(path, self.text)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The key of each setting that a fact decides, or its option, with its value and its reason."""
        return [
            {"key": key, "value": _shown(_value(self.tables, key)), "reason": reason}
            for key, reason in self.why.items()
        ]

    def table(self) -> Table:
        """The plan as a table."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        # Keys are copied, so they are never cut.
        table.add_column("key", no_wrap=True)
        table.add_column("value", overflow="fold")
        table.add_column("reason", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row.values()))
        return table

    @property
    def sentence(self) -> str:
        """What the training will do, for how long, and what is to be expected of too few minutes."""
        task = self.tables["title"].replace(", planned", "")
        start = self.recipe.all_stages[0].start_from or "random weights"
        length, limit = f"{self.minutes:g} min", self.why.get("--minutes")
        if self.seconds < ENDS_EARLY * 60 * self.minutes:
            length = f"{self.seconds / 60:.1f} of {length}, because more steps are predicted to gain nothing on so few patients"
        found = f"This trains {task}, in {length}, from {start}."
        return f"{found} Only {limit}." if limit else found

    @property
    def prediction(self) -> str:
        """A sentence on the predicted minutes and memory."""
        if self.speed is not None:
            return f"Predicted by the stated speed, {self.speed:g} GFLOP/s: {self.seconds / 60:.1f} of {self.minutes:g} min. This machine may take another time."
        return f"Predicted by a probe on this machine: {self.seconds / 60:.1f} of {self.minutes:g} min, {self.memory / 2**30:.2f} GiB."

    @property
    def text(self) -> str:
        """The recipe as TOML, with its reasons as comments at its head."""
        head = [
            f"Planned by voxlate from {self.where}. This is an ordinary recipe, which may be edited."
        ]
        head += [f"{key}: {reason}." for key, reason in self.why.items()]
        head.append(self.prediction)
        comments: list[str] = []
        for line in head:
            comments += textwrap.wrap(line, 128, initial_indent="# ", subsequent_indent="#   ")
        return "\n".join(comments) + "\n" + as_toml(stated_keys(self.recipe))


def _concerns(key: str, changes: Mapping[str, Any]) -> bool:
    """Whether a change concerns this key, a part of it, or a table that contains it."""
    pairs = ((f"{key}.", f"{change}.") for change in changes)
    return any(a.startswith(b) or b.startswith(a) for a, b in pairs)


def _value(tables: Any, key: str) -> Any:
    """What a plan's tables state at a key; "" if it is no key of theirs."""
    for part in key.split("."):
        if isinstance(tables, list):
            tables = {stage["name"]: stage for stage in tables}
        tables = tables.get(part, "") if isinstance(tables, dict) else ""
    return tables


def _shown(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
