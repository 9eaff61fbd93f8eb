"""Reading of a prepared cohort by 4 processes: the data loader's bytes a second, as a share of the disk's.

python benchmarks/bench_reading.py COHORT [--workers 4] [--rounds 3]
COHORT: a prepared folder, better larger than a few GB. The raw reading is sequential, in blocks of 1 MB, of the same
case files in as many processes. The loader opens each case, compares its checksums and reads all its slices as training
does. Before each of both the files are written back and dropped from the page cache (posix_fadvise, which needs no
privilege); both take turns, and the medians are compared. (Linux)
"""

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from voxlate.batches.batches import read_batch
from voxlate.batches.patches import DataSettings
from voxlate.cases.prepared import open_cohort
from voxlate.images.intensity import Percentile
from voxlate.system.files import write_json

BLOCK = 1 << 20
BATCH = 8


def drop(files: Sequence[Path]) -> None:
    """Remove files from the page cache."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_raw(path: Path) -> int:
    """Read a file from its begin to its end; its bytes."""
    total = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            total += len(block)
    return total


def read_case(folder: Path, case: str) -> int:
    """Read all slices of a case as training does; the voxels."""
    cohort = open_cohort(folder)
    header = cohort.header(case)
    names = list(header.present)
    data = DataSettings(source=names[:1], target=names[1:], patch=(1, *header.shape[1:]))
    intensity = {name: Percentile() for name in names}
    places = [(case, start) for start in ((z, 0, 0) for z in range(header.shape[0]))]
    for first in range(0, len(places), BATCH):
        read_batch(cohort, data, intensity, places[first : first + BATCH])
    return len(places)


def seconds_of(
    workers: int, read: Callable[..., int], work: Sequence[object]
) -> tuple[float, float]:
    """The seconds of a reading by new processes, which have opened no case, and their seconds on a core."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with get_context("fork").Pool(workers) as pool:
        begun = time.monotonic()
        list(pool.imap_unordered(read, work))
        seconds = time.monotonic() - begun
        pool.close()
        pool.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/reading.json"))
    arguments = parser.parse_args()
    cohort = open_cohort(arguments.cohort)
    cases = [entry.case for entry in cohort.cases]
    files = sorted((arguments.cohort / "cases").glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    raw = list[tuple[float, float]]()
    loaded = list[tuple[float, float]]()
    for _ in range(arguments.rounds):
        for times, read, work in (
            (raw, read_raw, files),
            (loaded, partial(read_case, arguments.cohort), cases),
        ):
            drop(files)
            times.append(seconds_of(arguments.workers, read, work))
    found = {"bytes": size}
    for name, times in (("raw", raw), ("loader", loaded)):
        seconds, busy = (statistics.median(column) for column in zip(*times))
        found[f"{name}_mb_a_second"] = size / seconds / 1e6
        found[f"{name}_core_seconds_a_gb"] = busy / size * 1e9
        print(
            f"{name}: {size / seconds / 1e6:.0f} MB/s, {busy / size * 1e9:.1f} s of a core for each GB"
        )
    share = found["loader_mb_a_second"] / found["raw_mb_a_second"]
    print(
        f"{len(files)} cases, {size / 1e9:.2f} GB: the loader reads {share:.0%} of the disk's rate"
    )
    write_json(arguments.out, {**found, "share": share})


if __name__ == "__main__":
    main()
