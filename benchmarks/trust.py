"""How far intervals hold on patients that neither training nor calibration saw: `make trust` (an hour).

Resumable: rows are JSON lines in trust.jsonl, and those that this commit has are skipped. docs/guides/trust.md says what came out.

    python benchmarks/trust.py [--threads 1] WORK [TASK …]

TASK, t1-ct or tof-cta: 240 made-up heads, 40 to learn from, 40 to calibrate, 160 to test; the mean answer.

Real heads are rows intervals-HEAD of evidence.py; which scans are flagged: faults.py.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import voxlate
from json_lines import append, finished
from tables import commit
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.groups import grouped
from voxlate.evaluation.calibrate import calibrate
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.find import find_cohort
from voxlate.synthesis.cohort import Selection, synthesise_cases
from voxlate.synthesis.scans import find_scans
from voxlate.training.load import load
from voxlate.training.planning.planner import plan_training
from voxlate.training.train import train

RESULTS = Path(__file__).with_suffix(".jsonl")
KEYS = ("mae", "coverage", "interval")
SIZE, COUNT = (72, 88, 14), 240
TASKS = ("t1-ct", "tof-cta")


def learned(
    name: str, scans: Path, split: dict[str, str], minutes: float, work: Path, **regions: str
) -> dict[str, Any]:
    """Train, where that is not done, calibrate and score; split: of each case by name."""
    folder = work / name.replace(":", "_")
    found, run = find_cohort(scans).cases, folder / "run"
    if not (run / "weights.safetensors").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        table = folder / "cases.csv"
        write_manifest(table, found, split, {name: name for name in sorted(found[0].files)})
        voxlate.prepare(
            scans,
            folder / "prepared",
            manifest=table,
            audit=False,
            allow_outside=True,
            progress=False,
        )
        made = plan_training(folder / "prepared", minutes=minutes, mode="mean", device="cpu")
        train(made.recipe, folder / "prepared", run, device="cpu")
    cases = [one for one in found if split[one.case] == "val"]
    calibration = calibrate(load(run), cases, split="val")
    model = load(run)
    mine = [one for one in find_scans([str(scans)], model) if split[one.case] == "test"]
    synthesise_cases(Selection(model, mine), folder / "out", anyway=True)
    names = [one.case for one in mine]
    scores = evaluate(folder / "out", scans, cases=names, regions=regions, mask="whole")
    ours = [row for row in scores.rows if row.method == "synthesis"]
    keys = [*KEYS, *(f"{region}.coverage" for region in regions)]
    stated = {"row": name, "patients": calibration.header.patients, "cases": len(ours)}
    return {**stated, **{key: means(ours, key) for key in keys}}


def write_manifest(
    table: Path, cases: Sequence[CaseFiles], split: Mapping[str, str], files: Mapping[str, str]
) -> None:
    """Write a cohort's table with the split of each case; cases without one are left out.

    files: by modality, the name that the scan has in the cases.
    """
    lines = [",".join(["case,patient,split", *files])]
    for one in cases:
        if one.case in split:
            paths = [f"{one.files[name].resolve()}" for name in files.values()]
            lines.append(",".join([one.case, one.patient, split[one.case], *paths]))
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def means(rows: list[Any], key: str) -> float | None:
    """The mean over patients of a score, where there is one."""
    scores = [(row.patient, row.scores.get(key)) for row in rows]
    by_patient = grouped(
        (patient, value) for patient, value in scores if value is not None and np.isfinite(value)
    )
    if not by_patient:
        return None
    return round(float(np.mean([np.mean(one) for one in by_patient.values()])), 5)


def heads(work: Path, source: str = "t1", target: str = "ct") -> Path:
    """The made-up heads, drawn once."""
    scans = work / ("heads" if source == "t1" else f"heads_{source}")
    if not (scans / f"phantom_{COUNT - 1:03d}" / f"{target}.nii.gz").exists():
        write_cohort(
            scans, cases=COUNT, size=SIZE, lesion="mixed", modalities=[source, target], seed=11
        )
    return scans


def phantom(task: str, work: Path) -> dict[str, Any]:
    source, target = task.split("-")
    scans = heads(work, source, target)
    names = sorted(one.case for one in find_cohort(scans).cases)
    split = {
        name: "train" if k < 40 else "val" if k < 80 else "test" for k, name in enumerate(names)
    }
    rules = {"lesion": "lesion>0.5", "bone": f"{target}>250", "soft": f"-200<{target}<250"}
    if target == "cta":
        rules |= {
            "bone": "3.5<seg<5.5",
            "vessels": "12.5<seg<15.5",
        }  # contrast in vessels is as bright as thin bone
    return learned(f"phantom:{task}", scans, split, 12, work, **rules)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for task in arguments.tasks or TASKS:
        done = {(one["row"], one.get("commit")) for one in finished(RESULTS)}
        if (f"phantom:{task}", commit()) not in done:
            work = arguments.work / f"trust_{commit()}"
            row = phantom(task, work) | {"commit": commit()}
            append(RESULTS, [row])
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
