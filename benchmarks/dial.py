"""Rival second stages from the same mean prediction in the same minutes: error and distribution at 1, 2, 4 and 8 steps.

python benchmarks/dial.py PREPARED COHORT WORK [--minutes 20] [--split val] [--rivals diffusion flow] [--features texture]
PREPARED: the prepared cohort of COHORT, whose scans are synthesised and are the truth. The mean is trained for --minutes,
then each rival for as long; the number of its steps is measured once and stated in WORK/<rival>.toml. Prints the table of
WORK/dial.json: the mean, then each rival's samples, and its image halfway between mean and sample (sharpness 0.5). Runs,
recipes and rows that are there already are not made again.
"""

import argparse
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

import voxlate
from bench_samplers import measure
from voxlate.cases.prepared import open_cohort
from voxlate.planning import rules
from voxlate.planning.plan import plan_training
from voxlate.planning.probe import Limits, Probe, free_memory
from voxlate.recipe import values_of
from voxlate.synthesis.model import load
from voxlate.system.files import read_json, write_json, write_text

STEPS = (1, 2, 4, 8)
# Of timed training steps; rivals take turns, because the load of a machine changes.
ROUNDS, TIMED = 3, 10
WIDTH = 120  # of the table in characters
MEASURES = {
    "mae": "MAE",
    "ssim_2d": "SSIM",
    "gradient_strength": "gradient ratio",
    "texture_distance": "texture distance",
    "fd": "FD",
    "evaluations": "network calls",
}


def write_recipes(prepared: Path, work: Path, rivals: list[str], minutes: float) -> None:
    """Write the recipe of each rival that has none; all have the first stage that is planned for these minutes."""
    mean = work / "mean.toml"
    if not mean.exists():
        plan_training(prepared, minutes=minutes, mode="mean", from_scratch=True).save(mean)
    tables = values_of(str(mean))
    tables["synth"].pop("mirror", None)  # of the mean alone
    net, batch = tables["net"], tables["train"]["batch"]
    size = rules.Size(net["width"], net.get("patch", 1), batch)
    if all((work / f"{rival}.toml").exists() for rival in rivals):
        return
    probe = Probe(open_cohort(prepared), Limits(minutes, free_memory("auto")))
    seconds: dict[str, list[float]] = {rival: [] for rival in rivals}
    for rival in rivals * ROUNDS:
        tried = rules.with_samples(tables, size, rules.LEAST_STEPS, rival)
        measured = probe.measure(tried, 1, steps=TIMED)
        assert measured is not None, f"too little memory for {rival}"
        seconds[rival].append(measured.seconds)
    for rival, path in ((rival, work / f"{rival}.toml") for rival in rivals):
        if not path.exists():
            steps = max(round(minutes * 60 / min(seconds[rival])), 1)
            write_text(path, tomli_w.dumps(rules.with_samples(tables, size, steps, rival)))


def train(prepared: Path, work: Path, rivals: list[str]) -> dict[str, Path]:
    """The run of each rival; the first one trains the mean, which the others reuse."""
    runs = {rival: work / rival for rival in rivals}
    for rival, run in runs.items():
        voxlate.train(
            work / f"{rival}.toml",
            prepared,
            run,
            reuse=[] if rival == rivals[0] else [runs[rivals[0]]],
        )
    return runs


def rows_of(rivals: list[str]) -> list[dict[str, Any]]:
    """The rows of the table: a name, a rival, and its synthesis options."""
    rows: list[dict[str, Any]] = [{"name": "mean", "rival": rivals[0], "options": {"sharpness": 0}}]
    for rival in rivals:
        for steps in STEPS:
            sample = {"name": f"{rival}, steps {steps}", "rival": rival}
            rows.append({**sample, "options": {"steps": steps}})
        half = {"steps": steps, "sharpness": 0.5}
        rows.append(
            {"name": f"{rival}, steps {steps}, sharpness 0.5", "rival": rival, "options": half}
        )
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the rows, with the measures that one of them has."""
    names = {key: name for key, name in MEASURES.items() if any(key in row for row in rows)}
    table = Table("image", *names.values())
    for row in rows:
        table.add_row(row["name"], *(f"{row[key]:.4g}" for key in names))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prepared", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--split", default="val")
    parser.add_argument("--rivals", nargs="+", default=[*rules.SECOND_STAGES])
    parser.add_argument("--features", default="texture", help="texture, vit or a ViT's folder")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    write_recipes(chosen.prepared, chosen.work, chosen.rivals, chosen.minutes)
    runs = train(chosen.prepared, chosen.work, chosen.rivals)
    path, console = chosen.work / "dial.json", Console(width=WIDTH)
    found: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    rows = rows_of(chosen.rivals)
    for row in rows:
        if row["name"] in found:
            continue
        model = load(runs[row["rival"]]).with_options(**row["options"])
        scores = measure(model, chosen.cohort, chosen.split or None, chosen.features, console)
        found[row["name"]] = {**row, **scores}
        write_json(path, found)
    show([found[row["name"]] for row in rows], console)


if __name__ == "__main__":
    main()
