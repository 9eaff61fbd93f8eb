"""What `voxlate train auto` reaches, and peers in the same minutes: `make reach` (hours; resumable).

A task is a cohort, minutes, and the mask in which its held-out cases are scored. `auto` is the command as it comes;
a peer is a network of another package (peers.py) that learns by L1 and AdamW (1e-3, falling to 0), with flips, on the
same patches, intensities and minutes. Rows are JSON lines next to this file; rows that are there are skipped.

    python benchmarks/reach.py [--threads 1] WORK [TASK:WHO[:SEED] …]

WHO: auto, auto_mean (`--mode mean`), either with changes of its plan (auto_mean+grey); basic_unet and basic_unet_3d,
which need MONAI; res_enc, which needs dynamic-network-architectures. Minutes are those of two threads; one thread gets
twice as many, so that two tasks can run side by side.

Cohorts of phantoms are made in WORK; `slices` and `brains…` must be there, in WORK/TASK_scans (see ingredients.py).
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import scipy.ndimage
import torch

from ingredients import finished, held_out, layout, means
from voxlate.cases.prepare import prepare
from voxlate.cases.prepared import open_cohort
from voxlate.phantoms import write_cohort
from voxlate.planning.plan import Plan, plan_training
from voxlate.planning.probe import Limits, Probe, free_memory
from voxlate.recipe import Recipe, from_dict, to_dict
from voxlate.synthesis.model import load
from voxlate.training.train import train

RESULTS = Path(__file__).with_suffix(".jsonl")
SCORES = {"mae": "mae", "share": "mae_rel", "ssim": "ssim_2d", "gradient": "gradient_strength"}
SPARE = 0.04  # as plans leave for starting and saving
FWHM_MM = 6.0  # of a PET scanner


@dataclass(frozen=True)
class Task:
    """A way from source to target; size: of its phantoms, where it is of those; options: of `prepare`."""

    source: tuple[str, ...]
    target: str
    minutes: float
    size: tuple[int, int, int] | None = None
    cases: int = 12
    lesion: Any = "mixed"
    mask: str | None = None
    options: Mapping[str, Any] | None = None


TASKS = {
    "t2_ct": Task(("t2",), "ct", 3, (112, 136, 28)),
    "thick": Task(("t1",), "t2", 3, (160, 192, 34)),
    "pet": Task(("t1",), "pet", 3, (96, 112, 48)),
    "isotropic": Task(("t1",), "ct", 3, (80, 96, 68)),
    "tof_cta": Task(("tof",), "cta", 12, (96, 96, 32), 24, "none"),
    "strokes": Task(
        ("ncct", "cta1", "cta2", "cta3"),
        "tmax",
        9,
        (80, 80, 40),
        60,
        "stroke",
        options={"mask": "brain", "align": "midline"},
    ),
    "slices": Task(("mr",), "ct", 20),
    "brains": Task(("t1",), "t2", 12, mask="body"),
}
TASKS |= {
    f"brains{fold}": Task(("t1",), "t2", 3, mask="body") for fold in range(4)
}  # each patient left out once
GREY = "gamma = 0.4, contrast = 0.15, remap = 0.6, bias = 0.15, noise = 0.02"
CHANGES: dict[str, dict[str, str]] = {
    "none": {"data.augment": "{ flip_lr = 0.5 }"},
    "grey": {"data.augment": f"{{ flip_lr = 0.5, {GREY} }}"},
    "blur": {"data.augment": f"{{ flip_lr = 0.5, {GREY}, blur_mm = 0.8 }}"},
    **{f"ssim{weight}": {"method.ssim": weight} for weight in ("0", "0.1", "0.4")},  # of auto_mean
    "zscore": {"intensity.t1": "{ kind = 'zscore', clip = 3 }"},
}
PEERS: dict[str, dict[str, Any]] = {
    "basic_unet": {"kind": "peers:BasicUNet"},
    "basic_unet_3d": {"kind": "peers:BasicUNet", "volumetric": True},
    "res_enc": {"kind": "peers:ResEncUNet"},
}


def cohort_of(name: str, work: Path) -> tuple[Path, Path]:
    """The scans and the prepared cohort of a task, made where they are not there."""
    task, scans, prepared = TASKS[name], work / f"{name}_scans", work / name
    if task.size is not None:
        drawn = ["cbf" if one == "pet" else one for one in (*task.source, task.target)]
        write_cohort(scans, task.cases, task.size, lesion=task.lesion, modalities=drawn)
        if task.target == "pet":
            for case in sorted(scans.glob("phantom_*")):
                _write_pet(case)
    if not (prepared / "cohort.json").exists():
        prepare(
            scans,
            prepared,
            modalities=[*task.source, task.target],
            **layout(scans),
            **(task.options or {}),
        )
    return scans, prepared


def _write_pet(case: Path) -> None:
    """Counts of a scanner of 6 mm, of an uptake that follows blood flow."""
    flow: Any = nibabel.load(case / "cbf.nii.gz")  # type: ignore[attr-defined]
    sigma = [FWHM_MM / 2.355 / float(one) for one in flow.header.get_zooms()]
    uptake = scipy.ndimage.gaussian_filter(np.clip(flow.get_fdata(), 0, None), sigma)
    counts = np.random.default_rng(int(case.name[-3:])).poisson(uptake * 20).astype(np.float32)
    nibabel.Nifti1Image(counts, flow.affine).to_filename(case / "pet.nii.gz")  # type: ignore[attr-defined]


def peer_recipe(who: str, made: Plan, prepared: Path, limits: Limits, seed: int) -> Recipe:
    """A plan's data and intensities, with a peer's network, L1 and as many steps as fit."""
    planned = to_dict(made.recipe)
    data = {**planned["data"], "augment": {"flip_lr": 0.5}, "stack": 0}
    synth: dict[str, Any] = {
        "batch": 4,
        "slices": planned["synth"]["slices"],
        "overlap": planned["synth"]["overlap"],
    }
    if PEERS[who].get("volumetric"):
        data["patch"], synth["slices"] = [32, *data["patch"][1:]], {"kind": "tiled"}
    tables: dict[str, Any] = {
        "title": f"{who} in the same minutes",
        "data": data,
        "intensity": planned["intensity"],
        "method": {"kind": "regression", "loss": "l1"},
        "net": PEERS[who],
        "synth": synth,
        "train": {
            "steps": 1000,
            "batch": 1 if PEERS[who].get("volumetric") else 4,
            "seed": seed,
            "validate_every": 0,
        },
    }
    tables["train"]["optimiser"] = {"kind": "adamw", "lr": 1e-3, "decay": "cosine"}
    probe = Probe(open_cohort(prepared), limits, "cpu")
    measured = probe.measure(from_dict(tables, who, allow_code=True), 0)
    assert measured is not None
    tables["train"]["steps"] = int(probe.seconds * (1 - SPARE) / measured.seconds)
    return from_dict(tables, who, allow_code=True)


def measure(name: str, label: str, seed: int, work: Path) -> Iterator[dict[str, Any]]:
    """Plan, train, synthesise and score; a row for each answer."""
    task, (scans, prepared), threads = TASKS[name], cohort_of(name, work), torch.get_num_threads()
    folder, limits = (
        work / "runs" / f"{name}_{label}_{seed}",
        Limits(task.minutes * 2 / threads, free_memory("cpu")),
    )
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    who, *named = label.split("+")
    changes = {key: value for one in named for key, value in CHANGES[one].items()}
    mode: Any = "mean" if who == "auto_mean" else "both"
    made = plan_training(
        prepared, source=task.source, target=(task.target,), limits=limits, mode=mode, device="cpu"
    )
    if who in PEERS:
        began = time.monotonic()
        recipe = peer_recipe(who, made, prepared, limits, seed)
    else:
        recipe = made.changed({"train.seed": f"{seed}", **changes}).recipe
    run = train(recipe, prepared, folder / "run", device="cpu")
    seconds = time.monotonic() - began
    for answer in ("mean", "sample") if recipe.stages else ("mean",):
        model = load(run.folder, answer=answer if recipe.stages else None, allow_code=True)
        clock = time.monotonic()
        scores = scored(task, model, scans, prepared, folder / answer)
        yield {
            "task": name,
            "who": label,
            "answer": answer,
            "seed": seed,
            "minutes": limits.minutes,
            "threads": threads,
            "took": round(seconds / 60, 2),
            "steps": [stage.train.steps for stage in recipe.all_stages],
            "parameters": sum(one.numel() for one in model.method.parameters()),
            "synthesis_seconds": round(time.monotonic() - clock),
            **scores,
        }


def scored(task: Task, model: Any, scans: Path, prepared: Path, made: Path) -> dict[str, float]:
    """Mean scores of the images of the cases that training does not see, and the least MAE of a naive baseline."""
    table = held_out(model, scans, prepared, made, task.mask)
    naive = {row.answer for row in table.rows if row.answer != "synthesis"}
    best = min(means(table, {"mae": "mae"}, one)["mae"] for one in naive)
    return {**means(table, SCORES), "naive": best}


def table() -> str:
    """The results as Markdown."""
    heads = ["task", "minutes", "who", "answer", "seed", "took", "threads", "steps", "weights"]
    heads += ["MAE", "SSIM", "edges", "naive MAE"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in sorted(
        finished(RESULTS), key=lambda one: (list(TASKS).index(one["task"]), one["mae"])
    ):
        steps = " + ".join(f"{one:,}" for one in row["steps"])
        cells = [
            row["task"],
            row["minutes"],
            row["who"],
            row["answer"],
            row["seed"],
            f"{row['took']:.1f}",
            row["threads"],
            steps,
        ]
        cells += [f"{row['parameters'] / 1e6:.1f} M", f"{row['mae']:.4g}", f"{row['ssim']:.3f}"]
        cells += [f"{row['gradient']:.2f}", f"{row['naive']:.4g}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("rows", nargs="*", help="none: every task by auto and by MONAI's BasicUNet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print what is finished as Markdown")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    torch.set_num_threads(arguments.threads)
    sys.path.insert(0, str(Path(__file__).parent))  # where recipes find peers.py
    for text in arguments.rows or [
        f"{task}:{who}" for task in TASKS for who in ("auto", "basic_unet")
    ]:
        task, who, *seed = text.split(":")
        key = (task, who, int(seed[0]) if seed else 0)
        if key in {(row["task"], row["who"], row["seed"]) for row in finished(RESULTS)}:
            continue
        rows = list(measure(*key, arguments.work))
        with RESULTS.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        print(*map(json.dumps, rows), sep="\n", flush=True)


if __name__ == "__main__":
    main()
