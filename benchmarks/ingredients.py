"""What each ingredient of a regression is worth, at equal minutes on one core: `make ingredients` (hours; resumable).

A task is a prepared cohort with a base recipe, a variant some changes of it. Minutes are CPU minutes of one thread. The
first row of a task is its base: a probe says how many steps fit. A variant gets as many as its own steps cost, timed in
turn with the base's, since a machine's speed changes from hour to hour. Each row is one JSON line next to this file;
rows that are there are skipped. docs/reference/measured.md says what came out.

    python benchmarks/ingredients.py WORK [TASK:VARIANT[+VARIANT …][:SEED] …]

WORK/TASK is the prepared cohort of WORK/TASK_scans (its manifest WORK/TASK_scans.csv, if any): `slices` of mr and ct,
`brains` of t1 and t2, and `thick`, made by `voxlate phantom --cases 15 --size 128 152 24 --modality t1 --modality ct`.
"""

import argparse
import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import tomli_w
import torch

from voxlate import recipe as recipes
from voxlate.cases.prepared import open_cohort
from voxlate.recipe import Recipe
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.tables import Scores
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model, load
from voxlate.synthesis.scans import find_scans
from voxlate.training.train import train

RESULTS = Path(__file__).with_suffix(".jsonl")
SCORES = {
    "mae": "mae_rel",
    "ssim": "ssim_2d",
    "psnr": "psnr",
    "gradient": "gradient_strength",
}  # MAE: share of range
PROBED, WARM_UP = 8, 3  # steps that are timed, and before them (allocation, caches)
FREE = (  # keys that make no step slower
    *(
        f"train.optimiser.{key}"
        for key in ("lr", "betas", "decay", "hold", "last", "weight_decay", "warm_up")
    ),
    *("train.ema", "train.seed", "method.leak", "synth.", "intensity.", "method.times"),
)


@dataclass(frozen=True)
class Task:
    """A cohort with its base recipe; scored are the cases that training does not see.

    also: options of synthesis that the same weights are scored with, too; cohort: where it is not the task's own name;
    fixed: changes of the base itself, those of earlier stages among them, which are trained once.
    """

    recipe: str
    minutes: float
    also: Mapping[str, Mapping[str, Any]]
    stage: str = "final"
    mask: str | None = None
    cohort: str = ""
    fixed: Mapping[str, str] = field(default_factory=dict)


MIRRORED: Mapping[str, Mapping[str, Any]] = {"mirrored": {"mirror": True}}
TASKS = {
    "slices": Task("mr_to_ct_slices_regression", 3, {"unmirrored": {"mirror": False}}),
    "brains": Task("t1_to_t2_brain", 3, MIRRORED, mask="body"),
    "thick": Task("phantom_t1_to_ct", 2, MIRRORED, stage="regression"),
    "samples": Task(
        "mr_to_ct_slices",
        1.5,
        {"4 steps": {"steps": 4}},
        cohort="slices",
        fixed={
            "stages.regression.train.steps": "400",
            "stages.regression.train.optimiser.kind": "muon",
            "synth.steps": "8",
        },
    ),
}
LIGHT = "{ flip_lr = 0.5, rotate_degrees = 8, scale = 0.08, translate = 0.03, gamma = 0.2, contrast = 0.1 }"
FULL = (
    "{ flip_lr = 0.5, rotate_degrees = 12, scale = 0.12, stretch = 0.06, shear = 0.08, translate = 0.05, "
    "elastic_mm = 5, elastic_points = 8, gamma = 0.4, contrast = 0.15, remap = 0.8, bias = 0.1, blur_mm = 0.4, "
    "noise = 0.03 }"
)
VOLUMES = {"synth.slices": "{ kind = 'whole' }"}
VARIANTS: dict[str, dict[str, str]] = {
    "base": {},
    **{f"stack{n}": {"data.stack": f"{n}"} for n in (0, 1, 2)},
    **{f"ssim{w}": {"method.ssim": w} for w in ("0", "0.2", "0.4", "1")},
    **{f"leak{w}": {"method.leak": w} for w in ("0", "0.1", "1")},
    **{f"mirror_{w}": {"synth.mirror": w} for w in ("true", "false")},
    **{f"ema{w}": {"train.ema": w} for w in ("0", "0.98", "0.99", "0.995", "0.999")},
    **{f"lr{w}": {"train.optimiser.lr": w} for w in ("5e-4", "1e-3", "2e-3", "3e-3", "5e-3")},
    **{
        f"muon{w}": {"train.optimiser.kind": "muon", "train.optimiser.lr": w}
        for w in ("5e-4", "1e-3", "2e-3", "4e-3")
    },
    **{f"dropout{w}": {"net.dropout": w} for w in ("0.1", "0.2")},
    **{f"decay{w}": {"train.optimiser.weight_decay": w} for w in ("0.1", "0.5")},
    "rate_constant": {"train.optimiser.decay": "none"},
    "rate_constant_late": {"train.optimiser.hold": "0.7"},
    "betas_999": {"train.optimiser.betas": "[0.9, 0.999]"},
    "betas_95": {"train.optimiser.betas": "[0.9, 0.95]"},
    **{f"stem{n}": {"net.patch": f"{n}"} for n in (1, 2, 4)},
    **{f"width{n}": {"net.width": f"{n}"} for n in (16, 24, 32, 48, 64)},
    **{f"batch{n}": {"train.batch": f"{n}"} for n in (1, 2, 3, 4, 8)},
    "augment_none": {"data.augment": "{ flip_lr = 0 }"},
    "augment_flip": {"data.augment": "{ flip_lr = 0.5 }"},
    "augment_light": {"data.augment": LIGHT},
    "augment_full": {"data.augment": FULL},
    "patch128": {"data.patch": "[1, 128, 128]"},
    "patch_head": {"data.patch": "[1, 152, 128]"},
    "zscore": {"intensity.t1": "{ kind = 'zscore' }"},
    "log_snr_3.5": {
        "method.times": "{ kind = 'uniform_log_snr', low = -3.5, high = 3.5 }",
        "synth.end": "0.1384",
    },
    "log_snr_wide": {
        "method.times": "{ kind = 'uniform_log_snr', low = -6, high = 6 }",
        "synth.start": "0.95",
    },
    "volumetric": {
        "net.volumetric": "true",
        "data.patch": "[4, 104, 88]",
        "train.batch": "1",
        **VOLUMES,
    },
    "kernel3": {"net.kernel": "3x3x3", "data.patch": "[8, 104, 88]", "train.batch": "1", **VOLUMES},
}


