"""What a commit reaches on real scans and phantoms: one line a result in docs/reference/evidence.tsv (`make evidence`).

    python benchmarks/evidence.py [--rows PATTERN …] [--data DIR] [--work DIR]
    python benchmarks/evidence.py --list
    python benchmarks/evidence.py --compare

All rows take at most 40 minutes of two cores: two rows at a time, one thread each, the longest first. Results that
the commit has on this kind of machine are not measured again; stopped trainings resume. At the end, and with --compare
alone, it prints what is worse than the best earlier result of the same row on the same kind of machine by more than the
score's spread (ledger.py), with exit code 1 if anything is, or if a row failed.

Decision rule: no rule of plans and trainings is chosen on case37 and case41, which report.

heads-HEAD         MR to CT of 2-D slices (DATA/harvard_ct_mr). The other one that reports validates, five train `train auto`.
heads-HEAD-…steps  the same in a fixed number of steps of a mean prediction, for machines of different speed.
peer-HEAD          the same by MONAI's BasicUNet, in as many minutes (evidence_peer.py).
brain-PATIENT      T1 to T2 (DATA/brats_like), scored inside the body; the three other brains train.
phantoms-TASK      24 synthetic heads: 16 train, 2 validate, 6 report.
starter-NAME       a starter without training, on the same heads and brains.
intervals-HEAD     three heads train a mean prediction, three calibrate, HEAD reports the coverage of its 90 % intervals.

MAE is a share of the range: 255 grey levels, the peak of an MR image, or -1000 to 1300 HU. mae_levelled is that of slices of
heads after one offset a patient, in soft tissue, because the windows of their CTs differ between patients. Bone of slices is what has more
than 0.9 of the grey levels, in truth and synthesis; of CT phantoms what has more than 250 HU. The commit is the last one
that changed src/, with + if src/ has changes that are not committed. The rows are in evidence_rows.py.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path

import torch

import ledger
from evidence_rows import (
    KINDS,
    WORKERS,
    Place,
    Row,
    Scores,
    all_rows,
    planned_minutes,
    scans_of,
)
from voxlate.training.precision import choose

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "reference" / "evidence.tsv"


def commit_of_source() -> str:
    """The last commit that changed src/, with ledger.DIRTY if src/ has changes that are not committed."""
    commit = _git("log", "-1", "--format=%h", "--abbrev=8", "--", "src")
    return commit + (ledger.DIRTY if _git("status", "--porcelain", "--", "src") else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def kind_of_machine() -> str:
    """Vendor and family of the CPU, the first two words of its name without marks, and the precision of auto."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        name = next(iter(re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE)), name)
    family = name.replace("(R)", "").replace("(TM)", "").split()[:2]
    return f"{' '.join(family)}, {choose(torch.device('cpu'))[0]}"


def measure_in_process(row: Row, options: argparse.Namespace, folder: Path) -> list[Scores]:
    """Measure a row in a process of its own with one thread; raises CalledProcessError if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--data", options.data, "--only", row.name, folder]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        subprocess.run(
            [f"{part}" for part in command],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | threads,
        )
    found: list[Scores] = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return found


def measure(row: Row, data: Path, folder: Path) -> None:
    """Measure a row in this process, and write its scores into its folder."""
    torch.set_num_threads(1)
    scores = list(KINDS[row.kind](row, Place(data, folder)))
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")


def measure_all(rows: Sequence[Row], options: argparse.Namespace, commit: str, machine: str) -> int:
    """Measure rows two at a time, longest first, and append their results; returns how many failed."""
    work = options.work / commit
    if commit.endswith(ledger.DIRTY):  # whose runs may be those of other code
        shutil.rmtree(work, ignore_errors=True)
    ordered = sorted(rows, key=lambda row: -row.minutes)
    failed, began = 0, time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting = {
            pool.submit(measure_in_process, row, options, work / row.name): row for row in ordered
        }
        for done, future in enumerate(as_completed(waiting), start=1):
            row = waiting[future]
            try:
                results = [
                    ledger.Result(commit, f"{date.today()}", machine, name, **scores)
                    for name, scores in zip(row.results, future.result(), strict=True)
                ]
            except Exception as error:  # whatever stops one row, the others go on
                failed += 1
                log = work / row.name / "log.txt"
                print(f"{row.name}: failed. {last_line(log) or error} See {log}.")
                results = []
            ledger.append(RESULTS, results)
            for result in results:
                print(describe(result))
            seconds = time.monotonic() - began
            print(progress_of(done, ordered, seconds), flush=True)
    return failed


def last_line(log: Path) -> str:
    """What a process said last, which is the sentence of an error; "" without a log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return lines[-1] if lines else ""


def describe(result: ledger.Result) -> str:
    """The scores of a result on one line."""
    scores = {one.name: getattr(result, one.name) for one in ledger.MEASURES}
    texts = [f"{name} {value:.4g}" for name, value in scores.items() if value is not None]
    return f"{result.row}: {', '.join(texts)}"


def progress_of(done: int, rows: Sequence[Row], seconds: float) -> str:
    """How many rows are done, and about how long the others take."""
    minutes = seconds / 60
    left = 0 if done == len(rows) else max(planned_minutes(rows) - minutes, 0)
    return f"{done} of {len(rows)} rows in {minutes:.0f} minutes, about {left:.0f} left"


def show_worse(commit: str) -> int:
    """Print what is worse in a commit, or the last measured one; returns the number of sentences."""
    results = ledger.read(RESULTS)
    if results and commit not in {result.commit for result in results}:
        print(f"{commit} has no results; those of {results[-1].commit} are compared.")
        commit = results[-1].commit
    sentences = ledger.worse(results, commit)
    print(*sentences or ["Nothing is worse than before by more than its spread."], sep="\n")
    return len(sentences)


def chosen_rows(options: argparse.Namespace) -> list[Row]:
    """The rows of the set that match a pattern, as they are named there."""
    patterns = options.rows or ["*"]
    return [row for row in all_rows() if any(fnmatch.fnmatch(row.name, one) for one in patterns)]


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", nargs="+", metavar="PATTERN", help="names, with * and ?")
    options.add_argument("--list", action="store_true", help="only print the rows")
    options.add_argument("--compare", action="store_true", help="only print what is worse")
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--work", type=Path, default=ROOT / "bench" / "evidence")
    options.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    return options


def main() -> int:
    options = parser().parse_args()
    if options.only:
        name, folder = options.only
        row = next(one for one in all_rows() if one.name == name)
        measure(row, options.data, Path(folder))
        return 0
    rows = chosen_rows(options)
    if options.list:
        print(*(f"{row.minutes:4g} min  {row.name}" for row in rows), sep="\n")
        minutes = planned_minutes(rows)
        print(f"{len(rows)} rows, about {minutes:.0f} minutes in {WORKERS} processes")
        return 0
    commit = commit_of_source()
    if options.compare:
        return min(show_worse(commit), 1)
    machine, known = kind_of_machine(), ledger.read(RESULTS)
    present = []
    for row in rows:
        scans = options.data / scans_of(row)
        if row.kind == "phantoms" or scans.is_dir():
            present.append(row)
        else:
            print(f"{row.name}: skipped, because {scans} is not there.")
    left = [row for row in present if not ledger.is_measured(known, commit, machine, row.results)]
    print(f"{commit} on {machine}: {len(left)} of {len(rows)} rows to measure", flush=True)
    failed = measure_all(left, options, commit, machine)
    return min(show_worse(commit) + failed + (not present), 1)


if __name__ == "__main__":
    sys.exit(main())
