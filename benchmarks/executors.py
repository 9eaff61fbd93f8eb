"""What dispatching costs: 10,000 tiny cases through an executor, the time per case and the driver's memory.

python benchmarks/executors.py [local] [ray] [--cases 10000] [--workers 2]
"""

import argparse
import time

import psutil

from voxlate.executors import executor_of

MB = 1 << 20


def tiny(common: bytes, item: tuple[int, str]) -> dict[str, object]:
    """Work of no time, with inputs and results of the size of a case's names and warnings."""
    number, path = item
    return {
        "case": number,
        "path": path,
        "warnings": ["a sentence of a usual length, of 48 letters"] * 3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("executors", nargs="*", default=["local"])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    items = [(number, f"cohort/case{number:07d}/t1.nii.gz") for number in range(chosen.cases)]
    for name in chosen.executors:
        executor = executor_of(name, chosen.workers)
        assert executor is not None
        process = psutil.Process()
        first = 0.0
        memory = list[int]()
        for number, ended in enumerate(executor.each(tiny, b"x" * 8 * MB, items)):
            assert ended.error is None
            if number == 0:
                first = time.perf_counter()
            if number % (chosen.cases // 10) == 0:
                memory.append(process.memory_info().rss)
        each_ms = (time.perf_counter() - first) / (chosen.cases - 1) * 1000
        growth = (memory[-1] - memory[1]) / MB
        print(
            f"{name}, {chosen.workers} workers, {chosen.cases} cases: {each_ms:.2f} ms per case; "
            f"the driver holds {memory[-1] / MB:.0f} MB at the end, {growth:+.1f} MB since a tenth"
        )


if __name__ == "__main__":
    main()
