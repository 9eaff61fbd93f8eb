"""What all tables of starters share: jobs and their lines, cohorts, trainings in processor time, and scores."""

import csv
import io
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import voxlate
from ingredients import finished, layout
from voxlate.cohorts.find import CaseFiles, find_cohort
from voxlate.planning import pace
from voxlate.planning.plan import Plan, plan_training
from voxlate.planning.probe import Limits, Probe, free_memory
from voxlate.recipe import Recipe
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.tables import Scores
from voxlate.starters import names
from voxlate.starters.card import read_card
from voxlate.starters.names import CARD
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model, load
from voxlate.synthesis.scans import find_scans
from voxlate.training.run import Run
from voxlate.training.train import train

SYNTHESIS = "synthesis"
SCORES = {"mae": "mae_rel", "ssim": "ssim_2d", "gradient": "gradient_strength"}
ALIGNED = {f"aligned_{name}": f"aligned.{key}" for name, key in SCORES.items()}
HEAD_CT = "head-mr-to-ct"


@dataclass(frozen=True)
class Setup:
    """The options of a call; minutes: instead of those of each table; limit: of the cases of a cohort, for trials."""

    work: Path
    starters: Path
    seeds: tuple[int, ...]
    minutes: float | None
    size: tuple[int, int, int]
    limit: int | None = None

    @property
    def grid(self) -> str:
        """The voxels of phantoms, as a part of names."""
        return "x".join(map(str, self.size))

    def folder(self, *parts: str) -> Path:
        return self.work.joinpath("tables", *parts)

    def minutes_of(self, *usual: float) -> tuple[float, ...]:
        return usual if self.minutes is None else (self.minutes,)

    def key(self, table: str, starter: str = "", **rest: Any) -> dict[str, Any]:
        """The key of a line: the weights of its starter by their checksum ("" without one), and a trial's limit."""
        weights = read_card(self.starters / starter).sha256[:12] if starter else ""
        trial = {} if self.limit is None else {"limit": self.limit}
        return {"table": table, "weights": weights, **rest, **trial}

    def has(self, starter: str, cohort: str = "") -> bool:
        """Whether a starter and a real cohort are there; says what is not."""
        wanted = [self.starters / starter / CARD]
        wanted += [self.work / f"{cohort}_scans"] if cohort else []
        absent = [path for path in wanted if not path.exists()]
        for path in absent:
            print(f"{starter}: {path} is not there, so that it is not measured.", flush=True)
        return not absent


@dataclass(frozen=True)
class Job:
    """A measurement: the key that finds its line again, and the function that gives the rest of the line."""

    key: Mapping[str, Any]
    run: Callable[[], Mapping[str, Any]]


def measure(jobs: Iterable[Job], out: Path) -> None:
    """Run the jobs without a line, and append a line for each."""
    for job in jobs:
        if any(line.items() >= job.key.items() for line in finished(out)):
            continue
        line = {**job.key, **job.run()}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def use_starters(folder: Path) -> None:
    """Let starter:NAME mean the starters of a folder, instead of those that are installed."""
    names.FOLDER = folder


