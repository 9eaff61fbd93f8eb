"""Pages of the reference that are generated from the code: commands, recipe keys, scores, and the tutorial as a page.

`make docs` writes them into docs/generated, which git ignores. Each function returns the Markdown text of one page.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from voxlate.base.config import key_types, meaning_of, members
from voxlate.base.messages import Code, codes
from voxlate.commands.cli.terminal import command_line
from voxlate.evaluation.scoring.metrics import METRICS, REGION_METRICS, Metric
from voxlate.page.app import create_app
from voxlate.page.page_settings import Settings
from voxlate.training.recipe import Recipe

DOCS = Path(__file__).parent
MARKUP = re.compile(r"([\\*_\[\]<>|{}#$])")
PANELS = {
    "argument": "Arguments",
    "option": "Options",
}  # of parameters that name no panel of their own


def write_pages(folder: Path) -> None:
    """Write every generated page into a folder; a page that has not changed is left as it is."""
    pages = {
        "commands.md": commands(),
        "recipe_keys.md": recipe_keys(),
        "scores.md": scores(),
        "messages.md": messages(),
        "addresses.md": addresses(),
        "tutorial.md": notebook(DOCS / "start" / "tutorial.ipynb"),
    }
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def commands() -> str:
    """Every command with its arguments and options, as its --help states them."""
    group: Any = command_line()
    parts = [
        "# Commands",
        f"{escaped(group.help)}\n\n`voxlate COMMAND --help` prints the same in a terminal.",
    ]
    parts += [_command(name, command) for name, command in group.commands.items()]
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: Any) -> str:
    """A command: usage, what it does, a table for each panel of parameters, examples."""
    context = typer.Context(command, info_name=f"voxlate {name}")
    tables: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and not getattr(parameter, "hidden", False):
            panel = getattr(parameter, "rich_help_panel", None) or PANELS[parameter.param_type_name]
            tables.setdefault(panel, []).append((code(record[0]), escaped(record[1])))
    parts = [f"## voxlate {name}", escaped(command.help)]
    for panel, rows in tables.items():
        parts += [f"**{panel}**", table(("name", "meaning"), rows)]
    examples = re.sub(r"^Examples?:\s*", "", command.epilog or "")
    if examples:
        lines = "\n".join(re.split(r"\s{2,}(?=voxlate )", examples.strip()))
        parts.append(f"```text\n{lines}\n```")
    return "\n\n".join(parts)


def recipe_keys() -> str:
    """Every key of a recipe with its default and meaning, a section for each table and each of its kinds."""
    parts = [
        "# Recipe keys",
        "A recipe is a TOML file. `voxlate recipes NAME` prints a shipped recipe with every key, its value and its meaning. "
        'A table with several kinds is chosen by its key `kind`, as in `net = { kind = "unet" }`.',
    ]
    parts += [_settings(name, kind) for name, kind in _tables("", Recipe, set())]
    return "\n\n".join(parts) + "\n"


def _tables(name: str, kind: Any, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """The settings classes below a settings class, each once, with the dotted name where it is reached first."""
    if kind in seen:
        return
    seen.add(kind)
    yield name, kind
    for key, hint in key_types(kind).items():
        for member in members(hint) if key in _keys(kind) else ():
            yield from _tables(f"{name}.{key}" if name else key, member, seen)


def _settings(name: str, kind: Any) -> str:
    """The section of one settings class: its sentence, and a table of its keys."""
    chosen = getattr(kind, "kind", None)
    title = name or "The recipe itself"
    hints = key_types(kind)
    rows = []
    for field in _keys(kind).values():
        kinds = [str(getattr(one, "kind", "")) for one in members(hints[field.name])]
        choice = f" ({', '.join(code(one) for one in kinds)})" if len(kinds) > 1 else ""
        rows.append(
            (code(field.name), _default(field), escaped(meaning_of(hints[field.name])) + choice)
        )
    heading = f'{title}: kind = "{chosen}"' if isinstance(chosen, str) else title
    sentence = escaped((kind.__doc__ or "").split("\n\n")[0])
    text = table(("key", "default", "meaning"), rows) if rows else "No keys."
    return f"## {heading}\n\n{sentence}\n\n{text}"


def _keys(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a settings class that a recipe gives, without the one that names the kind."""
    return {field.name: field for field in dataclasses.fields(kind) if field.name != "kind"}


