"""A paper's whole table: trains what the rows need, draws and scores every row, and compares them.

python benchmarks/paper_table.py ROW [ROW ...] --data PREPARED --cohort COHORT --out DIR [--set KEY=VALUE]
ROW: a recipe's name. Rows that differ in [synth] only share one training. All of it is voxlate's own commands, printed
before they run; what is finished already is not done again, so the same command goes on after a stop.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from voxlate import recipe as recipes
from voxlate.options import pairs

console = Console(soft_wrap=True)


def voxlate(*arguments: object) -> None:
    """Run one command, or stop with its exit code."""
    words = [str(argument) for argument in arguments]
    console.print("$ " + shlex.join(["voxlate", *words]), style="bold", highlight=False, markup=False)
    done = subprocess.run([sys.executable, "-m", "voxlate", *words])
    if done.returncode:
        raise SystemExit(done.returncode)


def trainings(rows: list[str], changes: dict[str, str]) -> dict[str, str]:
    """For each row the first row that trains the same."""
    first: dict[str, str] = {}
    found = {}
    for row in rows:
        table = recipes.to_dict(recipes.read(row, changes))
        trained = repr({key: value for key, value in table.items() if key not in ("title", "synth")})
        found[row] = first.setdefault(trained, row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", metavar="ROW")
    parser.add_argument("--data", type=Path, required=True, help="the prepared cohort")
    parser.add_argument("--cohort", type=Path, required=True, help="the scans themselves")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--set", dest="change", action="append", default=[], help="as in voxlate train, for every row")
    parser.add_argument("--evaluate", default="", help="options of voxlate evaluate, as one text")
    chosen = parser.parse_args()
    options = [part for change in chosen.change for part in ("--set", change)]
    runs = trainings(chosen.rows, pairs(chosen.change))
    for row, run in runs.items():
        folder = chosen.out / "runs" / run
        if row == run:
            voxlate("train", row, "--data", chosen.data, "--out", folder, *options)
        made = chosen.out / row
        voxlate("synth", folder, chosen.cohort, "--split", chosen.split, "--like", row, "--out", made)
        voxlate("evaluate", made, "--truth", chosen.cohort, *chosen.evaluate.split())
    if len(runs) > 1:
        folders = [chosen.out / row for row in runs]
        voxlate("compare", *folders, "--out", chosen.out / "compare.json", "--report", chosen.out / "compare.html")


if __name__ == "__main__":
    main()
