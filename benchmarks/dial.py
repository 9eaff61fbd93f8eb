"""Rival second stages from the same mean prediction in the same minutes: error and distribution at 1, 2, 4 and 8 steps.

python benchmarks/dial.py PREPARED COHORT WORK [--minutes 20] [--seeds 1] [--source NAME --target NAME] [--split val]
    [--rivals diffusion flow adversarial] [--features texture]
PREPARED: the prepared cohort of COHORT, whose scans are synthesised and are the truth. The mean is trained for --minutes,
then each rival for as long; the number of its steps is measured once and stated in WORK/<rival>.toml. Prints the table of
WORK/dial.json: the mean, then each rival's samples, and images between mean and sample in one step. Runs, recipes and
rows that are there already are not made again.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

import voxlate
from bench_samplers import measure
from voxlate.base.files import read_json, write_json, write_text
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.load import load
from voxlate.training.planning import rules
from voxlate.training.planning.planner import plan_training
from voxlate.training.planning.probe import Limits, Probe, default_memory_limit
from voxlate.training.recipe import values_of
from voxlate.training.torch_network import network_of

STEPS = (1, 2, 4, 8)
SHARPNESS = (0.25, 0.5, 0.75)  # of the sample in one step
# Of timed training steps; rivals take turns, because the load of a machine changes.
ROUNDS, TIMED = 3, 10
WIDTH = 120  # of the table in characters
# Of a critic that sees nothing but images: of those that it takes for true, L1 chooses the one of least error.
ADVERSARIAL: dict[str, Any] = {
    "method": {"kind": "regression", "loss": "l1"},
    "opponent": {
        "gan_loss": "hinge",
        "critic": {"widths": [32, 64, 128], "norm": "instance", "output": "patches"},
        "context": "none",
        "critic_turns": 1,
        "penalty": 0,
        "weight": 1.0,
        "adaptive": True,
    },
}
MEASURES = {
    "mae": "MAE",
    "ssim_2d": "SSIM",
    "gradient_strength": "gradient ratio",
    "texture_distance": "texture distance",
    "fd": "FD",
    "power_db": "power (dB)",
    "evaluations": "network calls",
}


def write_recipes(
    prepared: Path,
    work: Path,
    rivals: list[str],
    minutes: float,
    source: Sequence[str] = (),
    target: Sequence[str] = (),
) -> None:
    """Write the recipe of each rival that has none; all have the first stage that is planned for these minutes."""
    mean = work / "mean.toml"
    if not mean.exists():
        plan_training(
            prepared,
            source=source,
            target=target,
            minutes=minutes,
            mode="mean",
            from_scratch=True,
        ).save(mean)
    tables = values_of(str(mean))
    tables["synth"].pop("mirror", None)  # of the mean alone
    net, batch = tables["net"], tables["train"]["batch"]
    size = rules.Size(net["width"], net.get("patch", 1), batch)
    if all((work / f"{rival}.toml").exists() for rival in rivals):
        return
    probe = Probe(open_cohort(prepared), Limits(minutes, default_memory_limit("auto")))
    seconds: dict[str, list[float]] = {rival: [] for rival in rivals}
    for rival in rivals * ROUNDS:
        tried = recipe_of(rival, tables, size, rules.LEAST_STEPS)
        measured = probe.measure(tried, 1, steps=TIMED)
        assert measured is not None, f"too little memory for {rival}"
        seconds[rival].append(measured.seconds)
    for rival, path in ((rival, work / f"{rival}.toml") for rival in rivals):
        if not path.exists():
            steps = max(round(minutes * 60 / min(seconds[rival])), 1)
            write_text(path, tomli_w.dumps(recipe_of(rival, tables, size, steps)))


def recipe_of(rival: str, tables: dict[str, Any], size: rules.Size, steps: int) -> dict[str, Any]:
    """The recipe of a rival after the mean of these tables."""
    made = rules.with_samples(tables, size, steps, "samples")
    if rival == "diffusion":
        return made
    if rival == "flow":
        return {**made, "method": {"kind": "flow"}, "synth": {**tables["synth"], "steps": 1}}
    made |= {**ADVERSARIAL, "synth": tables["synth"]}
    made["net"].pop("modulation")
    made["train"]["optimiser"] |= {"lr": 1e-3, "betas": [0.5, 0.99]}
    return made


def train(prepared: Path, work: Path, rivals: list[str], seed: int) -> dict[str, Path]:
    """The run of each rival with this seed; the first one trains the mean, which the others reuse."""
    folder = work / f"seed{seed}"
    runs = {rival: folder / rival for rival in rivals}
    for rival, run in runs.items():
        recipe = folder / f"{rival}.toml"
        tables = values_of(str(work / recipe.name))
        for stage in (tables, *tables["stages"]):
            stage["train"]["seed"] = seed
        write_text(recipe, tomli_w.dumps(tables))
        voxlate.train(recipe, prepared, run, reuse=[*runs.values()][: rival != rivals[0]])
    return runs


def rows_of(runs: dict[str, Path]) -> list[dict[str, Any]]:
    """The rows of the table: a name, a rival, and its synthesis options."""
    rows: list[dict[str, Any]] = [{"rival": next(iter(runs)), "options": {"sharpness": 0}}]
    for rival, run in runs.items():
        iterates = network_of(load(run)).recipe.method.iterates
        samples = [{"steps": steps} for steps in STEPS] if iterates else [{}]
        between = [{**samples[0], "sharpness": sharpness} for sharpness in SHARPNESS]
        rows += [{"rival": rival, "options": options} for options in (*samples, *between)]
    return [{"name": _name_of(row), **row} for row in rows]


def _name_of(row: dict[str, Any]) -> str:
    options = row["options"]
    if options == {"sharpness": 0}:
        return "mean"
    return ", ".join([row["rival"], *(f"{key} {value}" for key, value in options.items())])


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the measures that one of the rows has: the mean over seeds, and the range if there are several."""
    names = {key: name for key, name in MEASURES.items() if any(key in row for row in rows)}
    table = Table("image", *names.values())
    for image in dict.fromkeys(row["name"] for row in rows):
        of_seeds = [row for row in rows if row["name"] == image]
        cells = ([row[key] for row in of_seeds] for key in names)
        table.add_row(image, *map(_over_seeds, cells))
    console.print(table)


def _over_seeds(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g}-{max(values):.3g})"


def arguments(text: str | None, minutes: float) -> argparse.ArgumentParser:
    """The arguments of trainings of this length on a prepared cohort; text: of the help."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prepared", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--source", nargs="+", default=())
    parser.add_argument("--target", nargs="+", default=())
    parser.add_argument("--split", default="val")
    return parser


def main() -> None:
    parser = arguments(__doc__, minutes=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rivals", nargs="+", default=["diffusion", "flow", "adversarial"])
    parser.add_argument("--features", default="texture", help="texture, vit or a ViT's folder")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    write_recipes(
        chosen.prepared, chosen.work, chosen.rivals, chosen.minutes, chosen.source, chosen.target
    )
    path, console = chosen.work / "dial.json", Console(width=WIDTH)
    found: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    for seed in range(chosen.seeds):
        runs = train(chosen.prepared, chosen.work, chosen.rivals, seed)
        for row in rows_of(runs):
            key = f"{row['name']}, seed {seed}"
            if key in found:
                continue
            model = load(runs[row["rival"]]).with_options(**row["options"])
            scores = measure(model, chosen.cohort, chosen.split or None, chosen.features, console)
            found[key] = {**row, "seed": seed, **scores}
            write_json(path, found)
    show([*found.values()], console)


if __name__ == "__main__":
    main()
