"""The tables on the pages of the five papers: phantoms, every row in equal minutes, lines that know their data.

    python benchmarks/tables.py WORK [TABLE[:ROW[:SEED]] …] [--minutes MINUTES]        (`make tables`)

Trains, draws and scores the rows of tables.toml that have no line of today in tables.jsonl, and writes the pages' tables
between their markers. A line is of today if the digest of its cohort and the digest of its recipe are those of this code;
other lines are not printed, and their rows say "not measured". The costs of a row are said before it starts; a row that
would exceed --minutes is left (0: pages only), and the same command goes on later. ROW may have *.

The steps of all stages of a row are multiplied by one factor, so that they take the table's minutes of processor time of
one thread. Rows with equal trainings share them. Where a row says so, learning rates are multiplied by the factor that has
the least error on the validation heads after a fifth of the minutes; factors are added while the best is at an end.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

import voxlate
from json_lines import append, finished
from voxlate.training.recipe import Recipe, read, to_dict
from voxlate.training.recipe.reading import stated_keys
from voxlate.training.run import Run
from voxlate.training.weights import read_header

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_suffix(".jsonl")
PAGES = ROOT / "docs" / "papers"
BLOCK = re.compile(r"(?<=<!-- tables begin -->\n).*?(?=<!-- tables end -->)", re.DOTALL)
FEW = {"cases": 3, "size": (48, 48, 16)}  # the heads of a cohort whose content stands for all
PILOT = 6  # steps of each stage whose time is measured
SEEDS = 3
RATES = (0.5, 1.0, 2.0, 4.0)
TUNED = 1 / 5  # share of the minutes that a try of a learning rate takes
SYNTHESIS = "synthesis"
Line = dict[str, Any]
Column = tuple[str, str, int]  # key of a score, title, digits
AnyMapping = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A method of a table; its settings are described in tables.toml."""

    name: str
    recipe: str
    targets: tuple[str, ...]
    changes: Mapping[str, str] = field(default_factory=dict)
    each: tuple[Mapping[str, str], ...] = ({},)
    stage: str | None = None
    draw: AnyMapping = field(default_factory=dict)
    seeds: int = SEEDS
    tuned: bool = False
    paper: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The row's name among those of its table, without spaces."""
        return f"{'+'.join(self.targets)}/{self.name}".replace(" ", "_")

    @property
    def recipes(self) -> list[Recipe]:
        """What the row trains."""
        return [read(self.recipe, {**self.changes, **further}) for further in self.each]


@dataclass(frozen=True)
class Table:
    """A cohort of phantoms, how it is prepared and scored, and the rows; see tables.toml."""

    phantoms: AnyMapping
    preparation: AnyMapping
    scoring: AnyMapping
    minutes: float
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    figure: AnyMapping
    completes: bool = False


def _tables() -> dict[str, Table]:
    stated = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {
        name: Table(**{**one, "rows": tuple(Row(**row) for row in one["rows"])})
        for name, one in stated.items()
    }


TABLES = _tables()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("wanted", nargs="*", metavar="TABLE[:ROW[:SEED]]")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    for name, row, seed in missing(chosen.wanted):
        cost = cost_of(name, row)
        starts = (time.monotonic() - begun) / 60 + cost <= chosen.minutes
        state = "starts" if starts else "left for another run"
        print(f"{name}:{row.key}:{seed}: about {cost:.1f} minutes, {state}", flush=True)
        if starts:
            measure(chosen.work / name, name, row, seed)
            write_page(name)
    for name in TABLES:
        write_page(name)


def missing(wanted: list[str]) -> Iterator[tuple[str, Row, int]]:
    """Table, row and seed of each line that is asked for and lacks, seed by seed: a table is whole early."""
    asked = [[*text.split(":"), "*", "*"] for text in wanted or TABLES]
    for seed in range(SEEDS):
        for name, table in TABLES.items():
            for row in table.rows:
                texts = (name, row.key, str(seed))
                is_asked = any(all(map(fnmatch, texts, one)) for one in asked)
                if is_asked and seed < row.seeds and not _is_measured(name, row, seed):
                    yield name, row, seed


