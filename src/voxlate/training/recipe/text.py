"""Recipes as text: those that come with the package, their bases, their heads, and changes from the command line."""

import copy
import functools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, did_you_mean, known_name
from voxlate.base.files import ANY, without_retired
from voxlate.base.option import UNSET, toml_value

Values = dict[str, Any]  # plain tables of a recipe

SHIPPED = resources.files("voxlate.training.recipe") / "shipped"
SMALL = "_small"  # ends the name of the small variant of a recipe
ALL = "all"  # in place of a paper's name: every recipe
# Keys of a recipe's file that describe it and set nothing: the paper that it belongs to, and whether it is one to start
# from. A recipe does not have those of its base.
DESCRIBING = ("paper", "start")
# Keys that this version lacks: the value with which each changes no image (see without_retired).
RETIRED = {
    "data.any_source": [],
    "data.augment.flip_si": 0.0,
    "data.augment.intensity_share": 1.0,
    "data.augment.spatial_share": 1.0,
    "data.augment.tilt_degrees": 0.0,
    "data.physics.contrasts.*.transfer": [0.3, 0.3],
    "data.physics.defaced": 0.0,
    "data.physics.motion_mm": 1.5,
    "data.physics.ringing": 0.5,
    "data.physics.target": "centre",
    "method.times.high": 1.0,
    "net.depth_halvings": 0,
    "net.kernel": "1x3x3",
    "synth.contrast": {},
    "synth.temperature": 1.0,
    "task.detach": False,
    "task.predictor_steady": False,
    "train.accumulate": 1,
    "train.paced": ANY,
}


@functools.cache
def names() -> tuple[str, ...]:
    """Names of the shipped recipes, sorted."""
    files = [Path(file.name) for file in SHIPPED.iterdir()]
    return tuple(sorted(file.stem for file in files if file.suffix == ".toml"))


