"""Kills, full disks and competing processes: what becomes of commands, as a table of faults and outcomes.

python fuzz/chaos.py [--seed 0] [--write docs/reliability.md]     exits with 1 where an outcome is a fault.
The same command resumes: tries that are done are kept in --files until the seed or the sources of voxlate change.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import voxlate

# forked processes begin with what commands import
import voxlate.evaluation.calibrate
import voxlate.evaluation.reports.page
import voxlate.evaluation.scoring.evaluate
import voxlate.training.train
from disturb import (
    FAULT,
    Disturbance,
    Place,
    full_disk,
    kill_a_worker,
    kill_at_a_moment,
    kill_at_events,
    two_at_once,
)
from scenarios import BY_RAY, BY_WORKERS, SCENARIOS, Undisturbed, undisturbed

DISK = "64m"  # size of the disk that is filled
OWN_MOUNTS = "VOXLATE_CHAOS_MOUNTS"  # set in a process whose mounts nobody else sees
FILES = Path("bench/chaos")
MARKS = ("<!-- chaos: begin -->", "<!-- chaos: end -->")
OF_WORKERS = "kill −9 of a worker"
DISTURBANCES: dict[str, Disturbance] = {
    "kill −9 at a random moment": kill_at_a_moment,
    "kill −9 before a file-system event": kill_at_events,
    "disk full as a file is written": full_disk,
    "two processes on one folder": two_at_once,
    OF_WORKERS: kill_a_worker,
}
TRIES = {
    "kill −9 at a random moment": 60,
    "kill −9 before a file-system event": 36,
    "disk full as a file is written": 36,
    "two processes on one folder": 12,
    OF_WORKERS: 10,
}


@dataclass(frozen=True)
class Try:
    """One try of a fault on a scenario."""

    fault: str
    subject: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.fault}, {self.subject}, {self.number}"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--minutes", type=float, default=20, help="time after which the other tries are left"
    )
    options.add_argument("--tries", type=int, help="number of tries of each fault")
    options.add_argument("--only", default="", help="rows of the table that hold this text")
    options.add_argument("--files", type=Path, default=FILES, help="folder of kept files and tries")
    options.add_argument("--write", type=Path, help="page whose table is replaced")
    chosen = options.parse_args()
    enter_own_mounts()
    tries = listed(chosen.only, chosen.tries)
    files = chosen.files.absolute()
    results = read_results(files, chosen.seed)
    place = begin(files, tries)
    begun = time.monotonic()
    with open(files / "tries.jsonl", "a", encoding="utf-8") as log:
        for one in tries:
            if one.key in results:
                continue
            if time.monotonic() - begun > 60 * chosen.minutes:
                break
            results[one.key] = outcome(one, place, chosen.seed)
            print(json.dumps([one.key, results[one.key]]), file=log, flush=True)
            if results[one.key].startswith(FAULT):
                print(f"{one.key}: {results[one.key]}", flush=True)
    rows = summarise(tries, results)
    for row, count, text in rows:
        print(f"{row}, {count} tries: {text}")
    print(f"{time.monotonic() - begun:.0f} s, seed {chosen.seed}")
    left = sum(one.key not in results for one in tries)
    if left:
        print(f"{left} tries are left; the same command goes on with them.")
    if chosen.write:
        write_table(chosen.write, rows, f"{len(tries) - left} of {len(tries)} tries.")
    return int(any(results.get(one.key, "").startswith(FAULT) for one in tries))


def enter_own_mounts() -> None:
    """Start this program again where it may mount a disk that other processes do not see, if the system allows it."""
    if OWN_MOUNTS in os.environ or shutil.which("unshare") is None:
        return
    for flags in (["--mount"], ["--mount", "--map-root-user"]):
        if subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode:
            continue
        os.environ[OWN_MOUNTS] = "1"
        os.execvp("unshare", ["unshare", *flags, sys.executable, *sys.argv])


def mounted(disk: Path) -> bool:
    """Mount a small disk in memory on a folder, where that is possible without other processes seeing it."""
    disk.mkdir(parents=True, exist_ok=True)
    if OWN_MOUNTS not in os.environ:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "voxlate-chaos", str(disk)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def listed(only: str, tries: int | None) -> list[Try]:
    """All tries: each fault takes commands in turn."""
    found = list[Try]()
    for fault, most in TRIES.items():
        subjects = [name for name in subjects_of(fault) if only in f"{fault}: {name}"]
        for number in range((tries or most) if subjects else 0):
            subject = subjects[number % len(subjects)]
            found.append(Try(fault, subject, number // len(subjects)))
    return found


def subjects_of(fault: str) -> list[str]:
    """The commands on which a fault is tried."""
    if fault == OF_WORKERS:
        return [one.name for one in SCENARIOS if one in (BY_WORKERS, BY_RAY)]
    return [one.name for one in SCENARIOS]


def read_results(files: Path, seed: int) -> dict[str, str]:
    """Outcomes of earlier tries; everything is removed that other sources or another seed made."""
    files.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(str(seed).encode())
    for root in (Path(voxlate.__file__).parent, Path(__file__).parent):
        for path in sorted(root.rglob("*.py")):
            digest.update(path.read_bytes())
    made_of = files / "made_of.txt"
    if not made_of.is_file() or made_of.read_text() != digest.hexdigest():
        shutil.rmtree(files)
        files.mkdir()
        made_of.write_text(digest.hexdigest())
    log = files / "tries.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
    # the last line is not whole where this program was killed
    whole = [line for line in lines if line.endswith("\n")]
    log.write_text("".join(whole), encoding="utf-8")
    return dict(json.loads(line) for line in whole)


def begin(files: Path, tries: list[Try]) -> Place:
    """Mount the disk, and make what is missing of undisturbed results."""
    has_own_disk = mounted(files / "disk")
    work, states, kept = files / "disk" / "work", files / "states", files / "runs.json"
    needed = {one.subject for one in tries}
    last = max((k for k, one in enumerate(SCENARIOS, start=1) if one.name in needed), default=0)
    runs = json.loads(kept.read_text()) if kept.is_file() else {}
    if len(runs) < last:
        shutil.rmtree(states, ignore_errors=True)
        runs = {name: asdict(one) for name, one in undisturbed(states, work, last).items()}
        kept.write_text(json.dumps(runs))
    return Place(
        states, work, {name: Undisturbed.of(one) for name, one in runs.items()}, has_own_disk
    )


def outcome(one: Try, place: Place, seed: int) -> str:
    """Do a try with random numbers of its own."""
    draw = np.random.default_rng([seed, zlib.crc32(one.key.encode())])
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == one.subject)
    return DISTURBANCES[one.fault](place, scenario, draw)


def summarise(tries: list[Try], results: dict[str, str]) -> list[tuple[str, int, str]]:
    """Rows of a table: fault, number of tries, outcomes with their numbers; the same is expected of all commands."""
    counts = dict[str, Counter[str]]()
    for trial in tries:
        if trial.key not in results:
            continue
        outcome = FAULT if results[trial.key].startswith(FAULT) else results[trial.key]
        counts.setdefault(trial.fault, Counter())[outcome] += 1
    return [
        (
            row,
            sum(found.values()),
            "; ".join(f"{count} × {text}" for text, count in sorted(found.items())),
        )
        for row, found in counts.items()
    ]


def write_table(page: Path, rows: list[tuple[str, int, str]], extent: str) -> None:
    """Replace the table between the marks of a page; extent: a sentence on how many tries it holds."""
    lines = ["| fault | tries | outcome |", "|---|---|---|"]
    lines += [f"| {fault} | {count} | {text} |" for fault, count, text in rows]
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    table = "\n".join([extent, "", *lines])
    page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