def _is_measured(name: str, row: Row, seed: int) -> bool:
    return any(one["seed"] == seed for one in lines_of(name, row))


def cost_of(name: str, row: Row) -> float:
    """The minutes that a row takes: those of its last line, of whatever day, or twice its training."""
    lines = [one for one in finished(RESULTS) if (one["table"], one["row"]) == (name, row.key)]
    return lines[-1]["cost"] if lines else 2 * TABLES[name].minutes


def digest(content: Any) -> str:
    """A short digest of plain values."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def cohort_digest(name: str) -> str:
    """Digest of how a cohort is made, and of the prepared voxels of a few small heads that are made alike.

    Three significant digits of each image's statistics: the last bits of voxels differ between machines.
    """
    table = TABLES[name]
    few = {**table.preparation, "shares": (1, 1, 1)}
    with TemporaryDirectory() as folder:
        work = Path(folder)
        make_cohort(work, replace(table, phantoms={**table.phantoms, **FEW}, preparation=few))
        content = [
            [key, *(f"{number:.3g}" for number in _statistics(image.astype(float)))]
            for path in sorted((work / "prepared" / "cases").iterdir())
            for key, image in sorted(load_file(path).items())
        ]
    return digest([table.phantoms, table.preparation, content])


def _statistics(image: Any) -> list[float]:
    steps = [np.abs(np.diff(image, axis=axis)).mean() for axis in range(3)]
    return [image.mean(), image.std(), *steps]


# Keys of `data` and of `data.augment` that have gone since, as digests have them.
GONE: dict[str, Any] = {"any_source": []}
GONE_CHANGES = {"intensity_share": 1.0, "spatial_share": 1.0}


def training_digest(recipe: Recipe) -> str:
    """Digest of what a recipe trains: keys that have their default are left out, so that new ones change nothing.

    The tables `data` of stages are whole, and have the keys of the code by which lines were measured.
    """
    keys = stated_keys(recipe)
    for stage in keys.get("stages", ()):
        if "data" in stage:
            changes = GONE_CHANGES | stage["data"]["augment"]
            stage["data"] = GONE | stage["data"] | {"augment": changes}
            if not stage["data"]["level"]:  # a newer key, which left these trainings as they were
                del stage["data"]["level"]
    return digest({key: value for key, value in keys.items() if key not in ("title", "synth")})


def recipe_digest(name: str, row: Row | None) -> str:
    """Digest of all that a row is trained, drawn and scored with; None stands for the naive baselines."""
    table = TABLES[name]
    if row is None:
        return digest(table.scoring)
    synth = [stated_keys(one).get("synth") for one in row.recipes]
    trained_as = [training_digest(one) for one in row.recipes]
    return digest([trained_as, synth, row.stage, row.draw, row.tuned, table.minutes, table.scoring])


def lines_of(name: str, row: Row | None) -> list[Line]:
    """Today's lines of a row, or of the naive baselines."""
    recipe = recipe_digest(name, row)
    found = [one for one in finished(RESULTS) if (one["table"], one["recipe"]) == (name, recipe)]
    return [
        one
        for one in found
        if one["cohort"] == cohort_digest(name) and (row is None or one["row"] == row.key)
    ]


def measure(work: Path, name: str, row: Row, seed: int) -> None:
    """Train a row with a seed, draw and score it, and keep a line for each target."""
    begun = time.process_time()
    table = TABLES[name]
    make_cohort(work, table)
    rate = tuned_rate(work, table, row) if row.tuned else 1.0
    runs, stated = trained(work, row, table.minutes, rate, seed)
    found = scored(work, table, row, runs, "test")
    stated |= {"seed": seed, "rate": rate, "cost": round((time.process_time() - begun) / 60, 1)}
    line = {"table": name, "cohort": cohort_digest(name), "commit": commit()}
    mine = {"row": row.key, "recipe": recipe_digest(name, row), **stated}
    naive = {"recipe": recipe_digest(name, None)}
    known = [(one["row"], one["target"]) for one in lines_of(name, None)]
    for target, answers in found.items():
        for answer, values in answers.items():
            here = {"target": target, "scores": _kept(table, values)}
            if answer == SYNTHESIS:
                append(RESULTS, [{**line, **mine, **here}])
            elif (answer, target) not in known:
                append(RESULTS, [{**line, "row": answer, **naive, **here}])


