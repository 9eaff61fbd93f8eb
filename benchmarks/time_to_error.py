"""Minutes of training until the error of other packages' networks: the number that users feel.

python benchmarks/time_to_error.py PREPARED COHORT WORK [--minutes 13] [--shares 0.1 0.2 0.4] [--source NAME --target NAME]
    [--split val] [--peers BasicUNet UNetPlusPlus ResEnc]
The networks of peers.py learn for --minutes, ours for these shares of them, all by `train auto --mode mean`: data,
changes and loss are those of our plan, and a peer has the optimiser of its package, AdamW. A fresh process trains each.
Prints the table of WORK/time_to_error.json; runs and rows that are there already are not made again.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench_samplers import measure
from voxlate.synthesis.model import load
from voxlate.system.files import read_json, write_json

OURS = "train auto"
OPTIMISER = '{kind = "adamw", lr = 1e-3, warm_up = 100, hold = 0.2}'
SCORES = {"mae": "MAE", "ssim_2d": "SSIM", "gradient_strength": "gradient ratio"}


def train(name: str, minutes: float, prepared: Path, run: Path, sides: list[str]) -> None:
    """Train our network, or a peer's, for these minutes."""
    command = [sys.executable, "-m", "voxlate", "train", "auto", "--data", str(prepared)]
    command += ["--out", str(run), "--mode", "mean", "--from-scratch", "--minutes", str(minutes)]
    if name != OURS:
        changes = (f'net={{kind = "peers:{name}"}}', f"train.optimiser={OPTIMISER}")
        command += [word for change in changes for word in ("--set", change)]
    # where a recipe finds peers.py
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run([*command, *sides], check=True, env={**os.environ, "PYTHONPATH": paths})


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the rows, and for each peer the fewest of our minutes that reach its error."""
    ours = [row for row in rows if row["name"] == OURS]
    table = Table("network", "minutes", *SCORES.values(), "ours reaches its MAE in")
    for row in rows:
        reached = [one["minutes"] for one in ours if one["mae"] <= row["mae"]]
        least = f"{min(reached):g} min, {min(reached) / row['minutes']:.0%}" if reached else "-"
        scores = (f"{row[key]:.4g}" for key in SCORES)
        table.add_row(
            row["name"], f"{row['minutes']:g}", *scores, "" if row["name"] == OURS else least
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prepared", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=13)
    parser.add_argument("--shares", type=float, nargs="+", default=(0.1, 0.2, 0.4))
    parser.add_argument("--source", nargs="+", default=())
    parser.add_argument("--target", nargs="+", default=())
    parser.add_argument("--split", default="val")
    parser.add_argument("--peers", nargs="+", default=("BasicUNet", "UNetPlusPlus", "ResEnc"))
    chosen = parser.parse_args()
    sides = [f"--source={name}" for name in chosen.source]
    sides += [f"--target={name}" for name in chosen.target]
    trained = [(OURS, share * chosen.minutes) for share in chosen.shares]
    trained += [(peer, chosen.minutes) for peer in chosen.peers]
    path, console = chosen.work / "time_to_error.json", Console()
    found: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    for name, minutes in trained:
        key = f"{name}, {minutes:g} minutes"
        if key in found:
            continue
        run = chosen.work / key.replace(" ", "_").replace(",", "")
        train(name, minutes, chosen.prepared, run, sides)
        scores = measure(load(run), chosen.cohort, chosen.split or None, "texture", console)
        found[key] = {"name": name, "minutes": minutes, **scores}
        write_json(path, found)
    show([*found.values()], console)


if __name__ == "__main__":
    main()
