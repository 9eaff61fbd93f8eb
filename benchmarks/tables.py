"""The tables of papers 003 and 004 on phantoms: every row in equal minutes, tuned alike, with three seeds.

    python benchmarks/tables.py WORK [TABLE[:ROW[:SEED]] …] [--minutes 2] [--print]   (`make tables`: hours)

A row is one recipe, or several that share its minutes. The steps of all its stages are multiplied by one factor, so
that the steps take the minutes given on one thread of this machine, in processor time. A step is first timed alone;
the tries of learning rates then correct that time, because they take many more steps. Both times are kept in
WORK/paces.json. The learning rates are multiplied by the factor of RATES that has the least error on the validation
heads after a fifth of the minutes. Later seeds of a row take the steps and the rate of its first one, also on another
machine. Results are kept in tables.jsonl next to this file, a JSON line for each row, draw and seed; existing lines are
skipped. --print shows the tables: mean over seeds and, in brackets, the range.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch

import voxlate
from json_lines import append, finished
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.planning.probe import Limits, Probe
from voxlate.training.recipe import Recipe, from_dict, read, to_dict
from voxlate.training.run import Run
from voxlate.training.weights import read_header

RESULTS = Path(__file__).with_suffix(".jsonl")
RATES = (0.5, 1.0, 2.0, 4.0)
SEEDS = (0, 1, 2)
TUNED = 1 / 5  # share of the minutes that a try of a learning rate takes
SYNTHESIS = "synthesis"
PLAIN = {"units": "network", "mask": "body"}  # what tries of learning rates are compared in


@dataclass(frozen=True)
class Column:
    """A column of the printed table: a score's mean (number 0) or deviation over patients (1), and its best value."""

    title: str
    score: str
    best: float
    digits: int
    number: int = 0


COLUMNS = {
    "mae": Column("MAE", "mae", 0, 2),
    "ssim": Column("SSIM", "ssim_2d", 1, 3),
    "psnr": Column("PSNR, dB", "psnr", 1000, 1),
    "psnr_sd": Column("its SD over patients", "psnr", 0, 2, number=1),
    "ssim_3d": Column("SSIM 3-D", "ssim_3d", 1, 3),
    "mae_z": Column("MAE z", "mae_z", 0, 2),
    "gradient": Column("gradient ratio", "gradient_strength", 1, 2),
    "vessels": Column("vessels' Dice", "vessels.dice", 1, 2),
}

# Scores of the lines: those of the tables, and the brightness of the enhancing rim, which the text states.
KEPT = {column.score for column in COLUMNS.values()} | {"enhancing.mean", "enhancing.truth_mean"}


@dataclass(frozen=True)
class Training:
    """A recipe that a row trains, with its changes; folder: the name of its run."""

    recipe: str
    changes: Mapping[str, str]
    folder: str

    def read(self) -> Recipe:
        return read(self.recipe, self.changes)


@dataclass(frozen=True)
class Row:
    """Recipes whose runs make a row; draws: the ways of drawing from them that are rows of their own.

    once: the draws that are measured with the first seed alone, because they take long; changes: of the recipes; each:
    further changes of each training, where one recipe is trained several times.
    """

    recipes: tuple[str, ...]
    draws: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    once: tuple[str, ...] = ()
    changes: Mapping[str, str] = field(default_factory=dict)
    each: tuple[Mapping[str, str], ...] = ({},)

    @property
    def trainings(self) -> list[Training]:
        """The trainings of the row."""
        several = [(name, further) for name in self.recipes for further in self.each]
        return [
            Training(name, {**self.changes, **further}, f"{name}_{number}" if number else name)
            for number, (name, further) in enumerate(several)
        ]


@dataclass(frozen=True)
class Table:
    """A cohort of phantoms, how it is split and scored, and the rows; completes: each contrast from all others."""

    phantoms: Mapping[str, Any]
    shares: tuple[int, int, int]
    scoring: Mapping[str, Any]
    rows: Mapping[str, Row]
    columns: tuple[str, ...]
    completes: bool = False