class Enough(Exception):
    """Ends a probe."""


def recipe_of(
    task: Task, variant: Mapping[str, str], seed: int, steps: int, folder: Path
) -> Recipe:
    """The base recipe of a task with changes, at so many steps."""
    base = recipes.stage_recipe(recipes.read(task.recipe), task.stage)
    path = folder / "base.toml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(recipes.to_dict(base)))
    fixed = {"train.steps": f"{steps}", "train.seed": f"{seed}", "train.save_every": f"{steps}"}
    return recipes.read(
        str(path),
        {
            **fixed,
            "train.validate_every": "0",
            "train.validation_items": "1",
            **task.fixed,
            **variant,
        },
    )


def earlier_stages(name: str, work: Path) -> list[Path]:
    """The run whose earlier stages all rows of a task share, trained on the first call; none where it has one stage."""
    run, task = work / "earlier" / name, TASKS[name]
    recipe = recipe_of(task, {}, 0, 1, run.with_name(f"{name}_base"))
    if not recipe.stages:
        return []
    train(recipe, work / (task.cohort or name), run, device="cpu")
    return [run]


def step_seconds(
    named: Mapping[str, Recipe], data: Path, folder: Path, reuse: list[Path]
) -> dict[str, float]:
    """CPU seconds of a step of each recipe, medians of two rounds in turn."""
    times: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(2 if len(named) > 1 else 1):
        for name, recipe in named.items():
            ticks: list[float] = []

            def tick(
                stage: str,
                step: int,
                steps: int,
                latest: Mapping[str, float],
                ticks: list[float] = ticks,
            ) -> None:
                ticks.append(time.process_time())
                if step == WARM_UP + PROBED:
                    raise Enough

            shutil.rmtree(folder / "probe", ignore_errors=True)
            with contextlib.suppress(Enough):
                train(recipe, data, folder / "probe", reuse=reuse, device="cpu", progress=tick)
            times[name] += [
                after - before for before, after in zip(ticks[WARM_UP - 1 :], ticks[WARM_UP:])
            ]
    return {name: median(one) for name, one in times.items()}


def steps_for(
    task: str, recipe: Recipe, base: Recipe, changes: Mapping[str, str], **probe: Any
) -> int:
    """How many steps of a recipe fit into the minutes: as many as the base had, over how much slower a step is."""
    had = [row["steps"] for row in finished() if row["task"] == task and row["variant"] == "base"]
    if not had:
        return round(60 * TASKS[task].minutes / step_seconds({"base": base}, **probe)["base"])
    if all(key.startswith(FREE) for key in changes):
        return int(had[0])
    seconds = step_seconds({"base": base, "variant": recipe}, **probe)
    return round(had[0] * seconds["base"] / seconds["variant"])


def finished(results: Path = RESULTS) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def measure(name: str, variant: str, seed: int, work: Path) -> dict[str, Any]:
    """Train, synthesise and score one row."""
    changes = changes_of(variant)
    task, folder = TASKS[name], work / "runs" / f"{name}_{variant}_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    data, reuse = work / (task.cohort or name), earlier_stages(name, work)
    base, longer = (recipe_of(task, one, seed, 1000, folder) for one in ({}, changes))
    steps = steps_for(name, longer, base, changes, data=data, folder=folder, reuse=reuse)
    recipe = recipe_of(task, changes, seed, steps, folder)
    return {**row_of(name, variant, seed, recipe, data, reuse, folder), "changes": changes}


