"""The tables of papers 003 and 004 on phantoms: every row in equal minutes, tuned alike, with three seeds.

    python benchmarks/tables.py WORK [TABLE[:ROW[:SEED]] …] [--minutes 8] [--print]   (`make tables`: hours)

A row is one recipe, or several that share its minutes. The steps of all its stages are multiplied by one factor, so
that they take the minutes given on this machine's one thread, as timed before. Its learning rates are multiplied by
the factor of RATES that has the least error on the validation heads after a third of the minutes (seed 0). What is
measured lies in tables.jsonl next to this file, a JSON line for each row, draw and seed; lines that are there are
skipped. --print shows the tables: mean over seeds and, in brackets, the range.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch

import voxlate
from voxlate.data.prepared import open_cohort
from voxlate.planning.probe import Limits, Probe, free_memory
from voxlate.recipe import Recipe, from_dict, read, to_dict
from voxlate.training.run import Run, read_header

RESULTS = Path(__file__).with_suffix(".jsonl")
RATES = (0.5, 1.0, 2.0)
SEEDS = (0, 1, 2)
TUNED = 1 / 3  # share of the minutes that a try of a learning rate takes
SYNTHESIS = "synthesis"
COLUMNS = ("mae", "ssim_2d", "psnr", "ssim_3d", "ssim_coronal", "mae_z", "gradient_strength")


@dataclass(frozen=True)
class Row:
    """Recipes whose runs make a row; draws: the ways of drawing from them that are rows of their own."""

    recipes: tuple[str, ...]
    draws: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})


@dataclass(frozen=True)
class Table:
    """A cohort of phantoms, how it is split and scored, and the rows; completes: each contrast from all others."""

    phantoms: Mapping[str, Any]
    shares: tuple[int, int, int]
    scoring: Mapping[str, Any]
    rows: Mapping[str, Row]
    completes: bool = False


CONTRASTS = ("flair", "t1", "t1c", "t2")
TABLES = {
    "umm_csgm": Table(
        {"cases": 40, "size": (80, 96, 40), "lesion": "tumour", "stripped": True, "seed": 3, "modalities": CONTRASTS},
        (30, 2, 8),
        {
            "units": "network",
            "mask": "body",
            "scopes": ("whole",),
            "regions": {"tumour": "lesion>0", "enhancing": "lesion=3", "white": "seg=8"},
        },
        {
            "umm_csgm_small": Row(
                ("umm_csgm_small",),
                {"one sample": {}, "one sample, 32 steps": {"steps": 32}, "mean of eight": {"samples": 8}},
            ),
            "mm_gan_small": Row(("mm_gan_small",)),
            "ucd_gan_small": Row(("ucd_gan_small",)),
            "hi_net_small": Row(tuple(f"hi_net_{name}_small" for name in CONTRASTS)),
            "mm_syn_small": Row(("mm_syn_small",)),
            "coca_gan_small": Row(("coca_gan_small",)),
        },
        completes=True,
    ),
    "make_a_volume": Table(
        {"cases": 24, "size": (96, 96, 48), "seed": 4, "modalities": ("swi", "tof")},
        (16, 2, 6),
        {"units": "network", "regions": {"arteries": "seg=13", "vessels": "tof>150"}},
        {
            "make_a_volume_swi_mra_small": Row(
                ("make_a_volume_swi_mra_small",), {"4 steps": {}, "32 steps": {"steps": 32}}
            ),
            "make_a_volume_slices_swi_mra_small": Row(("make_a_volume_slices_swi_mra_small",)),
            "pix2pix_swi_mra_small": Row(("pix2pix_swi_mra_small",)),
            "pix2pix_3d_swi_mra_small": Row(("pix2pix_3d_swi_mra_small",)),
            "cyclegan_3d_swi_mra_small": Row(("cyclegan_3d_swi_mra_small",)),
            "palette_tuned_swi_mra_small": Row(("palette_tuned_swi_mra_small",)),
            "palette_swi_mra_small": Row(("palette_swi_mra_small",)),
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("wanted", nargs="*", metavar="TABLE[:ROW[:SEED]]")
    parser.add_argument("--minutes", type=float, default=8.0, help="of one thread, for each row and seed")
    parser.add_argument("--print", dest="shown", action="store_true", help="only print what was measured")
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
    missing = [draw for draw in one.draws if (name, row, draw, seed, minutes) not in _done()]
    if not missing:
        return
    heads, prepared = cohort(work, table)
    rate = tuned_rate(work, table, one, row, heads, prepared, minutes)
    runs, stated = trained(work / "runs" / f"{row}_{seed}_{minutes:g}", one, prepared, minutes, rate, seed)
    for draw in missing:
        place = work / "out" / f"{row}_{draw.replace(' ', '_')}_{seed}_{minutes:g}"
        scores = scored(table, runs, heads, place, "test", one.draws[draw])
        line = {"table": name, "row": row, "draw": draw, "seed": seed, "minutes": minutes, "rate": rate, **stated}
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "scores": scores}) + "\n")


def cohort(work: Path, table: Table) -> tuple[Path, Path]:
    """The phantoms and their prepared form, made once."""
    heads, prepared = work / "heads", work / "prepared"
    voxlate.phantom(heads, **table.phantoms)
    voxlate.prepare(heads, prepared, shares=table.shares, audit=False)
    return heads, prepared


def tuned_rate(work: Path, table: Table, row: Row, name: str, heads: Path, prepared: Path, minutes: float) -> float:
    """The factor of the learning rates that does best on the validation heads; kept in WORK/rates.json."""
    path = work / "rates.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    key = f"{name} {minutes:g}"
    if key not in known:
        errors = {}
        for rate in RATES:
            runs, _ = trained(work / "tries" / f"{name}_{rate:g}_{minutes:g}", row, prepared, minutes * TUNED, rate, 0)
            place = work / "tries" / f"{name}_{rate:g}_{minutes:g}_out"
            errors[rate] = _mean_error(scored(table, runs, heads, place, "val", {}))
        known[key] = {"rate": min(errors, key=errors.__getitem__), "errors": {str(k): v for k, v in errors.items()}}
        path.write_text(json.dumps(known, indent=1))
    return float(known[key]["rate"])


def trained(
    out: Path, row: Row, prepared: Path, minutes: float, rate: float, seed: int
) -> tuple[list[Run], dict[str, Any]]:
    """The runs of a row, which share its minutes, and what they were: steps, parameters, seconds."""
    runs = []
    for name in row.recipes:
        folder = out / name
        if not (folder / "recipe.toml").exists():
            recipe = paced(read(name), prepared, minutes / len(row.recipes), rate, seed)
        else:
            recipe = read(str(folder / "recipe.toml"))
        runs.append(voxlate.train(recipe, prepared, folder, device="cpu"))
    headers = [read_header(run.weights()) for run in runs]
    steps = [[stage.train.steps for stage in read(str(run.recipe)).all_stages] for run in runs]
    return runs, {
        "steps": steps,
        "parameters": sum(one["parameters"] for one in headers),
        "seconds": sum(one["seconds"] for one in headers),
    }


def paced(recipe: Recipe, prepared: Path, minutes: float, rate: float, seed: int) -> Recipe:
    """The recipe with all its steps multiplied so that they take the minutes, its rates by a factor, and a seed."""
    probe = Probe(open_cohort(prepared), Limits(minutes, free_memory("cpu")), "cpu")
    tables = to_dict(recipe)
    seconds = []
    for number, stage in enumerate(recipe.all_stages):
        measured = probe.measure(tables, number)
        assert measured is not None
        seconds.append(measured.seconds * stage.train.steps)
    factor = minutes * 60 / sum(seconds)
    for table in (*tables.get("stages", ()), tables):
        table["train"]["steps"] = max(int(table["train"]["steps"] * factor), 1)
        table["train"]["seed"] = seed
        table["train"]["optimiser"]["lr"] *= rate
    return from_dict(tables, "the row")


def scored(
    table: Table, runs: list[Run], heads: Path, out: Path, split: Literal["val", "test"], draw: Mapping[str, Any]
) -> dict[str, Any]:
    """Mean and standard deviation over patients of each score, by target and answer."""
    if table.completes:
        folders: Any = [run.folder for run in runs]
        scores = voxlate.evaluate(out, heads, run=folders, missing="one", split=split, **draw, **table.scoring)
    else:
        voxlate.synthesise(runs[0].folder, heads, out, split=split, **draw)
        scores = voxlate.evaluate(out, heads, **table.scoring)
    return {
        name: {answer: _summaries(scores.rows, name, answer) for answer in part["answers"]}
        for name, part in scores.document()["modalities"].items()
    }


def _summaries(rows: Any, modality: str, answer: str) -> dict[str, list[float]]:
    """[mean, standard deviation] over patients of each score that is a number."""
    found = [row.scores for row in rows if (row.modality, row.answer) == (modality, answer)]
    keys = [key for key in found[0] if all(isinstance(one.get(key), float) for one in found)]
    values = {key: [one[key] for one in found] for key in keys}
    return {key: [mean(each), stdev(each) if len(each) > 1 else 0.0] for key, each in values.items()}


def _mean_error(scores: Mapping[str, Any]) -> float:
    return mean(part[SYNTHESIS]["mae"][0] for part in scores.values())


def _lines() -> list[dict[str, Any]]:
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def _done() -> set[tuple[str, str, str, int, float]]:
    return {(one["table"], one["row"], one["draw"], one["seed"], one["minutes"]) for one in _lines()}


def print_table(name: str, minutes: float) -> None:
    """A table in Markdown for each target: mean over seeds (least to most), and PSNR's deviation over patients."""
    lines = [one for one in _lines() if (one["table"], one["minutes"]) == (name, minutes)]
    for target in dict.fromkeys(target for one in lines for target in one["scores"]):
        keys = [key for key in COLUMNS if any(key in one["scores"].get(target, {}).get(SYNTHESIS, {}) for one in lines)]
        print(f"\n**{name}: {target}** ({minutes:g} minutes of one thread a row)\n")
        print("| row | parameters | seeds |", " | ".join(keys), "| PSNR's SD over patients |")
        print("|---" * (len(keys) + 4) + "|")
        for row, draw in dict.fromkeys((one["row"], one["draw"]) for one in lines):
            mine = [one for one in lines if (one["row"], one["draw"]) == (row, draw) and target in one["scores"]]
            parts = [one["scores"][target][SYNTHESIS] for one in mine]
            cells = [_cell([part[key][0] for part in parts if key in part]) for key in keys]
            label = f"`{row}`{f', {draw}' if draw else ''}"
            size = f"{mine[0]['parameters'] / 1e6:.2f} M"
            print(
                f"| {label} | {size} | {len(mine)} |", " | ".join(cells), f"| {_cell([p['psnr'][1] for p in parts])} |"
            )
        for label, part in _naive(lines, target):
            cells = [_cell([part[key][0]]) if key in part else "" for key in keys]
            print(f"| {label} | | |", " | ".join(cells), f"| {_cell([part['psnr'][1]])} |")


def _naive(lines: list[dict[str, Any]], target: str) -> list[tuple[str, dict[str, list[float]]]]:
    """The naive baselines of a target, which no training changes, the best first."""
    found = {}
    for one in lines:
        for answer, part in one["scores"].get(target, {}).items():
            if answer != SYNTHESIS and "mae" in part:
                found[answer] = part
    return sorted(found.items(), key=lambda item: item[1]["mae"][0])


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    text = f"{mean(values):.4g}"
    return text if len(values) < 2 else f"{text} ({min(values):.4g} to {max(values):.4g})"


if __name__ == "__main__":
    main()
