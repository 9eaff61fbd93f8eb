"""What becomes of lesions that the training hardly saw: `make lesions` (two hours of one core).

Made-up patients, multiphase CTA to Tmax: of 30 heads to learn from 70 %, 10 % or none have a stroke; 30 others with a
stroke and 20 without one are made, and their pieces above 6 s counted. Rows are JSON lines in lesions.jsonl; those that
are there are skipped. docs/guides/trust.md has the table, which `--table` prints.

    python benchmarks/lesions.py [--threads 1] [--table] WORK [SHARE:FAMILY …]

SHARE: 70, 10, 0. FAMILY: auto (both answers), auto_weighed (its regression with `data.weigh = { lesion = 10 }`), or a
recipe of the phantom, such as pix2pix_tmax_small.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ingredients import finished
from voxlate.cases.prepare import prepare
from voxlate.cohorts.find import find_cohort
from voxlate.phantoms import write_cohort
from voxlate.planning.plan import plan_training
from voxlate.planning.probe import Limits, free_memory
from voxlate.planning.stages import PREDICTOR
from voxlate.recipe import Recipe, read, stage_recipe
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.lesion_counts import COUNTS
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import load
from voxlate.synthesis.scans import find_scans
from voxlate.training.train import train

RESULTS = Path(__file__).with_suffix(".jsonl")
SOURCES, TARGET = ("ncct", "cta1", "cta2", "cta3"), "tmax"
SIZE, LEARN, MINUTES = (80, 80, 20), 30, 6
STROKES, OTHERS = 21 + 1 + 30, 30 + 1 + 20  # to learn from, to validate, to test
SHARES = (70, 10, 0)
FAMILIES = ("auto", "auto_weighed", "mrdpm_small", "pix2pix_tmax_small", "palette_tmax_small")
STEPS = {"pix2pix_tmax_small": 2500, "palette_tmax_small": 1200, "mrdpm_small": 800}


def scans_of(work: Path) -> dict[str, Path]:
    """Heads with a stroke and without one."""
    found = {}
    for number, (lesion, cases) in enumerate((("stroke", STROKES), ("none", OTHERS))):
        found[lesion] = work / f"scans_{lesion}"
        names = [*SOURCES, TARGET]
        write_cohort(found[lesion], cases, SIZE, lesion=lesion, modalities=names, seed=31 + number)  # type: ignore[arg-type]
    return found


def prepared(share: int, work: Path) -> tuple[Path, Path]:
    """The table of all cases with their splits, and what is prepared of it."""
    folder = work / f"share_{share}"
    table = folder / "cases.csv"
    if not (folder / "prepared" / "cohort.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with_stroke = round(LEARN * share / 100)
        learn = {"stroke": with_stroke, "none": LEARN - with_stroke}
        names = [*SOURCES, TARGET, "lesion"]
        lines = [f"case,patient,split,{','.join(names)}"]
        for lesion, scans in scans_of(work).items():
            most = 21 if lesion == "stroke" else 30
            for number, case in enumerate(sorted(scans.glob("phantom_*"))):
                split = "test" if number > most else "val" if number == most else "train"
                if number >= learn[lesion] and split == "train":
                    continue
                files = ",".join(str((case / f"{name}.nii.gz").resolve()) for name in names)
                lines.append(f"{lesion}_{number:03d},{lesion}_{number:03d},{split},{files}")
        table.write_text("\n".join(lines) + "\n")
        options: dict[str, Any] = {
            "mask": "brain",
            "align": "midline",
            "audit": False,
            "allow_outside": True,
        }
        prepare(work, folder / "prepared", manifest=table, **options)
    return table, folder / "prepared"


def recipe_of(family: str, data: Path) -> Recipe:
    if not family.startswith("auto"):
        return read(family, {"train.steps": str(STEPS[family]), "train.validate_every": "0"})
    made = plan_training(
        data,
        source=SOURCES,
        target=(TARGET,),
        limits=Limits(MINUTES, free_memory("cpu")),
        device="cpu",
    )
    if family == "auto":
        return made.recipe
    weighed = made.changed({"data.labels": '["lesion"]', "data.weigh": "{ lesion = 10 }"}).recipe
    return stage_recipe(weighed, PREDICTOR)


def measure(name: str, work: Path) -> Iterator[dict[str, Any]]:
    share, _, family = name.partition(":")
    table, data = prepared(int(share), work)
    folder = work / name.replace(":", "_")
    began = time.monotonic()
    if not (weights := folder / "run" / "weights.safetensors").exists():
        shutil.rmtree(folder, ignore_errors=True)
        train(recipe_of(family, data), data, folder / "run", device="cpu")
    recipe, minutes = load(weights.parent, "cpu").recipe, (time.monotonic() - began) / 60
    cases = find_cohort(work, manifest=table, allow_outside=True).cases
    asked = [one.case for one in cases if one.split == "test"]
    for answer in ("mean", "sample") if recipe.stages else ("",):
        model = load(weights.parent, "cpu", answer=answer or None)  # type: ignore[arg-type]
        mine = [
            one
            for one in find_scans([str(work)], model, manifest=table, allow_outside=True)
            if one.case in asked
        ]
        synthesise_cases(model, mine, folder / f"out{answer}", warn=lambda _: None)
        options: dict[str, Any] = {
            "manifest": table,
            "allow_outside": True,
            "mask": "brain",
            "cases": asked,
        }
        options["value_range"] = (0, 30)  # the plan's own window ends where its cohort does
        regions = {"stroke": "tmax>6", "lesion": "lesion>0.5"}
        rows = evaluate(folder / f"out{answer}", work, regions=regions, **options).rows
        ours = [row for row in rows if row.answer == "synthesis"]
        found = {
            kind: [row.scores for row in ours if row.case.startswith(kind)]
            for kind in ("stroke", "none")
        }
        counts = {
            key: sum(one.get(f"stroke.{key}") or 0 for one in found["stroke"]) for key in COUNTS
        }
        yield {
            "row": name,
            "answer": answer or "only",
            "minutes": round(minutes, 1),
            "mae": mean(found["stroke"], "mae"),
            "mae_lesion": mean(found["stroke"], "lesion.mae"),
            "mae_without": mean(found["none"], "mae"),
            "dice": mean(found["stroke"], "stroke.dice"),
            **counts,
            "invented_without": sum(one.get("stroke.invented") or 0 for one in found["none"]),
            "heads_with_invented": sum(
                (one.get("stroke.invented") or 0) > 0 for one in found["none"]
            ),
        }


def mean(rows: list[Any], key: str) -> float:
    values = [one[key] for one in rows if one.get(key) is not None and one[key] == one[key]]
    return round(sum(values) / len(values), 4) if values else float("nan")


def table() -> str:
    """The results as Markdown."""
    heads = [
        "strokes in training",
        "recipe, answer",
        "kept",
        "shrunk",
        "erased",
        "invented, with / without stroke",
    ]
    heads += ["Dice", "MAE, s: brain, lesion"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    order = {share: number for number, share in enumerate(map(str, SHARES))}
    for row in sorted(
        finished(RESULTS), key=lambda one: (order[one["row"].partition(":")[0]], one["row"])
    ):
        share, _, family = row["row"].partition(":")
        kept, shrunk, erased = (f"{row[key]:.0f}" for key in ("kept", "shrunk", "erased"))
        invented = f"{row['invented']:.0f} / {row['invented_without']:.0f} in {row['heads_with_invented']} of 20"
        cells = [
            f"{share} %",
            f"{family}, {row['answer']}",
            f"{kept} of {row['pieces']:.0f}",
            shrunk,
            erased,
            invented,
        ]
        lines.append(
            f"| {' | '.join([*cells, format(row['dice'], '.2f')])} | {row['mae']:.3f}, {row['mae_lesion']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, nargs="?", default=Path("bench"))
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--table", action="store_true", help="print the results, and measure nothing"
    )
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    torch.set_num_threads(arguments.threads)
    every = [
        f"{share}:{family}"
        for family in FAMILIES
        for share in SHARES
        if share or family != "auto_weighed"
    ]
    for name in arguments.rows or every:
        if name in {one["row"] for one in finished(RESULTS)}:
            continue
        rows = list(measure(name, arguments.work))
        with RESULTS.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in rows)
        print(*map(json.dumps, rows), sep="\n", flush=True)


if __name__ == "__main__":
    main()
