"""Minutes of training until the error of other packages' networks: the number that users feel.

python benchmarks/time_to_error.py PREPARED COHORT WORK [--minutes 13] [--shares 0.1 0.2 0.4] [--source NAME --target NAME]
    [--split val] [--peers BasicUNet UNetPlusPlus ResEnc]
The networks of peers.py learn for --minutes, ours for these shares of them, as `train auto --mode mean` plans it. Data,
changes and loss of a peer are those of our plan for its minutes, its optimiser is AdamW, and its steps are timed first.
Prints the table of WORK/time_to_error.json; runs and rows that are there already are not made again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

import voxlate
from bench_samplers import measure
from dial import arguments
from voxlate.base.files import read_json, write_json, write_text
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training.load import load
from voxlate.training.planning import rules
from voxlate.training.planning.planner import plan_training
from voxlate.training.planning.probe import Limits, Probe, default_memory_limit
from voxlate.training.recipe import from_dict

OURS = "train auto"
OPTIMISER = {"kind": "adamw", "lr": 1e-3, "warm_up": 100, "hold": 0.2}  # of the peers
TIMED = 5  # training steps of a peer
SCORES = {"mae": "MAE", "ssim_2d": "SSIM", "gradient_strength": "gradient ratio"}


def train(
    name: str,
    minutes: float,
    prepared: Path,
    run: Path,
    source: Sequence[str],
    target: Sequence[str],
) -> None:
    """Train our network, or a peer's, for these minutes."""
    asked: dict[str, Any] = {"minutes": minutes, "mode": "mean", "from_scratch": True}
    asked |= {"source": source, "target": target}
    if name == OURS:
        voxlate.train("auto", prepared, run, **asked)
        return
    planned = plan_training(prepared, **asked)
    tables = {**planned.tables, "net": {"kind": f"peers:{name}"}}
    tables["train"] = {**tables["train"], "optimiser": OPTIMISER}
    probe = Probe(open_cohort(prepared), Limits(minutes, default_memory_limit("auto")))
    measured = probe.measure(from_dict(tables, name, allow_code=True), 0, TIMED)
    assert measured is not None, f"too little memory for {name}"
    steps = max(round(minutes * 60 / measured.seconds), 1)
    tables["train"] |= {"steps": steps, "ema": rules.average_decay(steps)}
    recipe = run.with_suffix(".toml")
    write_text(recipe, tomli_w.dumps(tables))
    voxlate.train(recipe, prepared, run, allow_code=True)


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
    parser = arguments(__doc__, minutes=13)
    parser.add_argument("--shares", type=float, nargs="+", default=(0.1, 0.2, 0.4))
    parser.add_argument("--peers", nargs="+", default=("BasicUNet", "UNetPlusPlus", "ResEnc"))
    chosen = parser.parse_args()
    trained = [(OURS, share * chosen.minutes) for share in chosen.shares]
    trained += [(peer, chosen.minutes) for peer in chosen.peers]
    path, console = chosen.work / "time_to_error.json", Console()
    found: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    for name, minutes in trained:
        key = f"{name}, {minutes:g} minutes"
        if key in found:
            continue
        run = chosen.work / key.replace(" ", "_").replace(",", "").replace(".", "_")
        train(name, minutes, chosen.prepared, run, chosen.source, chosen.target)
        model = load(run, allow_code=True)
        scores = measure(model, chosen.cohort, chosen.split or None, "texture", console)
        found[key] = {"name": name, "minutes": minutes, **scores}
        write_json(path, found)
    show([*found.values()], console)


if __name__ == "__main__":
    main()
