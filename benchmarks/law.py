"""How the held-out error of a planned regression falls with steps, by width, stem and batch: the planner's table.

A row is one training of the first stage of a plan, with the width, stem, batch and number of steps that the row names,
scored on cases that training does not see. Rows are JSON lines next to this file; rows that are there are skipped.
`--fit` fits the law that voxlate.planning.law holds to the rows and prints its table.

    python benchmarks/law.py WORK [TASK …] [--device cuda] [--jobs 15] [--seconds 500]
    python benchmarks/law.py --fit

Phantoms are made in WORK; `slices` (MR and CT of heads, 8 bit) and `brains` (T1 and T2, stripped) must be there, in
WORK/TASK_scans, each with a cases.csv that names the splits.
"""

import argparse
import itertools
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import torch
from accelerate import Accelerator

from voxlate.batch import Batch
from voxlate.batches.batches import validation_batches
from voxlate.cases.prepare import prepare
from voxlate.cases.prepared import Cohort, open_cohort
from voxlate.diffusion.noise import Noise
from voxlate.phantoms import write_cohort
from voxlate.planning import stages
from voxlate.planning.facts import facts_of
from voxlate.planning.roles import roles_of
from voxlate.planning.rules import Size
from voxlate.recipe import FullStage, from_dict
from voxlate.recipe import text as recipe_text
from voxlate.training.job import Job
from voxlate.training.step import begin_learner, take_step
from voxlate.training.validate import autocast

RESULTS = Path(__file__).with_suffix(".jsonl")
SCORED_BATCH = 8


@dataclass(frozen=True)
class Task:
    """A cohort and what is made of what; size: of its phantoms, where it is of those."""

    source: str
    target: str
    size: tuple[int, int, int] | None = None
    cases: int = 0
    shares: tuple[float, float, float] = (0.7, 0.3, 0.0)


TASKS = {
    "slices": Task("mr", "ct"),
    "brains": Task("t1", "t2"),
    "heads": Task("t1", "ct", (128, 152, 24), 15),
    "many": Task("t1", "t2", (160, 192, 34), 36, (0.84, 0.16, 0.0)),
}


STEMS = {
    "slices": (4, 2),
    "brains": (4, 2),
    "heads": (2, 4, 1),
    "many": (4, 2),
}  # the first with more rows


class Measured(NamedTuple):
    """A training that the law is fitted to; error: in the body, network units."""

    task: str
    width: int
    feature_mm: float
    steps: int
    batch: int
    error: float


OTHERS = [  # trainings of ingredients.jsonl, whose whole-image errors are 2.17 times as large in the body
    Measured("slices", 32, 4.0, 729, 4, 0.272),
    Measured("slices", 32, 4.0, 740, 4, 0.274),
    Measured("slices", 64, 4.0, 730, 4, 0.264),
    Measured("slices", 16, 2.0, 1342, 4, 0.282),
]


@dataclass(frozen=True)
class Row:
    """One training; changes: of its recipe's keys."""

    task: str
    width: int
    stem: int
    steps: int
    batch: int = 4
    changes: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    @property
    def cost(self) -> float:
        """Relative seconds, so that the shortest trainings begin first."""
        return self.steps * self.batch * (1 + self.width / 32) / self.stem**1.5


def grid() -> list[Row]:
    """All rows of the table."""
    rows = []
    for task, stems in STEMS.items():
        for width, stem, steps in itertools.product((16, 32, 64), stems, (75, 225, 675)):
            rows.append(Row(task, width, stem, steps))
        rows += [Row(task, width, stems[0], 2000) for width in (16, 32)]
        rows += [Row(task, 32, stems[0], steps, 2) for steps in (150, 450, 1350)]
        rows += [Row(task, 32, stems[0], steps, 8) for steps in (112, 337)]
        rows += [Row(task, 32, stems[0], 225, seed=seed) for seed in (1, 2)]
        rows += [
            Row(task, 32, stems[0], steps, changes={"train.optimiser.hold": "0.2"})
            for steps in (225, 675)
        ]
    return rows


def cohort_of(name: str, work: Path, workers: int) -> Cohort:
    """The prepared cohort of a task, made where it is not there."""
    task, scans, prepared = TASKS[name], work / f"{name}_scans", work / name
    wanted = [task.source, task.target]
    if task.size is not None:
        write_cohort(scans, task.cases, task.size, modalities=wanted)
    if not (prepared / "cohort.json").exists():
        prepare(scans, prepared, modalities=wanted, shares=task.shares, workers=workers)
    return open_cohort(prepared)


def measured(row: Row, cohort: Cohort, device: torch.device) -> dict[str, Any]:
    """Train a row and score it on all held-out slices: mean absolute errors in network units, whole patch and body."""
    task = TASKS[row.task]
    facts = facts_of(cohort)
    roles = roles_of(facts, (task.source,), (task.target,))
    tables, _ = stages.first_stage(facts, roles, Size(row.width, row.stem, row.batch), row.steps)
    changes = {"train.seed": str(row.seed), **row.changes}
    recipe = from_dict(recipe_text.changed(tables, changes), f"{row}")
    (stage,) = recipe.all_stages
    torch.manual_seed(row.seed)
    job = Job(recipe, stage, cohort, Accelerator(cpu=device.type == "cpu"), device)
    learner = begin_learner(stage.build({}).to(device), stage.train, device, 0)
    batches, begun = iter(job.batches()), time.perf_counter()
    for step in range(row.steps):
        take_step(learner, learner.method, stage.train, job.seed, batches, device)
        learner.average.move(stage.train.ema, step)
        learner.step += 1
    seconds = time.perf_counter() - begun
    held_out = validation_batches(cohort, stage.data, recipe.intensity, "val", SCORED_BATCH)
    whole, body = _errors(learner.averaged, held_out, stage, recipe.synth, device)
    return {
        **asdict(row),
        "mae": whole,
        "mae_body": body,
        "seconds": round(seconds, 1),
        "slices": facts.slices,
        "patients": facts.patients,
        "feature_mm": row.stem * facts.pixel_mm,
        "apart_mm": facts.apart_mm,
    }


