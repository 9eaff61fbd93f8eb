"""Noise strategies side by side on one trained model of slices: error, edges, and flicker from slice to slice.

python benchmarks/bench_noise.py RUN COHORT [--split val] [--samples 1 4] [--length-mm 20] [--sampler ddpm --steps 32]
Writes bench/noise.json. Rows that are there already are not made again. Gradients: 1 right, below blur, above noise.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from voxlate.cli.progress import progress_on
from voxlate.scoring.evaluate import evaluate
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model, load
from voxlate.synthesis.scans import find_scans
from voxlate.system.files import read_json, write_json

MEASURES = {"mae": "MAE", "psnr": "PSNR", "gradient_strength": "gradient", "gradient_z": "z"}


def measure(model: Model, chosen: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Mean scores over the cases of the synthesised modality, and the seconds that synthesis took."""
    scans = find_scans([str(chosen.cohort)], model, split=chosen.split or None)
    with tempfile.TemporaryDirectory() as folder, progress_on(console) as bars:
        start = time.perf_counter()
        synthesise_cases(model, scans, Path(folder), seed=chosen.seed, progress=bars)
        seconds = time.perf_counter() - start
        document = evaluate(Path(folder), chosen.cohort, mask=chosen.mask).document()
    (part,) = document["modalities"].values()
    answers = part["answers"]["synthesis"]
    scores = {
        key: {name: answers[key][name] for name in ("mean", "sd", "ci95")} for key in MEASURES
    }
    return {"unit": part["unit"], "cases": part["cases"], "scores": scores, "seconds": seconds}


def show(found: list[dict[str, Any]], console: Console) -> None:
    table = Table("noise", "mean of", "sampler", *MEASURES.values(), "seconds", box=box.SIMPLE)
    for row in found:
        means = [row["scores"][key]["mean"] for key in MEASURES]
        cells = ["–" if mean is None else f"{mean:.4g}" for mean in means]
        noise = row["noise"]["kind"] + (
            f" {row['noise']['length_mm']:g} mm" if "length_mm" in row["noise"] else ""
        )
        table.add_row(
            noise,
            str(row["samples"]),
            f"{row['sampler']} {row['steps']}",
            *cells,
            f"{row['seconds']:.1f}",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument(
        "--samples", nargs="+", type=int, default=[1, 4], help="images drawn and averaged"
    )
    parser.add_argument(
        "--length-mm", nargs="+", type=float, default=[20.0], help="of correlated noise"
    )
    parser.add_argument("--sampler", help="another than the recipe's")
    parser.add_argument("--steps", type=int)
    parser.add_argument(
        "--mask", choices=["body", "brain"], default="body", help="where scores are taken"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("bench/noise.json"))
    chosen = parser.parse_args()
    console = Console()
    found: list[dict[str, Any]] = read_json(chosen.out)["rows"] if chosen.out.exists() else []
    lengths = [{"kind": "correlated", "length_mm": length} for length in chosen.length_mm]
    model = load(chosen.run, chosen.device).with_options(sampler=chosen.sampler, steps=chosen.steps)
    synth = model.recipe.synth
    for samples in chosen.samples:
        for noise in ({"kind": "independent"}, *lengths, {"kind": "shared"}):
            options: dict[str, Any] = {
                "noise": noise,
                "samples": samples,
                "sampler": synth.sampler,
                "steps": synth.steps,
            }
            row = options | {
                "seed": chosen.seed,
                "run": str(chosen.run),
                "split": chosen.split,
                "mask": chosen.mask,
            }
            if any(row.items() <= old.items() for old in found):
                continue
            found.append(
                row | measure(model.with_options(noise=noise, samples=samples), chosen, console)
            )
            write_json(chosen.out, {"rows": found})
    show(found, console)
    console.print(f"written to {chosen.out}")


if __name__ == "__main__":
    main()