def cases_of(setup: Setup, cohort: str) -> list[CaseFiles]:
    """The cases of a real cohort; of a trial evenly chosen ones."""
    scans = setup.work / f"{cohort}_scans"
    cases = find_cohort(scans, **layout(scans)).cases
    limit = len(cases) if setup.limit is None else setup.limit
    return cases[:: -(-len(cases) // limit)]


def pairs_of(
    setup: Setup,
    label: str,
    cases: Sequence[CaseFiles],
    splits: Mapping[str, str] | None = None,
    **options: Any,
) -> Path:
    """The prepared pairs of mr and ct of some cases, made anew where other cases were prepared under this label.

    splits: of patients, the others teach; options: of voxlate.prepare.
    """
    prepared = setup.folder("prepared", label)
    manifest = setup.folder("prepared", f"{label}.csv")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", "patient", "split", "mr", "ct"])
    for case in cases:
        split = (splits or {}).get(case.patient, "train")
        table.writerow([case.case, case.patient, split, case.files["mr"], case.files["ct"]])
    same = manifest.is_file() and manifest.read_text(encoding="utf-8") == text.getvalue()
    if same and (prepared / "cohort.json").is_file():
        return prepared
    shutil.rmtree(prepared, ignore_errors=True)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(text.getvalue(), encoding="utf-8")
    with warnings.catch_warnings():
        # A picture is one slice, of which synthesis through a starter warns each time.
        warnings.simplefilter("ignore")
        voxlate.prepare(
            manifest.parent,
            prepared,
            manifest=manifest,
            allow_outside=True,
            modalities=["mr", "ct"],
            audit=False,
            progress=False,
            **options,
        )
    return prepared


class Clock:
    """The processor time between the first and the last report of a training."""

    def __init__(self) -> None:
        self.begun, self.seconds, self.steps = math.nan, 0.0, 0

    def __call__(self, stage: str, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        now = time.process_time()
        if math.isnan(self.begun):
            self.begun, self.first = now, step
        self.seconds, self.steps = now - self.begun, step - self.first

    @property
    def step_seconds(self) -> float:
        return self.seconds / max(self.steps, 1)


class ProcessorProbe(Probe):
    """A probe whose minutes are processor time."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.begun = time.process_time()


@contextmanager
def processor_time() -> Iterator[None]:
    """Let plans and adaptations count the processor time of this process instead of the wall clock."""
    clock = SimpleNamespace(monotonic=time.process_time, perf_counter=time.process_time)
    with ExitStack() as held:
        held.enter_context(patch("voxlate.planning.probe.time", clock))
        held.enter_context(patch("voxlate.planning.plan.Probe", ProcessorProbe))
        held.enter_context(patch("voxlate.planning.adapt.Probe", ProcessorProbe))
        yield


def planned(prepared: Path, minutes: float, starter: bool) -> tuple[Plan, bool]:
    """The plan of `train auto --mode mean` for pairs of mr and ct, and whether it begins from a starter by itself.

    starter: begin from the one that fits even if the planner predicts less error from random weights.
    """

    def plan() -> Plan:
        return plan_training(
            prepared,
            source=("mr",),
            target=("ct",),
            limits=Limits(minutes, free_memory("cpu")),
            mode="mean",
            device="cpu",
            from_scratch=not starter,
        )

    with processor_time():
        made = plan()
        begins = "start_from" in made.tables
        if starter and not begins:
            with patch("voxlate.planning.plan.starter_error", lambda *_: -math.inf):
                made = plan()
    if starter and "start_from" not in made.tables:
        raise SystemExit(f"{prepared}: no starter fits: {made.why.get('start_from')}")
    return made, begins


def trained(made: Plan, prepared: Path, out: Path, seed: int) -> tuple[Run, dict[str, Any]]:
    """The run of a plan in its minutes of processor time, and its steps and minutes; a pace corrects the steps."""
    shutil.rmtree(out, ignore_errors=True)
    made = made.changed({"train.seed": str(seed)})
    clock = Clock()
    left = made.limits.minutes * 60 * (1 - pace.SPARE / 2) - made.probed_seconds
    paced = pace.Paced(
        time.process_time() + left, made.step_seconds, made.most_steps, now=time.process_time
    )

    def own_pace(recipe: Recipe, stage: str, step: int, seconds: float) -> Recipe | None:
        return paced(recipe, stage, step, clock.step_seconds)

    recipe, head = made.with_head
    run = train(recipe, prepared, out, head=head, pace=own_pace, device="cpu", progress=clock)
    return run, {
        "minutes_taken": round((clock.seconds + made.probed_seconds) / 60, 2),
        "steps": clock.steps,
    }


def images_of(
    model: Model,
    scans: Path,
    cases: Collection[str],
    out: Path,
    missing: Sequence[str] | None = None,
) -> Path:
    """Synthesise some cases of a cohort into a new folder; missing: modalities that are not read."""
    shutil.rmtree(out, ignore_errors=True)
    left_out = None if missing is None else [*missing]
    every = find_scans([str(scans)], model, missing=left_out, **layout(scans))
    found = [one for one in every if one.case in cases]
    synthesise_cases(model, found, out, warn=lambda _: None)
    return out


def scored(
    run: Path, setup: Setup, cohort: str, cases: Collection[str], out: Path, align: bool = False
) -> dict[str, float]:
    """Mean scores of some cases of a cohort, over the whole image, as the images are and aligned."""
    scans = setup.work / f"{cohort}_scans"
    images = images_of(load(run, "cpu"), scans, cases, out)
    table = evaluate(images, scans, cases=cases, align=align, **layout(scans))
    return means(table, {**SCORES, **ALIGNED} if align else SCORES)


def means(table: Scores, keys: Mapping[str, str], answer: str = SYNTHESIS) -> dict[str, float]:
    """The mean of each score over the images that have it, and the number of images."""
    rows = [row.scores for row in table.rows if row.answer == answer]
    made: dict[str, float] = {"images": len(rows)}
    for name, key in keys.items():
        values = [row[key] for row in rows if math.isfinite(row.get(key, math.nan))]
        if values:
            made[name] = round(mean(values), 5)
    return made
