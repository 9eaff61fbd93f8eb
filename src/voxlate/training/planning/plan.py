"""A plan: a whole recipe for a cohort, with the reason for each choice and the predicted cost; and the run that keeps it."""

import re
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from voxlate.base.files import write_text
from voxlate.training.planning.probe import Limits
from voxlate.training.planning.rules import Tables
from voxlate.training.recipe import Recipe, from_dict, header, stated_keys
from voxlate.training.recipe.run_provenance import Budgets
from voxlate.training.recipe.text import apply_changes, as_toml

# After changes of these keys, steps were set by hand, or a step takes another time than the probed one.
DECIDES_LENGTH = r"train$|train\.(steps|epochs|stop|ema|optimiser)|opponent|task|method"

COLUMNS = ("setting", "value", "reason", "key")
SETTINGS = {
    "data.allow_missing": "cases with gaps",
    "data.augment": "augmentation",
    "data.foreground": "least body of a slice",
    "data.frame": "frame of the body",
    "data.patch": "patch",
    "data.planes": "planes",
    "data.source": "sources, targets",
    "data.stack": "neighbouring slices",
    "method": "method and loss",
    "minutes": "time",
    "net": "network",
    "net.border": "border",
    "net.width": "width, batch, steps",
    "start_from": "initial weights",
    "synth.gradient_ratio": "sharpness",
    "synth.peaks": "bright end",
    "synth.slices": "slices in synthesis",
    "synth.steps": "steps of the sampler",
    "train.ema": "average of weights",
    "train.keep_start": "kept share of the starter",
    "train.optimiser.kind": "optimiser",
    "train.optimiser.lr": "learning rate",
    "train.precision": "precision",
    "train.steps": "steps",
}
"""The settings of plans in words, by the keys of their reasons."""
OPTIONS = {
    "by hand": "",
    "data.source": "--source, --target",
    "minutes": "--minutes",
    "net.width": "net.width, net.patch, train.batch",
    "stages": "--mode",
    "start_from": "--from-scratch",
    "starter": "--from-scratch",
}
"""What overrides a setting where it is not the key itself."""


@dataclass(frozen=True)
class Plan:
    """A recipe for a cohort with the reason for each of its keys, and its predicted cost, as `voxlate.plan` returns it.

    Args:
        tables: the recipe as plain tables.
        why: the reason of each key.
        seconds: predicted time of the training.
        memory: predicted memory of the training, in bytes.
        limits: minutes and bytes that were asked for.
        where: the cohort and the machine, in words.
        budgets: what the plan gives each stage, none if a length was set by hand.
        allow_code: import the code outside voxlate that changes of the recipe name.
        state: of the first stage's training after a race, from which it goes on.

    Example:
        >>> import voxlate
        >>> from voxlate.training.planning.plan import Plan
        >>> from voxlate.training.planning.probe import Limits
        >>> tables = voxlate.recipes("t1_to_t2_brain")
        >>> del tables["name"]
        >>> why = {"train.steps": "by hand"}
        >>> plan = Plan(tables, why, 600, 4e9, Limits(10, 8e9), "PREPARED")
        >>> plan.change({"train.steps": 500}).recipe.train.steps
        500
    """

    tables: Tables
    why: Mapping[str, str]
    seconds: float
    memory: float
    limits: Limits
    where: str
    budgets: Budgets = field(default_factory=dict)
    allow_code: bool = False
    state: Mapping[str, Any] | None = None

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
        if not changes:
            return replace(self, allow_code=allow_code or self.allow_code)
        why = dict(self.why)
        why |= dict.fromkeys((key for key in why if _concerns(key, changes)), "set by hand")
        listed = ", ".join(changes)
        why["by hand"] = f"{listed}: the other reasons and the prediction do not consider this"
        fixes_length = any(re.search(DECIDES_LENGTH, key) for key in changes)
        return replace(
            self,
            tables=apply_changes(self.tables, changes),
            why=why,
            budgets={} if fixes_length else self.budgets,
            state=None,
            allow_code=allow_code or self.allow_code,
        )

    def save(self, path: Path | str) -> None:
        """Write the recipe."""
        write_text(path, self.text)

    def _repr_html_(self) -> str:
        import pandas  # slow to import, and needed by no training

        return str(pandas.DataFrame(self.rows).to_html(index=False))

    @property
    def rows(self) -> list[dict[str, str]]:
        """The settings of the plan: each with its value, its reason, and what overrides it (see COLUMNS)."""
        rows = []
        for key, reason in self.why.items():
            # Keys of a stage and of a modality: "stages.regression.method", "intensity.t1".
            stage = re.match(r"stages\.(\w+)\.", key)
            plain = key.removeprefix(stage[0]) if stage else key
            table, _, name = plain.partition(".")
            words = f"intensity map, {name}" if table == "intensity" else SETTINGS.get(plain, plain)
            setting = f"{words} ({stage[1]})" if stage else words
            cells = (setting, _shown(_value(self.tables, key)), reason, OPTIONS.get(key, key))
            rows.append(dict(zip(COLUMNS, cells)))
        return rows

    def table(self, keys: Collection[str] | None = None) -> Table:
        """The plan as a table, where a key that overrides a setting follows it. keys: of its rows, by default all.

        Without `keys` the table also has the values.
        """
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        # Keys and commands are copied, so they are never cut.
        table.add_column("setting, and its key", no_wrap=True)
        names = ("value", "reason") if keys is None else ("reason",)
        for name in names:
            table.add_column(name, overflow="fold")
        for key, row in zip(self.why, self.rows):
            if keys is None or key in keys:
                options = row["key"].replace(", ", "\n")
                setting = Text.assemble(row["setting"], "\n", (options, "cyan"))
                table.add_row(setting, *(Text(row[name]) for name in names))
        return table

    @property
    def sentence(self) -> str:
        """What the training will do."""
        task = self.tables["title"].replace(", planned", "")
        start = self.recipe.all_stages[0].start_from or "random weights"
        return f"This trains {task}, in {self.limits.minutes:g} min, from {start}."

    @property
    def prediction(self) -> str:
        """A sentence on the predicted minutes and memory, with their limits."""
        return f"Predicted by a probe on this machine: {self.seconds / 60:.1f} of {self.limits.minutes:g} min, {self.memory / 2**30:.2f} of {self.limits.memory_bytes / 2**30:.1f} GiB."

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
    return "" if isinstance(tables, list) and key == "stages" else tables


def _shown(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