def changes_of(variant: str) -> dict[str, str]:
    """The changes of a variant, or of several joined by +."""
    return {key: value for part in variant.split("+") for key, value in VARIANTS[part].items()}


def row_of(
    name: str, variant: str, seed: int, recipe: Recipe, data: Path, reuse: list[Path], folder: Path
) -> dict[str, Any]:
    """Train, synthesise and score a recipe."""
    task = TASKS[name]
    began, clock = time.process_time(), time.monotonic()
    run = train(recipe, data, folder / "run", reuse=reuse, device="cpu")
    seconds, wall = time.process_time() - began, time.monotonic() - clock
    began, model = time.process_time(), load(run.folder, allow_code=True)
    made = {way: model.with_options(**options) for way, options in {"": {}, **task.also}.items()}
    scores = {way: scored(task, one, data, folder / f"made_{way}") for way, one in made.items()}
    parameters = sum(one.numel() for one in model.method.parameters())
    shutil.rmtree(folder)
    return {
        "task": name,
        "variant": variant,
        "seed": seed,
        "minutes": task.minutes,
        "steps": recipe.train.steps,
        "cpu_seconds": round(seconds),
        "wall_seconds": round(wall),
        "scoring_seconds": round(time.process_time() - began),
        "parameters": parameters,
        **scores.pop(""),
        "also": scores,
    }


def is_finished(task: str, variant: str, seed: int) -> bool:
    return (task, variant, seed) in {
        (row["task"], row["variant"], row["seed"]) for row in finished()
    }


def keep(row: Mapping[str, Any]) -> None:
    """Add a row to the results."""
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def scored(task: Task, model: Model, data: Path, made: Path) -> dict[str, float]:
    """Mean scores of the images of the cases that training does not see."""
    return means(
        held_out(model, data.with_name(f"{data.name}_scans"), data, made, task.mask), SCORES
    )


def held_out(model: Model, cohort: Path, data: Path, made: Path, mask: str | None) -> Scores:
    """Make and score the cases that training does not see; cohort: of scans, data: as prepared."""
    splits = open_cohort(data).splits
    unseen = {*splits["val"], *splits["test"]}
    scans = [
        one for one in find_scans([str(cohort)], model, **layout(cohort)) if one.case in unseen
    ]
    synthesise_cases(model, scans, made, warn=lambda _: None)
    return evaluate(made, cohort, mask=mask, cases=unseen, **layout(cohort))


def means(table: Scores, scores: Mapping[str, str], answer: str = "synthesis") -> dict[str, float]:
    """Means over the cases, by the name that a row gives each score."""
    rows = [row.scores for row in table.rows if row.answer == answer]
    return {name: round(mean(row[key] for row in rows), 5) for name, key in scores.items()}


def layout(cohort: Path) -> dict[str, Any]:
    """How a cohort's files are found: by the manifest next to it, where there is one."""
    manifest = cohort.with_name(f"{cohort.name}.csv")
    return {"manifest": manifest} if manifest.exists() else {}


def table() -> str:
    """The results as Markdown, a table a task, best first; the base's MAE of the same seed is 100 %."""
    lines: list[str] = []
    for task in TASKS:
        rows = [row for row in finished() if row["task"] == task]
        base = {row["seed"]: row["mae"] for row in rows if row["variant"] == "base"}
        also = list(TASKS[task].also)
        heads = [f"**{task}**", "seed", "steps", "weights", "MAE", "of base", "SSIM", "edges"]
        lines += [
            "",
            f"| {' | '.join([*heads, *(f'MAE, {way}' for way in also)])} |",
            "|---" * (8 + len(also)) + "|",
        ]
        for row in sorted(rows, key=lambda one: float(one["mae"])):
            share = f"{row['mae'] / base[row['seed']]:.1%}" if row["seed"] in base else ""
            cells = [
                row["variant"],
                row["seed"],
                row["steps"],
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['mae']:.4f}",
            ]
            cells += [share, f"{row['ssim']:.3f}", f"{row['gradient']:.2f}"]
            cells += [f"{row['also'][way]['mae']:.4f}" for way in also]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("rows", nargs="*", help="none: every task with every variant")
    parser.add_argument("--table", action="store_true", help="print what is finished as Markdown")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    torch.set_num_threads(1)
    rows = arguments.rows or [f"{task}:{variant}" for task in TASKS for variant in VARIANTS]
    for text in rows:
        task, variant, *seed = text.split(":")
        key = (task, variant, int(seed[0]) if seed else 0)
        if not is_finished(*key):
            keep(measure(*key, arguments.work))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
