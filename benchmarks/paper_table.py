"""A paper's whole table: trains what the rows need, draws and scores every row, and compares them.

python benchmarks/paper_table.py ROW [ROW ...] --data PREPARED --cohort COHORT --out DIR [--set KEY=VALUE]
ROW: a recipe's name, or NAME:STAGE for what an earlier stage of it draws alone, and what the row changes in it, such as
'mrdpm_small task.asymmetry=false'. Rows that differ in [synth] only share one training, and rows with the same earlier
stages share those. All of it is voxlate's own commands, printed before they run; what is finished already is not done
again, so the same command goes on after a stop.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from voxlate.base.option import pairs
from voxlate.training import recipe as recipes

console = Console(soft_wrap=True)
SYNTH = "synth."  # begins the keys that a training does not have


@dataclass(frozen=True)
class Row:
    """A recipe, its changes, and the stage that draws, "" for the last one."""

    recipe: str
    stage: str
    changes: Mapping[str, str]

    @property
    def training(self) -> str:
        """The name of the folder of its training."""
        return re.sub(r"[^\w.-]+", "_", " ".join([self.recipe, *_texts(self.changes)]))

    @property
    def out(self) -> str:
        """The name of the folder of its images."""
        return f"{self.training}_{self.stage}" if self.stage else self.training

    @property
    def of_training(self) -> list[str]:
        """The options of its changes for voxlate train."""
        return _options(
            {key: value for key, value in self.changes.items() if not key.startswith(SYNTH)}
        )

    @property
    def of_synthesis(self) -> list[str]:
        """The options of its changes for voxlate synth."""
        return _options(
            {
                key.removeprefix(SYNTH): value
                for key, value in self.changes.items()
                if key.startswith(SYNTH)
            }
        )


def row_of(text: str) -> Row:
    """The row that a text such as "NAME:STAGE KEY=VALUE" states."""
    first, *changes = text.split()
    name, _, stage = first.partition(":")
    return Row(name, stage, pairs(changes))


def _texts(changes: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in changes.items()]


def _options(changes: Mapping[str, str]) -> list[str]:
    return [word for text in _texts(changes) for word in ("--set", text)]


def voxlate(*arguments: object) -> None:
    """Run one command, or stop with its exit code."""
    words = [str(argument) for argument in arguments]
    console.print(
        "$ " + shlex.join(["voxlate", *words]), style="bold", highlight=False, markup=False
    )
    done = subprocess.run([sys.executable, "-m", "voxlate", *words])
    if done.returncode not in (0, 3):  # 3: an image that is not to be trusted
        raise SystemExit(done.returncode)


def trainings(rows: Sequence[Row], changes: Mapping[str, str]) -> dict[str, Row]:
    """For the training of each row the first row that trains the same."""
    first: dict[str, Row] = {}
    found = {}
    for row in rows:
        table = recipes.to_dict(recipes.read(row.recipe, {**changes, **row.changes}))
        trained = repr(
            {key: value for key, value in table.items() if key not in ("title", "synth")}
        )
        found[row.training] = first.setdefault(trained, row)
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
    changes = pairs(chosen.change)
    rows = [row_of(text) for text in chosen.rows]
    trained = trainings(rows, changes)
    runs: list[Path] = []
    for row in rows:
        first = trained[row.training]
        run = chosen.out / "runs" / first.training
        if run not in runs:
            before = [part for other in runs for part in ("--reuse", other)]
            options = [*_options(changes), *first.of_training, *before]
            voxlate("train", first.recipe, "--data", chosen.data, "--out", run, *options)
            runs.append(run)
        model = [run, "--like", row.recipe, *row.of_synthesis]
        if row.stage:
            model = [run / f"weights.{row.stage}.safetensors"]
        images = chosen.out / row.out
        voxlate(
            "synth", *model, chosen.cohort, "--anyway", "--split", chosen.split, "--out", images
        )
        voxlate("evaluate", images, "--truth", chosen.cohort, *chosen.evaluate.split())
    if len(rows) > 1:
        folders = [chosen.out / row.out for row in rows]
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
