"""Reading of a prepared cohort by 4 processes: the data loader's bytes a second, as a share of the disk's.

python benchmarks/bench_reading.py COHORT [--workers 4] [--rounds 3]
COHORT: a prepared folder, better larger than a few GB. The raw reading is sequential, in blocks of 1 MB, of the same
case files in as many processes. The loader opens each case, compares its checksums and reads all its slices as training
does. Before each of both the files are written back and dropped from the page cache (posix_fadvise, which needs no
privilege); both take turns, and the medians are compared. (Linux)
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from voxlate.data.batches import read_batch
from voxlate.data.patches import DataSettings
from voxlate.data.prepared import open_cohort
from voxlate.files import write_json
from voxlate.images.intensity import Percentile

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
    names = tuple(header.present)
    data = DataSettings(source=names[:1], target=names[1:], patch=(1, *header.shape[1:]))
    intensity = {name: Percentile() for name in names}
    places = [(case, start) for start in ((z, 0, 0) for z in range(header.shape[0]))]
    for first in range(0, len(places), BATCH):
        read_batch(cohort, data, intensity, places[first : first + BATCH])
    return len(places)


def seconds_of(pool, read: Callable[..., int], work: Sequence[object]) -> float:  # type: ignore[no-untyped-def]
    begun = time.monotonic()
    list(pool.imap_unordered(read, work))
    return time.monotonic() - begun


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
    raw = list[float]()
    loaded = list[float]()
    context = get_context("fork")
    for _ in range(arguments.rounds):
        for times, read, work in (
            (raw, read_raw, files),
            (loaded, partial(read_case, arguments.cohort), cases),
        ):
            drop(files)
            with context.Pool(arguments.workers) as pool:  # new processes have opened no case
                times.append(seconds_of(pool, read, work))
    rates = {
        name: size / statistics.median(times) / 1e6
        for name, times in (("raw", raw), ("loader", loaded))
    }
    share = rates["loader"] / rates["raw"]
    print(
        f"{len(files)} cases, {size / 1e9:.2f} GB: raw {rates['raw']:.0f} MB/s, loader {rates['loader']:.0f} MB/s, {share:.0%}"
    )
    write_json(arguments.out, {"bytes": size, "mb_a_second": rates, "share": share})


if __name__ == "__main__":
    main()
