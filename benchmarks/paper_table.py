"""A paper's whole table: trains what the rows need, draws and scores every row, and compares them.

python benchmarks/paper_table.py ROW [ROW ...] --data PREPARED --cohort COHORT --out DIR [--set KEY=VALUE]
ROW: a recipe's name, or NAME:STAGE for what an earlier stage of it draws alone. Rows that differ in [synth] only share
one training, and rows with the same earlier stages share those. All of it is voxlate's own commands, printed before
they run; what is finished already is not done again, so the same command goes on after a stop.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from voxlate.base.options.option import pairs
from voxlate.training import recipe as recipes

console = Console(soft_wrap=True)


def voxlate(*arguments: object) -> None:
    """Run one command, or stop with its exit code."""
    words = [str(argument) for argument in arguments]
    console.print(
        "$ " + shlex.join(["voxlate", *words]), style="bold", highlight=False, markup=False
    )
    done = subprocess.run([sys.executable, "-m", "voxlate", *words])
    if done.returncode not in (0, 3):  # 3: an image that is not to be trusted
        raise SystemExit(done.returncode)


def trainings(names: list[str], changes: dict[str, str]) -> dict[str, str]:
    """For each recipe the first one that trains the same."""
    first: dict[str, str] = {}
    found = {}
    for name in names:
        table = recipes.to_dict(recipes.read(name, changes))
        trained = repr(
            {key: value for key, value in table.items() if key not in ("title", "synth")}
        )
        found[name] = first.setdefault(trained, name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", metavar="ROW")
    parser.add_argument("--data", type=Path, required=True, help="the prepared cohort")
    parser.add_argument("--cohort", type=Path, required=True, help="the scans themselves")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument(
        "--set",
        dest="change",
        action="append",
        default=[],
        help="as in voxlate train, for every row",
    )
    parser.add_argument("--evaluate", default="", help="options of voxlate evaluate, as one text")
    chosen = parser.parse_args()
    options = [part for change in chosen.change for part in ("--set", change)]
    changes = pairs(chosen.change)
    runs = trainings(list(dict.fromkeys(row.partition(":")[0] for row in chosen.rows)), changes)
    done: list[str] = []
    for row in chosen.rows:
        name, _, stage = row.partition(":")
        run = chosen.out / "runs" / runs[name]
        if runs[name] not in done:
            before = [part for other in done for part in ("--reuse", chosen.out / "runs" / other)]
            voxlate("train", runs[name], "--data", chosen.data, "--out", run, *options, *before)
            done.append(runs[name])
        made = chosen.out / row.replace(":", "_")
        model = [run / f"weights.{stage}.safetensors"] if stage else [run, "--like", name]
        voxlate("synth", *model, chosen.cohort, "--anyway", "--split", chosen.split, "--out", made)
        voxlate("evaluate", made, "--truth", chosen.cohort, *chosen.evaluate.split())
    if len(chosen.rows) > 1:
        folders = [chosen.out / row.replace(":", "_") for row in chosen.rows]
        voxlate(
            "compare",
            *folders,
            "--out",
            chosen.out / "compare.json",
            "--report",
            chosen.out / "compare.html",
        )


if __name__ == "__main__":
    main()