SHARP = {
    "sampler": "dpmpp_2m",
    "steps": 32,
}  # keeps at least 90 % of the true standard deviation (docs: spread)
CONTRASTS = ("flair", "t1", "t1c", "t2")
COMPLETION = {
    "cases": 40,
    "size": (80, 96, 40),
    "lesion": "tumour",
    "stripped": True,
    "seed": 3,
    "modalities": CONTRASTS,
}
TO_EACH = tuple(  # one contrast from the others
    {
        "data.source": json.dumps([other for other in CONTRASTS if other != name]),
        "data.target": json.dumps([name]),
    }
    for name in CONTRASTS
)
IN_BRAIN = PLAIN | {"regions": {"tumour": "lesion>0", "enhancing": "lesion=3"}}
TABLES = {
    "umm_csgm": Table(
        COMPLETION,
        (30, 2, 8),
        IN_BRAIN,
        {
            "umm_csgm_small": Row(
                ("umm_csgm_small",),
                {"one sample": {}, "mean of eight": {"samples": 8}, "one sample, 32 steps": SHARP},
                once=("one sample, 32 steps",),
            ),
            "mm_gan_small": Row(("mm_gan_small",)),
            "ucd_gan_small": Row(("ucd_gan_small",)),
            "hi_net_small": Row(("hi_net_flair_small",), each=TO_EACH),
            "mm_syn_small": Row(("mm_syn_small",)),
            "coca_gan_small": Row(
                ("coca_gan_small",),
                changes={"data.labels": '["lesion"]', "net.classes": "4"},  # phantoms' tumours
            ),
        },
        columns=("mae", "ssim", "psnr", "psnr_sd", "gradient"),
        completes=True,
    ),
    "make_a_volume": Table(
        {"cases": 24, "size": (96, 96, 48), "seed": 4, "modalities": ("swi", "tof")},
        (16, 2, 6),
        {"units": "network", "regions": {"arteries": "seg=13", "vessels": "tof>150"}},
        {
            "make_a_volume_swi_mra_small": Row(
                ("make_a_volume_swi_mra_small",),
                {"4 steps": {}, "32 steps": SHARP | {"end": 0.005}},
            ),
            "make_a_volume_slices_swi_mra_small": Row(("make_a_volume_slices_swi_mra_small",)),
            "pix2pix_swi_mra_small": Row(("pix2pix_swi_mra_small",)),
            "pix2pix_3d_swi_mra_small": Row(("pix2pix_3d_swi_mra_small",)),
            "cyclegan_3d_swi_mra_small": Row(("cyclegan_3d_swi_mra_small",)),
            "palette_tuned_swi_mra_small": Row(("palette_tuned_swi_mra_small",)),
            "palette_swi_mra_small": Row(("palette_swi_mra_small",)),
        },
        columns=("mae", "ssim", "psnr", "psnr_sd", "ssim_3d", "mae_z", "gradient", "vessels"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("wanted", nargs="*", metavar="TABLE[:ROW[:SEED]]")
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="of one thread, for each row and seed"
    )
    parser.add_argument(
        "--print", dest="shown", action="store_true", help="only print what was measured"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name, row, seed in _wanted(chosen.wanted):
        if not chosen.shown:
            measure(chosen.work / name, name, row, seed, chosen.minutes)
    for name in TABLES:
        print_table(name, chosen.minutes)


def _wanted(texts: list[str]) -> Iterator[tuple[str, str, int]]:
    """Table, row and seed of each line that is asked for, seed by seed: a table is whole early."""
    asked = [text.split(":") for text in texts or TABLES]
    for seed in SEEDS:
        for name, *rest in asked:
            for row in TABLES[name].rows:
                if rest[:1] in ([], [row]) and rest[1:2] in ([], [str(seed)]):
                    yield name, row, seed


def measure(work: Path, name: str, row: str, seed: int, minutes: float) -> None:
    """Train a row with a seed, draw and score it; lines that are there are kept."""
    table, one = TABLES[name], TABLES[name].rows[row]
    missing = [draw for draw in one.draws if seed == SEEDS[0] or draw not in one.once]
    missing = [draw for draw in missing if (name, row, draw, seed, minutes) not in _done()]
    if not missing:
        return
    heads, prepared = cohort(work, table)
    before = [
        line
        for line in finished(RESULTS)
        if (line["table"], line["row"], line["minutes"]) == (name, row, minutes)
    ]
    if before:
        rate, steps = before[0]["rate"], before[0]["steps"]
    else:
        rate = tuned_rate(work, table, one, row, heads, prepared, minutes)
        steps = steps_in(minutes, one, prepared)
    runs, stated = trained(
        work / "runs" / f"{row}_{seed}_{minutes:g}", one, prepared, steps, rate, seed
    )
    for draw in missing:
        place = work / "out" / f"{row}_{draw.replace(' ', '_')}_{seed}_{minutes:g}"
        scores = scored(table, runs, heads, place, "test", one.draws[draw])
        line = {
            "table": name,
            "row": row,
            "draw": draw,
            "seed": seed,
            "minutes": minutes,
            "rate": rate,
            **stated,
        }
        append(RESULTS, [{**line, "scores": scores}])


def cohort(work: Path, table: Table) -> tuple[Path, Path]:
    """The phantoms and their prepared form, made once."""
    heads, prepared = work / "heads", work / "prepared"
    voxlate.phantom(heads, **table.phantoms)
    voxlate.prepare(heads, prepared, shares=table.shares, audit=False)
    return heads, prepared


def tuned_rate(
    work: Path, table: Table, row: Row, name: str, heads: Path, prepared: Path, minutes: float
) -> float:
    """The factor of the learning rates that does best on the validation heads; kept in WORK/rates.json."""
    path = work / "rates.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    key = f"{name} {minutes:g}"
    if key not in known:
        errors: dict[float, float] = {}
        for rate in RATES:
            tried = work / "tries" / f"{name}_{rate:g}_{minutes:g}"
            steps = steps_in(minutes * TUNED, row, prepared)
            corrected = all(_seconds(tried, one).exists() for one in row.trainings)
            runs, stated = trained(tried, row, prepared, steps, rate, 0)
            if not errors and not corrected:
                correct_paces(row, prepared, stated["seconds"] / (minutes * TUNED * 60))
            place = work / "tries" / f"{name}_{rate:g}_{minutes:g}_out"
            errors[rate] = _mean_error(
                scored(replace(table, scoring=PLAIN), runs, heads, place, "val", {})
            )
        known[key] = {
            "rate": min(errors, key=errors.__getitem__),
            "errors": {str(k): v for k, v in errors.items()},
        }
        path.write_text(json.dumps(known, indent=1))
    return float(known[key]["rate"])


def trained(
    out: Path, row: Row, prepared: Path, steps: list[list[int]], rate: float, seed: int
) -> tuple[list[Run], dict[str, Any]]:
    """The runs of a row, and what they were: steps, parameters, seconds of processor time.

    A training that was stopped begins again, because its seconds would be those of its last part alone.
    """
    runs, seconds = [], 0.0
    for one, lengths in zip(row.trainings, steps, strict=True):
        clock, kept = Clock(), _seconds(out, one)
        if not kept.exists():
            shutil.rmtree(out / one.folder, ignore_errors=True)
        recipe = as_row(one, lengths, rate, seed)
        runs.append(voxlate.train(recipe, prepared, out / one.folder, device="cpu", progress=clock))
        if not kept.exists():
            kept.write_text(f"{clock.seconds}")
        seconds += float(kept.read_text())
    parameters = sum(read_header(run.weights())["parameters"] for run in runs)
    return runs, {"steps": steps, "parameters": parameters, "seconds": seconds}


def _seconds(out: Path, training: Training) -> Path:
    """The file that holds the seconds of a whole training."""
    return out / f"{training.folder}.seconds"


class Clock:
    """The processor time between the first and the last report of a training."""

    def __init__(self) -> None:
        self.begun, self.seconds = math.nan, 0.0

    def __call__(self, name: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        now = time.process_time()
        self.begun = now if math.isnan(self.begun) else self.begun
        self.seconds = now - self.begun


def seconds_of_steps(training: Training, prepared: Path) -> list[float]:
    """Seconds of one thread that a step of each stage takes; kept next to the prepared cohort."""
    known, key = _paces(prepared), _key(training)
    if key not in known:
        probe = Probe(open_cohort(prepared), Limits(1.0, math.inf), "cpu")
        recipe = training.read()
        measured = [
            probe.measure(to_dict(recipe), number) for number in range(len(recipe.all_stages))
        ]
        known[key] = [step.seconds for step in measured if step is not None]
        _keep_paces(prepared, known)
    return known[key]


def correct_paces(row: Row, prepared: Path, factor: float) -> None:
    """Multiply the times of a row's steps by the time that its trainings took over the time that was planned."""
    known = _paces(prepared)
    for key in map(_key, row.trainings):
        known[key] = [seconds * factor for seconds in known[key]]
    _keep_paces(prepared, known)


def _key(training: Training) -> str:
    changes = (f"{key}={value}" for key, value in training.changes.items())
    return " ".join([training.recipe, *changes])


def _paces(prepared: Path) -> dict[str, list[float]]:
    path = prepared.parent / "paces.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _keep_paces(prepared: Path, known: Mapping[str, list[float]]) -> None:
    (prepared.parent / "paces.json").write_text(json.dumps(known, indent=1))


def steps_in(minutes: float, row: Row, prepared: Path) -> list[list[int]]:
    """The steps of each recipe's stages that share the minutes, in the proportions that the recipe states.

    A recipe whose length is given in epochs has one stage, which takes all minutes.
    """
    steps = []
    for training in row.trainings:
        shares = [stage.train.steps or 1000 for stage in training.read().all_stages]
        seconds = seconds_of_steps(training, prepared)
        factor = (
            minutes
            / len(row.trainings)
            * 60
            / sum(a * b for a, b in zip(seconds, shares, strict=True))
        )
        steps.append([max(int(share * factor), 1) for share in shares])
    return steps


def as_row(training: Training, steps: list[int], rate: float, seed: int) -> Recipe:
    """The recipe with other steps, its learning rates multiplied by a factor, and a seed."""
    tables = to_dict(training.read())
    stages = [table["train"] for table in (*tables.get("stages", ()), tables)]
    for stage, length in zip(stages, steps, strict=True):
        stage.pop("epochs", None)
        stage["steps"] = length
        stage["seed"] = seed
        stage["optimiser"]["lr"] *= rate
    return from_dict(tables, "the row")


def scored(
    table: Table,
    runs: list[Run],
    heads: Path,
    out: Path,
    split: Literal["val", "test"],
    draw: Mapping[str, Any],
) -> dict[str, Any]:
    """Mean and standard deviation over patients of each score, by target and answer."""
    if table.completes:
        folders: Any = [run.folder for run in runs]
        scores = voxlate.evaluate(
            out,
            heads,
            run=folders,
            missing="one",
            anyway=True,
            split=split,
            set=draw,
            **table.scoring,
        )
    else:
        voxlate.synthesise(runs[0].folder, heads, out, anyway=True, split=split, **draw)
        scores = voxlate.evaluate(out, heads, **table.scoring)
    return {
        name: {answer: _summaries(scores.rows, name, answer) for answer in part["answers"]}
        for name, part in scores.document()["modalities"].items()
    }


def _summaries(rows: Any, modality: str, answer: str) -> dict[str, list[float]]:
    """[mean, standard deviation] over patients of the scores that are KEPT and are numbers."""
    found = [row.scores for row in rows if (row.modality, row.method) == (modality, answer)]
    keys = [key for key in found[0] if all(isinstance(one.get(key), float) for one in found)]
    keys = [key for key in keys if key in KEPT]
    values = {key: [one[key] for one in found] for key in keys}
    return {
        key: [mean(each), stdev(each) if len(each) > 1 else 0.0] for key, each in values.items()
    }


def _mean_error(scores: Mapping[str, Any]) -> float:
    return mean(part[SYNTHESIS]["mae"][0] for part in scores.values())


def _done() -> set[tuple[str, str, str, int, float]]:
    return {
        (one["table"], one["row"], one["draw"], one["seed"], one["minutes"])
        for one in finished(RESULTS)
    }


def print_table(name: str, minutes: float) -> None:
    """One table in Markdown: for each target the rows and the strongest naive baselines, mean and range over seeds.

    The best mean of a column is bold, and so is every mean whose range overlaps with the range of the best: such a
    difference counts as none.
    """
    lines = [
        line for line in finished(RESULTS) if (line["table"], line["minutes"]) == (name, minutes)
    ]
    columns = [
        key
        for key in TABLES[name].columns
        if any(COLUMNS[key].score in part for part in _parts(lines))
    ]
    print(f"\n**{name}**, {minutes:g} minutes of one thread a row\n")
    print(
        "|target|row|parameters|rate|seeds|" + "|".join(COLUMNS[key].title for key in columns) + "|"
    )
    print("|---" * (len(columns) + 5) + "|")
    for target in dict.fromkeys(target for line in lines for target in line["scores"]):
        for heading, scores in _with_bold(_rows(lines, target), columns).items():
            print(f"|{target}|{heading}|" + "|".join(scores) + "|")


def _parts(lines: list[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        for answers in line["scores"].values():
            yield answers[SYNTHESIS]


def _rows(lines: list[dict[str, Any]], target: str) -> dict[str, dict[str, list[float]]]:
    """The values over seeds of each score, by the first cells of a row: name, parameters, rate, seeds."""
    rows: dict[str, dict[str, list[float]]] = {}
    for row, draw in dict.fromkeys((line["row"], line["draw"]) for line in lines):
        mine = [
            line
            for line in lines
            if (line["row"], line["draw"]) == (row, draw) and target in line["scores"]
        ]
        if not mine:
            continue
        label = f"`{row}`" + (f", {draw}" if draw else "")
        size = f"{mine[0]['parameters'] / 1e6:.2f} M"
        heading = f"{label}|{size}|×{mine[0]['rate']:g}|{len(mine)}"
        rows[heading] = _values([line["scores"][target][SYNTHESIS] for line in mine])
    for label, part in _strongest_naive(lines, target).items():
        rows[f"{label}||||"[:-1]] = _values([part])
    return rows


def _values(parts: list[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """The values over seeds of each column, by its key."""
    return {
        key: [part[column.score][column.number] for part in parts]
        for key, column in COLUMNS.items()
        if all(column.score in part for part in parts)
    }


def _strongest_naive(
    lines: list[dict[str, Any]], target: str
) -> dict[str, Mapping[str, list[float]]]:
    """The naive baselines of a target with the lowest MAE and with the highest SSIM; no training changes them."""
    naive = {
        answer: part
        for line in lines
        for answer, part in line["scores"].get(target, {}).items()
        if answer != SYNTHESIS and {"mae", "ssim_2d"} <= part.keys()
    }
    if not naive:
        return {}
    chosen = (
        min(naive, key=lambda name: naive[name]["mae"][0]),
        max(naive, key=lambda name: naive[name]["ssim_2d"][0]),
    )
    return {name: naive[name] for name in dict.fromkeys(chosen)}


def _with_bold(rows: dict[str, dict[str, list[float]]], columns: list[str]) -> dict[str, list[str]]:
    """The cells of each row; those that no other row is better than by more than the ranges are bold."""
    cells: dict[str, list[str]] = {heading: [] for heading in rows}
    for key in columns:
        column = COLUMNS[key]
        known = {heading: values[key] for heading, values in rows.items() if key in values}
        best = min(known.values(), key=lambda values: abs(mean(values) - column.best))
        for heading in rows:
            values = known.get(heading, [])
            overlaps = bool(values) and min(values) <= max(best) and max(values) >= min(best)
            text = _cell(values, column.digits)
            cells[heading].append(f"**{text}**" if overlaps else text)
    return cells


def _cell(values: list[float], digits: int) -> str:
    if not values:
        return ""
    text = f"{mean(values):.{digits}f}"
    return (
        text if len(values) < 2 else f"{text} ({min(values):.{digits}f}–{max(values):.{digits}f})"
    )


if __name__ == "__main__":
    main()