@torch.no_grad()
def _errors(
    method: Any, batches: Iterator[Batch], stage: FullStage, synth: Any, device: torch.device
) -> tuple[float, float]:
    total = np.zeros(4)
    for batch in batches:
        batch = batch.to(device)
        with autocast(device, stage.train.precision):
            image = method.synthesise(
                method.as_at_inference(batch),
                Noise(0, batch.item),
                stage.validation_sampling(synth),
            ).float()
        assert batch.target is not None
        error = (image - batch.target).abs()
        mask = batch.mask.expand_as(error) > 0.5
        total += [float(error.sum()), error.numel(), float(error[mask].sum()), int(mask.sum())]
    return total[0] / total[1], total[2] / total[3]


def fit() -> tuple[dict[str, float], float]:
    """The law's constants by least squares of log errors, a factor for each cohort, and their root mean square misfit.

    Weak priors hold what few rows decide: GAIN 0.05 ± 2, DECAY 0.8 ± 3.
    """
    rows = [Measured(one["task"], one["width"], one["feature_mm"], one["steps"], one["batch"], one["mae_body"])
            for one in finished()] + OTHERS  # fmt: skip
    tasks = sorted({row.task for row in rows})

    def misfits(values: np.ndarray) -> np.ndarray:
        late, decay, coarse, narrow, few, gain = values[len(tasks) :]
        found = []
        for row in rows:
            worth = (
                np.exp(late)
                * (row.feature_mm / 2) ** coarse
                * (32 / row.width) ** narrow
                * (4 / row.batch) ** few
            )
            own = values[tasks.index(row.task)] - gain * np.log(row.width / 32)
            found.append(own + np.log(1 + (worth / row.steps) ** decay) - np.log(row.error))
        return np.array([*found, 0.5 * (gain - 0.05), 0.3 * (decay - 0.8)])

    begin = [np.log(0.2)] * len(tasks) + [4.0, 0.7, 1.5, 0.3, 0.3, 0.1]
    fitted = scipy.optimize.least_squares(misfits, begin).x
    names = ("LATE", "DECAY", "COARSE", "NARROW", "FEW", "GAIN")
    constants = dict(zip(names, fitted[len(tasks) :]))
    constants["LATE"] = np.exp(constants["LATE"])
    rms = float(np.sqrt(np.mean(misfits(fitted)[: len(rows)] ** 2)))
    return {name: float(value) for name, value in constants.items()}, rms


def finished() -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    )


def _key(row: Mapping[str, Any]) -> str:
    names = ("task", "width", "stem", "steps", "batch", "changes", "seed")
    return json.dumps([row[name] for name in names], sort_keys=True)


def _work(queue: Any, results: Any, work: Path, device: str, until: float) -> None:
    torch.set_num_threads(1)
    cohorts = {
        name: open_cohort(work / name) for name in TASKS if (work / name / "cohort.json").exists()
    }
    while time.time() < until and (row := queue.get()) is not None:
        try:
            results.put(measured(row, cohorts[row.task], torch.device(device)))
        except Exception as error:  # one row's failure is no reason to lose the others
            results.put(f"{row}: {error!r}")
    results.put(None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, nargs="?", default=Path("bench"))
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="no training begins after these")
    parser.add_argument("--most-steps", type=int, default=10**9)
    parser.add_argument(
        "--fit", action="store_true", help="fit the law to the rows that are there, and print it"
    )
    arguments = parser.parse_args()
    if arguments.fit:
        constants, rms = fit()
        print(
            ", ".join(f"{name} {value:.3g}" for name, value in constants.items()),
            f"; misfit {rms:.1%}",
        )
        return
    began = time.time()
    names = arguments.tasks or list(TASKS)
    for name in names:
        cohort_of(name, arguments.work, arguments.jobs)
        print(f"{name}: prepared after {time.time() - began:.0f} s", flush=True)
    done = {_key(row) for row in finished()}
    rows = [row for row in grid() if row.task in names and _key(asdict(row)) not in done]
    rows = [row for row in rows if row.steps <= arguments.most_steps]
    context = multiprocessing.get_context("spawn")
    queue, results = context.Queue(), context.Queue()
    for row in sorted(rows, key=lambda one: one.cost):
        queue.put(row)
    for _ in range(arguments.jobs):
        queue.put(None)
    until = began + arguments.seconds
    for _ in range(arguments.jobs):
        context.Process(
            target=_work,
            args=(queue, results, arguments.work, arguments.device, until),
            daemon=True,
        ).start()
    ended = 0
    while ended < arguments.jobs:
        row = results.get()
        ended += row is None
        if isinstance(row, dict):
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if row is not None:
            print(json.dumps(row) if isinstance(row, dict) else row, flush=True)


if __name__ == "__main__":
    main()
