"""How far intervals and warnings hold on patients that neither training nor calibration saw: `make trust` (an hour).

Resumable: rows are JSON lines in trust.jsonl, and those that are there are skipped.
docs/guides/trust.md says what came out.

    python benchmarks/trust.py [--threads 1] WORK [ROW …]

phantom:TASK  240 made-up heads, t1-ct or tof-cta: 40 to learn from, 40 to calibrate, 160 to test; the mean answer.
unlike        the T1 of these heads with metal, motion, a jaw cut off, tumours where known heads have none: are they flagged?

Real heads are rows intervals-HEAD of evidence.py.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import voxlate
from json_lines import append, finished
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.groups import grouped
from voxlate.evaluation.calibrate import calibrate
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.intensity import Percentile, intensity_statistics
from voxlate.scans.images.mask import foreground
from voxlate.synthesis.cohort import Selection, synthesise_cases
from voxlate.synthesis.out_of_distribution import (
    DistributionTest,
    Patches,
    fit_references,
    patches_of,
    verdict_on,
)
from voxlate.synthesis.scans import find_scans
from voxlate.training.load import load
from voxlate.training.planning.planner import plan_training
from voxlate.training.train import train

RESULTS = Path(__file__).with_suffix(".jsonl")
KEYS = ("mae", "coverage", "interval")
SIZE, COUNT = (72, 88, 14), 240
Made = Callable[[int], Volume]  # the scan of a head, by its number


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
    calibration = calibrate(load(run), cases, split="val", regions=regions)
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


def metal(scan: Volume, draw: np.random.Generator) -> Volume:
    """A hole of 10 mm with a bright rim, somewhere in the head."""
    data, body = scan.data.copy(), np.argwhere(foreground(scan))
    place, apart = body[draw.integers(len(body))], np.indices(data[0].shape)
    radius = np.sqrt(sum(((apart[k] - place[k]) * scan.grid.spacing_mm[k]) ** 2 for k in range(3)))
    data[0][(radius > 10) & (radius < 15)] = 1.5 * np.percentile(data[0][foreground(scan)], 99.5)
    data[0][radius < 10] = 0
    return replace(scan, data=data)


def motion(scan: Volume, draw: np.random.Generator) -> Volume:
    """Twelve times in the acquisition of a slice the head lies 4 to 12 pixels elsewhere, for two to five lines."""
    lines = np.fft.fft(scan.data[0], axis=1)
    frequency = np.fft.fftfreq(lines.shape[1])
    for _ in range(12):
        at = (
            np.arange(first := draw.integers(lines.shape[1]), first + draw.integers(2, 6))
            % lines.shape[1]
        )
        lines[:, at] *= np.exp(-2j * np.pi * frequency[at][None, :, None] * draw.uniform(4, 12))
    return replace(scan, data=np.abs(np.fft.ifft(lines, axis=1)).astype(np.float32)[None])


def cut(scan: Volume, draw: np.random.Generator) -> Volume:
    """Without the lowest quarter."""
    first = scan.data.shape[1] // 4
    affine = scan.affine.copy()
    affine[:3, 3] += affine[:3, 2] * first
    return replace(scan, data=scan.data[:, first:].copy(), affine=affine)


def seen(scan: Volume) -> Patches:
    """Its patches, as a plan's percentile map of the T1 shows them."""
    body = foreground(scan)
    scale = Percentile(low=0, high=99.5, floor=0.0).scale(intensity_statistics(scan.data[0], body))
    return patches_of([scale.forward(scan.data[0].astype(np.float32))], body, scan.grid.spacing_mm)


def unlike(work: Path) -> Iterator[dict[str, Any]]:
    scans = heads(work)

    def scan(number: int) -> Volume:
        return canonical(read_volume(scans / f"phantom_{number:03d}" / "t1.nii.gz", "t1"))

    def changed(change: Callable[[Volume, np.random.Generator], Volume]) -> Made:
        return lambda number: change(scan(number), np.random.default_rng(number))

    every, healthy = range(40, COUNT), [number for number in range(COUNT) if number % 3]
    with_tumour = range(0, COUNT, 3)
    # by name: what is known, 40 to learn from and 60 more, and what is strange to it
    trials: dict[str, tuple[Made, Sequence[int], Made, Sequence[int]]] = {
        "metal": (scan, every, changed(metal), every[40:]),
        "motion": (scan, every, changed(motion), every[40:]),
        "jaw cut off": (scan, every, changed(cut), every[40:]),
        "tumours, known are none": (scan, healthy, scan, with_tumour),
    }
    for name, (known, numbers, strange, asked) in trials.items():
        patches = [seen(known(number)) for number in numbers[:100]]
        memory = fit_references(patches[:40], [f"p{number}" for number in range(40)])
        usual = [verdict_on(memory, one) for one in patches[40:]]
        yield row(name, usual, [verdict_on(memory, seen(strange(k))) for k in asked[:30]])


def row(name: str, usual: list[DistributionTest], found: list[DistributionTest]) -> dict[str, Any]:
    """What is flagged of the strange scans, and of the known ones."""
    alarms, hits = (
        float(np.mean([one.is_flagged for one in verdicts])) for verdicts in (usual, found)
    )
    return {"row": "unlike", "change": name, "flagged": hits, "false_alarms": alarms}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.rows or [
        "unlike",
        "phantom:t1-ct",
        "phantom:tof-cta",
    ]:
        if name in {one["row"] for one in finished(RESULTS)}:
            continue
        task = name.removeprefix("phantom:")
        rows = [*unlike(arguments.work)] if task == "unlike" else [phantom(task, arguments.work)]
        append(RESULTS, rows)
        print(*map(json.dumps, rows), sep="\n", flush=True)


if __name__ == "__main__":
    main()
