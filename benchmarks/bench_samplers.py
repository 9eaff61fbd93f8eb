"""Samplers side by side on one trained model: score, distance and time against the number of network evaluations.

python benchmarks/bench_samplers.py [RUN COHORT] [--split val] [--samplers ddpm ddim dpmpp_2m] [--steps 1 2 4 8 16 32]
Writes bench/samplers.json and bench/samplers.svg. Steps that are there already are not made again. rk45 finds its own
steps: of N it takes a tolerance of 1/N. Without RUN, a small VE-SDE of a made-up cohort is trained first (two minutes).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

from spectrum import power_db
from voxlate.base.files import read_json, whole_file, write_json
from voxlate.commands.api.progress import progress_on
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.scans.cohorts.find import find_cohort
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import find_scans
from voxlate.synthesis.selection import Selection
from voxlate.training.load import load

matplotlib.use("svg")
from matplotlib import pyplot

GRIDS = {
    "dpmpp_2m": "log_snr"
}  # a multistep solver wants equal steps of log-SNR; others take the recipe's grid
MEASURES = {
    "mae": "MAE",
    "psnr": "PSNR (dB)",
    "gradient_strength": "edges over the truth's",
    "texture_distance": "",
}


def measure(
    model: Model, cohort: Path, split: str | None, features: str, console: Console
) -> dict[str, Any]:
    """Mean scores over the cases and seconds a slice of one sampler at one number of steps."""
    scans = find_scans([str(cohort)], model, split=split)
    with tempfile.TemporaryDirectory() as folder, progress_on(console) as bars:
        selected = Selection(model, scans)
        made, *_ = synthesise_cases(selected, Path(folder), anyway=True, progress=bars)
        effort = [read_json(one / "provenance.json") for one in made]
        document = evaluate(Path(folder), cohort, features=features).document()
        truths = {case.case: case.files for case in find_cohort(cohort).cases}
        name = model.facts.data.target[0]
        files = [(one / f"{name}.nii.gz", truths[one.name][name]) for one in made]
        apart = power_db(files)
    (part,) = document["modalities"].values()
    answers = part["answers"]["synthesis"]
    scores = {name: answer["mean"] for name, answer in answers.items() if isinstance(answer, dict)}
    means = {
        key: statistics.mean(one[key] for one in effort)
        for key in ("network_calls", "seconds_per_slice")
    }
    return {
        **scores,
        "power_db": float(apart[np.abs(apart).argmax()]),
        "evaluations": means["network_calls"],
        "seconds_per_slice": means["seconds_per_slice"],
    }


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """One panel a measure, one line a sampler, over network evaluations."""
    keys = [key for key in MEASURES if any(row.get(key) is not None for row in found)]
    figure, axes = pyplot.subplots(1, len(keys), figsize=(4 * len(keys), 3.2), layout="constrained")
    for axis, key in zip(axes, keys):
        for sampler in dict.fromkeys(row["sampler"] for row in found):
            rows = sorted(
                (row for row in found if row["sampler"] == sampler),
                key=lambda row: row["evaluations"],
            )
            axis.plot(
                [row["evaluations"] for row in rows],
                [row[key] for row in rows],
                "o-",
                ms=3,
                label=sampler,
            )
        axis.set(
            xscale="log", xlabel="network evaluations", title=MEASURES[key] or key.replace("_", " ")
        )
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def show(found: list[dict[str, Any]], console: Console) -> None:
    names = ["evaluations", "seconds_per_slice", *MEASURES]
    table = Table("sampler", "steps", *names)
    for row in found:
        cells = ("" if row.get(name) is None else f"{row[name]:.4g}" for name in names)
        table.add_row(row["sampler"], str(row["steps"]), *cells)
    console.print(table)


def made_up(folder: Path) -> tuple[Path, Path]:
    """A run and its cohort: the SDE of paper 002, small, on heads of the phantom; made once."""
    cohort, prepared, run = folder / "phantom", folder / "prepared", folder / "run"
    commands: tuple[list[Any], ...] = (
        [
            "phantom",
            "--out",
            cohort,
            "--cases",
            10,
            "--size",
            64,
            64,
            12,
            "--modality",
            "t2",
            "--modality",
            "ct",
        ],
        ["prepare", cohort, "--out", prepared],
        [
            "train",
            "mr_to_ct_em_small",
            "--data",
            prepared,
            "--out",
            run,
            "--set=train.steps=400",
        ],
    )
    for command in commands:
        if command[0] == "train" or not Path(command[command.index("--out") + 1]).exists():
            subprocess.run([sys.executable, "-m", "voxlate", *map(str, command)], check=True)
    return run, cohort


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("cohort", type=Path, nargs="?")
    parser.add_argument("--split", default="val")
    parser.add_argument("--samplers", nargs="+", default=["ddpm", "ddim", "dpmpp_2m"])
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 100])
    parser.add_argument("--features", default="texture", help="texture, vit or a ViT's folder")
    parser.add_argument("--out", type=Path, default=Path("bench/samplers.json"))
    chosen = parser.parse_args()
    console = Console()
    run, cohort = (
        (chosen.run, chosen.cohort) if chosen.cohort else made_up(chosen.out.parent / "samplers")
    )
    found: list[dict[str, Any]] = read_json(chosen.out)["rows"] if chosen.out.exists() else []
    for sampler in chosen.samplers:
        for steps in chosen.steps:
            if any((row["sampler"], row["steps"]) == (sampler, steps) for row in found):
                continue
            options = {"sampler": sampler, "steps": steps, "grid": GRIDS.get(sampler)}
            if sampler == "rk45":
                options |= {"rtol": 1 / steps, "atol": 1 / steps}
            model = load(run).with_options(**options)
            scores = measure(model, cohort, chosen.split or None, chosen.features, console)
            found.append({"sampler": sampler, "steps": steps, **scores})
            write_json(chosen.out, {"rows": found})
    show(found, console)
    draw(found, chosen.out.with_suffix(".svg"))
    console.print(f"written to {chosen.out} and {chosen.out.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