def _kept(table: Table, summaries: AnyMapping) -> dict[str, list[float | None]]:
    """[mean, standard deviation over patients] of the scores that the table prints and images have."""
    kept = {}
    for score, *_ in table.columns:
        summary = summaries.get(score, {"mean": None})
        if summary["mean"] is not None:
            values = [summary["mean"], summary["sd"]]
            kept[score] = [None if one is None else float(f"{one:.5g}") for one in values]
    return kept


def commit() -> str:
    """The last commit, with + where src/ has changes that are not committed."""
    git = ["git", "-C", str(ROOT)]
    log = subprocess.run([*git, "log", "-1", "--format=%h"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "src"]).returncode
    return log.stdout.strip() + ("+" if changed else "")


def make_cohort(work: Path, table: Table) -> None:
    """The phantoms and their prepared form, made once."""
    voxlate.phantom(work / "heads", progress=False, **table.phantoms)
    options = {"audit": False, "progress": False, **table.preparation}
    voxlate.prepare(work / "heads", work / "prepared", **options)


def tuned_rate(work: Path, table: Table, row: Row) -> float:
    """The factor of the learning rates that does best on the validation heads; kept in WORK/rates.json."""
    path, key = work / "rates.json", digest([training_digest(one) for one in row.recipes])
    known = _known(path)
    errors = {float(rate): error for rate, error in known.get(key, {}).items()}
    tries, best = list(RATES), 1.0
    while tries:
        rate = tries.pop(0)
        if rate not in errors:
            runs, _ = trained(work, row, table.minutes * TUNED, rate, 0)
            found = scored(work, table, row, runs, "val")
            errors[rate] = mean(answers[SYNTHESIS]["mae"]["mean"] for answers in found.values())
            path.write_text(json.dumps({**known, key: errors}))
        best = min(errors, key=errors.__getitem__)
        if not tries and best in (min(errors), max(errors)):
            tries.append(best * 2 if best > 1 else best / 2)
    return best