def _default(field: dataclasses.Field[Any]) -> str:
    """The default of a key, as a recipe states it."""
    value = field.default
    if value is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return "required"
        value = field.default_factory()
    if value is None:
        return "unset"
    if dataclasses.is_dataclass(value):
        return code(value.kind) if hasattr(value, "kind") else "a table"
    return code(json.dumps(value, ensure_ascii=False))


def scores() -> str:
    """Every score with its unit, what is better, and how voxels become one number."""
    head = "Files of scores use these keys; [a guide](../guides/comparing.md) explains ranges and masks."
    parts = [
        "# Scores",
        head,
        _metrics(METRICS),
        "## Scores of a region",
        "`NAME.` stands for the region's name.",
    ]
    parts.append(_metrics(REGION_METRICS, "NAME."))
    return "\n\n".join(parts) + "\n"


def _metrics(metrics: Iterable[Metric], prefix: str = "") -> str:
    best = {
        "lower": "lower",
        "higher": "higher",
        "one": "near 1",
        "truth": "as the truth or as asked",
    }
    rows = [
        (
            code(prefix + one.key),
            escaped(one.label),
            escaped(one.unit),
            best[one.better],
            escaped(one.reduction),
        )
        for one in metrics
    ]
    return table(("key", "name", "unit", "better", "reduction"), rows)


def notebook(path: Path) -> str:
    """A notebook as Markdown: its text cells, and its code cells as blocks of Python."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(parts) + "\n"


def _sentence(entry: Code) -> str:
    """The meaning of a code; the name of the scan that another one is compared with is left open."""
    text = entry.meaning.format(partner="reference scan")
    return f"{text[0].upper()}{text[1:]}."


def messages() -> str:
    """Every code of a message with its grades, its meaning and what to do."""
    rows = [
        (code(name), ", ".join(entry.grades), escaped(_sentence(entry)), escaped(entry.action))
        for name, entry in codes().items()
    ]
    head = "A message has a code, a grade, a text, a case and numbers. Commands print equal ones once; `--verbose` prints all."
    names = ("code", "grade", "meaning", "what to do")
    return f"# Messages\n\n{head}\n\n{table(names, rows)}\n"


def addresses() -> str:
    """The addresses of `voxlate serve` by its OpenAPI description: method, what it does, form and answer."""
    stated = create_app(Settings({}, Path("data"), ""), None).openapi()
    rows = []
    for place, methods in stated["paths"].items():
        for method, own in methods.items():
            asked = next(iter(own.get("requestBody", {}).get("content", {}).items()), ("", {}))
            fields = ", ".join(asked[1].get("schema", {}).get("properties", {}))
            answer = json.dumps(own["responses"]["200"].get("content", {}))
            kind = (
                "JSON " + answer.rpartition("/")[2].rstrip('"}') if "schemas" in answer else "file"
            )
            rows.append(
                (code(f"{method.upper()} {place}"), escaped(own["description"]), fields, kind)
            )
    schemas = stated["components"]["schemas"]
    parts = ["# Addresses of the page", table(("address", "what it does", "form", "answer"), rows)]
    for name in ("Listed", "JobState", "Fit", "Said", "SynthesisForm"):
        parts.append(f"## {name}\n\n{escaped(schemas[name].get('description', ''))}")
        parts.append(table(("key",), [(code(key),) for key in schemas[name]["properties"]]))
    return "\n\n".join(parts) + "\n"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; cells hold Markdown already."""
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Plain text with code in backticks as Markdown that shows every other character as it is."""
    parts = " ".join(text.split()).split("`")
    shown = [
        MARKUP.sub(r"\\\1", part) if number % 2 == 0 else code(part)
        for number, part in enumerate(parts)
    ]
    return "".join(shown)


def code(text: str) -> str:
    """Plain text as code in a cell of a table."""
    return f"`{text}`".replace("|", "\\|")