def text_of(name: str) -> str:
    """The TOML text of a shipped recipe (by name) or of a file; raises BadInput where there is neither."""
    if name in names():
        return (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
    path = Path(name)
    if not path.is_file():
        hint = did_you_mean(path.name.removesuffix(".toml"), names(), most=4)
        raise BadInput(
            f"{name}: expected a recipe file or the name of one that comes with voxlate, found neither. {hint or 'See voxlate recipes, or begin with phantom_t1_to_ct.'}"
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{name}: expected a TOML text, found bytes that are no text. Check the path."
        ) from error


def papers() -> list[str]:
    """The papers whose recipes come with the package, and "all"."""
    stated = {_stated(name).get("paper", "") for name in names()}
    return [*sorted(stated - {""}), ALL]


def table_of_recipes(paper: str | None = None) -> list[Values]:
    """Name, title, paper, source and target of the shipped recipes to start from, or of those of a paper ("all": of all).

    Raises BadInput for an unknown paper.
    """
    if paper is not None:
        known_name("--paper", "a paper with recipes", paper, papers())
    rows = []
    for name in names():
        stated = _stated(name)
        own = stated.get("paper", "")
        is_listed = stated.get("start", False) if paper is None else paper in (ALL, own)
        if is_listed:
            values = values_of(name)
            sides = {side: values["data"][side] for side in ("source", "target")}
            rows.append({"name": name, "title": values["title"], "paper": own, **sides})
    return rows


def head_of(name: str) -> str:
    """The comment lines at the head of a recipe."""
    return header(text_of(name))


def header(text: str) -> str:
    """The comment lines at the head of a text: what it reproduces, the command, the number to expect."""
    return re.match(r"(?:#[^\n]*\n)*", text)[0]  # type: ignore[index]


def values_of(recipe: str | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Values:
    """The tables of a recipe by shipped name, path or tables, over those of its base, with `changes` as in `apply_changes`."""
    values = _values(recipe) if isinstance(recipe, str) else _over_base(recipe, "the recipe")
    return apply_changes(values, changes or {})


def apply_changes(values: Values, changes: Mapping[str, Any]) -> Values:
    """Tables with `changes` such as {'train.steps': '500'}, values as in TOML; what is given stays as it is."""
    values = copy.deepcopy(values)
    for key, value in changes.items():
        _change(values, key, value)
    return values


def as_toml(values: Values) -> str:
    """Tables as TOML, with each list of plain values on a line."""
    import tomli_w  # here, because an installation for synthesis writes no recipe

    return re.sub(r"\[\n((?: +[^\[\]\n]*,\n)+) *\]", _on_a_line, tomli_w.dumps(values))


def _on_a_line(match: re.Match[str]) -> str:
    values = [line.strip().removesuffix(",") for line in match.group(1).splitlines()]
    return f"[{', '.join(values)}]"


def _values(name: str, before: tuple[str, ...] = ()) -> Values:
    """The tables of a recipe, over those of its base."""
    if name in before:
        raise BadInput(
            f"{name}: expected bases that end, found {' → '.join((*before, name))}. Change base."
        )
    stated = _stated(name)
    for key in DESCRIBING:
        stated.pop(key, None)
    return _over_base(stated, name, before)


def _stated(name: str) -> Values:
    """The tables in the file of a recipe."""
    try:
        return tomllib.loads(text_of(name))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{name}: expected TOML, found an error: {error}. Fix that line.") from error


def _over_base(stated: Mapping[str, Any], name: str, before: tuple[str, ...] = ()) -> Values:
    """Stated tables over those of their base."""
    values = dict(stated)
    base = values.pop("base", None)
    return values if base is None else _over(_values(str(base), (*before, name)), values)


def _over(below: Any, above: Any) -> Any:
    """What is below, updated with what is above: tables key by key, a list of stages by a table of their names.

    All else is replaced, and so is a table by one of another `kind`.
    """
    if not isinstance(above, dict):
        return above
    if isinstance(below, list):
        merged = list(below)
        for name, stage in above.items():
            place = _place(merged, name, "stages")
            merged[place] = _over(merged[place], stage)
        return merged
    if not isinstance(below, dict) or above.get("kind", below.get("kind")) != below.get("kind"):
        return above
    updated = below | {key: _over(below.get(key), value) for key, value in above.items()}
    if len(given := {"steps", "epochs"} & above.keys()) == 1:
        _drop_other_length(updated, *given)
    return updated


def _drop_other_length(table: Values, key: str) -> None:
    """Steps replace epochs, and epochs steps: a training has one length."""
    table.pop({"steps": "epochs", "epochs": "steps"}.get(key, ""), None)


def _change(values: Any, key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for part in tables:
        if isinstance(values, list):
            values = values[_place(values, part, f"--set {key}")]
        else:
            values = values.setdefault(part, {})
        if not isinstance(values, dict | list):
            raise BadInput(
                f"--set {key}: expected '{part}' to be a table, found a value. Check the key."
            )
    value = UNSET if value is None else value
    parsed = toml_value(value) if isinstance(value, str) else value
    if isinstance(parsed, float) and parsed.is_integer():
        parsed = int(parsed)  # --set train.steps=1e5
    if isinstance(values, list):
        values[_place(values, last, f"--set {key}")] = parsed
    else:
        values[last] = parsed
        _drop_other_length(values, last)


def _place(values: list[Any], name: str, where: str) -> int:
    """Where the table of a name, such as a stage, is in a list."""
    called = [entry.get("name") for entry in values if isinstance(entry, dict)]
    if name not in called:
        known = ", ".join(map(str, called)) or "none"
        raise BadInput(
            f"{where}: expected the name of a table in its list ({known}), found '{name}'. Change it."
        )
    return called.index(name)


def first_change(old: Any, new: Any, name: str = "") -> str:
    """The first differing key as a dotted path, with both values; "" if there is none."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner = f"{name}.{key}" if name else f"{key}"
            if change := first_change(old.get(key), new.get(key), inner):
                return change
    elif old != new:
        return f"{name} is {old!r:.80} there and {new!r:.80} here"
    return ""


def stored_recipe(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a stored recipe without keys that this version lacks, and that change nothing."""
    kept = without_retired(tables, RETIRED)
    if isinstance(stages := kept.get("stages"), list):
        kept["stages"] = [
            without_retired(stage, RETIRED) if isinstance(stage, dict) else stage
            for stage in stages
        ]
    return kept


def stored_options(synth: Mapping[str, Any]) -> dict[str, Any]:
    """Synthesis options of a stored file, as `stored_recipe` leaves them."""
    options: dict[str, Any] = stored_recipe({"synth": dict(synth)})["synth"]
    return options