def _known(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def trained(
    work: Path, row: Row, minutes: float, rate: float, seed: int
) -> tuple[list[Run], dict[str, Any]]:
    """The runs of a row, and what they were: steps, parameters, seconds of processor time.

    A training that was stopped begins again, because its seconds would be those of its last part alone.
    """
    runs, steps, seconds = [], [], 0.0
    for recipe in row.recipes:
        lengths = steps_in(work, recipe, minutes / len(row.recipes))
        run = work / "runs" / f"{training_digest(recipe)}_{minutes:g}_{rate:g}_{seed}"
        kept = run.with_name(f"{run.name}.seconds")
        if not kept.exists():
            clock = run_training(recipe, work, run, lengths, rate, seed)
            kept.write_text(f"{clock.seconds}")
        runs.append(Run(run))
        steps.append(lengths)
        seconds += float(kept.read_text())
    parameters = sum(read_header(run.weights(row.stage or "final"))["parameters"] for run in runs)
    return runs, {"steps": steps, "parameters": parameters, "seconds": round(seconds, 1)}


class Clock:
    """The processor time of a training: between the first and the last report of each of its stages."""

    def __init__(self) -> None:
        self.reports: dict[str, list[tuple[int, float]]] = {}

    def __call__(self, name: str, done: int, total: int, numbers: AnyMapping) -> None:
        self.reports.setdefault(name, []).append((done, time.process_time()))

    @property
    def seconds(self) -> float:
        return sum(reports[-1][1] - reports[0][1] for reports in self.reports.values())

    @property
    def seconds_a_step(self) -> dict[str, float]:
        ends = {name: (reports[0], reports[-1]) for name, reports in self.reports.items()}
        return {
            name: (last[1] - first[1]) / max(last[0] - first[0], 1)
            for name, (first, last) in ends.items()
        }


def run_training(
    recipe: Recipe, work: Path, out: Path, steps: list[int], rate: float, seed: int
) -> Clock:
    """Train a recipe with other steps, its learning rates multiplied by a factor, and a seed."""
    tables = to_dict(recipe)
    stages = [table["train"] for table in (*tables.get("stages", ()), tables)]
    for stage, length in zip(stages, steps, strict=True):
        stage.pop("epochs", None)
        stage["steps"] = length
        stage["seed"] = seed
        stage["optimiser"]["lr"] *= rate
    clock = Clock()
    shutil.rmtree(out, ignore_errors=True)
    voxlate.train(tables, work / "prepared", out, device="cpu", progress=clock)
    return clock


def steps_in(work: Path, recipe: Recipe, minutes: float) -> list[int]:
    """The steps of a recipe's stages that share the minutes, in the proportions that the recipe states.

    A recipe whose length is given in epochs has one stage, which takes all minutes. The time of a step is measured once.
    """
    path, key = work / "paces.json", training_digest(recipe)
    known = _known(path)
    stages = recipe.all_stages
    if key not in known:
        clock = run_training(recipe, work, work / "pilot", [PILOT] * len(stages), 1.0, 0)
        known[key] = clock.seconds_a_step
        path.write_text(json.dumps(known, indent=1))
    shares = [stage.train.steps or 1000 for stage in stages]
    seconds = sum(
        known[key][stage.name] * share for stage, share in zip(stages, shares, strict=True)
    )
    return [max(int(share * minutes * 60 / seconds), 1) for share in shares]


def scored(work: Path, table: Table, row: Row, runs: list[Run], split: str) -> dict[str, Any]:
    """The summaries of scores of a row's images and of the naive baselines, by target and answer."""
    out, heads = work / "out" / row.key, work / "heads"
    shutil.rmtree(out, ignore_errors=True)
    drawn: dict[str, Any] = {"anyway": True, "split": split, "progress": False}
    scoring = {**table.scoring, "progress": False, "regions": regions_of(table, row)}
    if table.completes:
        answers = {}
        for target in row.targets:
            pairs = zip(row.recipes, runs)
            recipe, run = next(pair for pair in pairs if target in pair[0].data.target)
            missing = [target] if target in recipe.data.source else None
            images = out / target
            voxlate.synthesise(run.folder, heads, images, missing=missing, set=row.draw, **drawn)
            document = voxlate.evaluate(images, heads, **scoring).document()
            answers[target] = document["modalities"][target]["answers"]
        return answers
    if not row.stage:
        drawn["like"] = row.recipe
    voxlate.synthesise(runs[0].weights(row.stage or "final"), heads, out, **drawn, **row.draw)
    scores = voxlate.evaluate(out, heads, **scoring)
    return {name: part["answers"] for name, part in scores.document()["modalities"].items()}


def regions_of(table: Table, row: Row) -> dict[str, str]:
    """The regions that a row is scored in: none of another target of its table."""
    others = {target for one in table.rows for target in one.targets} - {*row.targets}
    return {
        region: rule
        for region, rule in table.scoring.get("regions", {}).items()
        if not others & {*re.findall(r"[a-z]\w*", rule)}
    }


def write_page(name: str) -> None:
    """Put the table of a page between its markers."""
    page, table = PAGES / f"{name}.md", printed(name)
    text = page.read_text(encoding="utf-8")
    page.write_text(BLOCK.sub(lambda _: table, text), encoding="utf-8")


def printed(name: str) -> str:
    """A table in Markdown with what it was measured on, and the order of its methods there and here."""
    table = TABLES[name]
    measured = {row.key: lines_of(name, row) for row in table.rows}
    targets = list(dict.fromkeys(target for row in table.rows for target in row.targets))
    titles = [title for _, title, _ in table.columns]
    head = ["row", "parameters", "seeds", *titles, f"paper's {titles[0]}"]
    body, orders = [["target", *head], ["---"] * (len(head) + 1)], []
    for target in targets:
        rows = [row for row in table.rows if target in row.targets]
        here = {}
        for row in rows:
            lines = [one for one in measured[row.key] if one["target"] == target]
            if lines:
                paper = f"{row.paper[target]:g}" if target in row.paper else ""
                body.append([target, row.name, *_cells(row, lines, table.columns), paper])
                if target in row.paper or not any(one.paper for one in table.rows):
                    here[row.name] = mean(one["scores"]["mae"][0] for one in lines)
        for line in _strongest_naive(name, target):
            scores = [_cell([line], column) for column in table.columns]
            body.append([target, f"*{line['row']}*", "", "", *scores, ""])
            here[line["row"]] = line["scores"]["mae"][0]
        there = {row.name: row.paper[target] for row in rows if target in row.paper}
        orders.append(f"- {target}, " + "; ".join(_orders(there, here)) + ".")
    for row in table.rows:
        if not measured[row.key]:
            rest = [""] * len(titles)
            body.append(
                ["+".join(row.targets), row.name, "", f"0/{row.seeds}", "not measured", *rest]
            )
    first = 0 if len(targets) > 1 else 1
    end = len(head) + (1 if any(row.paper for row in table.rows) else 0)
    written = [f"|{'|'.join(cells[first:end])}|" for cells in body]
    caption = _caption(table, [one for several in measured.values() for one in several])
    return "\n".join([caption, "", *written, "", *orders, ""])


def _orders(there: Mapping[str, float], here: Mapping[str, float]) -> Iterator[str]:
    for place, scores in (("paper", there), ("here", here)):
        if scores:
            yield f"{place}: " + " < ".join(sorted(scores, key=scores.__getitem__))


def _caption(table: Table, lines: list[Line]) -> str:
    """What a table was measured on."""
    size = "×".join(map(str, table.phantoms["size"]))
    train, val, test = table.preparation["shares"]
    settings = f"{table.phantoms['cases']} phantoms of {size} ({train} train, {val} validate, {test} report), mask `{table.scoring['mask']}`."
    if not lines:
        return f"{settings} No row is measured with today's phantoms and recipes."
    seconds = [one["seconds"] for one in lines]
    commits = ", ".join(sorted({one["commit"] for one in lines}))
    return (
        f"{settings} Each row has {table.minutes:g} min of one thread (measured: {min(seconds):.0f} to {max(seconds):.0f} s); "
        f"commit {commits}. Mean ± SD over patients, in brackets the range over seeds."
    )


def _cells(row: Row, lines: list[Line], columns: tuple[Column, ...]) -> list[str]:
    size = f"{lines[0]['parameters'] / 1e6:.2f} M"
    return [size, f"{len(lines)}/{row.seeds}", *(_cell(lines, column) for column in columns)]


def _cell(lines: list[Line], column: Column) -> str:
    score, _, digits = column
    found = [one["scores"][score] for one in lines if score in one["scores"]]
    if not found:
        return ""
    means = [one[0] for one in found]
    deviations = [one[1] for one in found if one[1] is not None]
    text = f"{mean(means):.{digits}f}"
    if deviations:
        text += f"±{mean(deviations):.{digits}f}"
    if len(means) > 1:
        text += f"({min(means):.{digits}f}–{max(means):.{digits}f})"
    return text


def _strongest_naive(name: str, target: str) -> list[Line]:
    """The naive baselines of a target with the lowest MAE and with the highest SSIM."""
    lines = [one for one in lines_of(name, None) if one["target"] == target]
    if not lines:
        return []
    least = min(lines, key=lambda one: one["scores"]["mae"][0])
    likest = max(lines, key=lambda one: one["scores"]["ssim_2d"][0])
    return [least] if least is likest else [least, likest]


if __name__ == "__main__":
    main()
