"""The cost of executors by a simulation of many tiny cases: milliseconds a case, and the memory of the driver.

    python benchmarks/executors.py --cases 10000 --workers 2
    python benchmarks/executors.py --cases 10000 --workers 2 --executor ray

A case is a named tuple of paths as `synth` sends it, and its work takes no time, so that all that is measured is sending,
scheduling and receiving. The memory of the driver is printed after each tenth of the cases.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from voxlate.base.executors.choose import choose_executor
from voxlate.base.executors.job import Context
from voxlate.base.messages import message
from voxlate.base.options.executors import ExecutorOptions

MIB = 2**20


@dataclass(frozen=True)
class TinyCase:
    """The size of a case of `synth`: its name and the path of its scan."""

    case: str
    files: dict[str, Path]


@dataclass(frozen=True)
class NoWork:
    """Returns the folder of a case, and a warning for every tenth case."""

    uses_network: bool = False

    def open(self) -> Callable[[TinyCase, Context], Any]:
        return self._nothing

    def _nothing(self, case: TinyCase, context: Context) -> Path:
        if case.case.endswith("0"):
            context.warn(message("taken-as", "t1 is taken as mr.", case=case.case))
        return Path("out") / case.case


class TinyCases:
    """So many cases, each of which exists only while it is used."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> TinyCase:
        if number >= self.count:
            raise IndexError(number)
        name = f"case{number:07}"
        return TinyCase(name, {"t1": Path("cohort") / name / "t1.nii.gz"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    parser.add_argument("--address")
    asked = parser.parse_args()
    options = ExecutorOptions(executor=asked.executor, workers=asked.workers, address=asked.address)
    driver = psutil.Process()
    cases: Any = TinyCases(asked.cases)
    began = first = time.monotonic()
    for done, (_, outcome) in enumerate(choose_executor(options).run(NoWork(), cases), start=1):
        assert outcome.error is None, outcome.error
        if done == 1:
            first = time.monotonic()
        if done % max(1, asked.cases // 10) == 0:
            print(f"{done} cases, driver {driver.memory_info().rss / MIB:.1f} MiB", flush=True)
    ended = time.monotonic()
    print(f"start {first - began:.1f} s, then {1000 * (ended - first) / asked.cases:.3f} ms a case")


if __name__ == "__main__":
    main()
