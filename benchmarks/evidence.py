"""Whether results on real scans and phantoms hold: every row beside its reference (`make evidence`, which CI runs).

    python benchmarks/evidence.py [--rows PATTERN …] [--data DIR] [--work DIR]
    python benchmarks/evidence.py --list | --compare | --accept | --readme
    python benchmarks/evidence.py --rows PATTERN … [--set KEY=VALUE …] [--fault NAME]

All rows take at most 20 minutes of two quiet cores: two at a time, one thread each, the longest first. A row takes the steps of
a stated speed (voxlate plan --speed), in float32 and with fixed seeds, so that it has the same numbers on every machine but
for rounding; minutes are only reported. Rows whose folders in --work are finished are not measured again, stopped
trainings resume. Code that is not committed begins anew.

At the end, and with --compare alone, it prints a table: row, score, reference, now, verdict. The exit code is 1 if a row
failed, or if a group of rows is worse than its references in the mean: MAE by more than 2 %, SSIM by 0.008, Dice by 0.015,
the gradient ratio by 0.05 farther from 1, or coverage outside 0.85 to 0.95 (ledger.MEASURES; times ledger.SPREAD, where
rounding moves short trainings). A single row's WORSE decides nothing, because rounding moves it. References are in
docs/reference/references.toml; --accept moves them to what the last commit has reached where that is better, and --readme
writes README's table from them.

--set changes a key of every training, such as train.seed=1, and --fault puts a fault into the code (evidence_faults.py): they
show what rows notice. Results of trials and of code that is not committed are printed and not kept.

Decision rule: no rule of plans and trainings is chosen on case37 and case41, which report.

brain-SCANNER-TARGET  T1 to T2 or FLAIR (DATA/brats_like), scored inside the body; the patients of a scanner report, the others
                      are split as `prepare` does by default.
heads-HEAD[-both]     MR to CT of 2-D slices (DATA/harvard_ct_mr). The other one that reports validates, five train; the mean
                      alone, or a second stage of a stated number of steps, too, with its mean and its sharp image.
starter-NAME-…        starters without training: on these slices, on a whole head with its CT (DATA/vhm_pair; in the training of
                      head-mr-to-ct), and on brains.
complete-SCANNER-…    any missing contrast, on the patients of a scanner.
paper-TABLE           a row of a paper's page after few steps, on its phantoms (tables.toml).
phantoms-TASK         24 synthetic heads of thick slices; volumes-TASK: 8 of nearly cubic voxels, in three planes.
intervals-HEAD        three heads train a mean prediction, three calibrate, HEAD reports the coverage of its 90 % intervals.
resumed-TASK          a training that is stopped and resumed beside an unbroken one: 1 if all weights are equal.
timed-HEAD, peer-HEAD a training of minutes of this machine, and MONAI's BasicUNet in as many: only where they are named.

MAE is a share of the range: 255 grey levels, the peak of an MR image, or -1000 to 1300 HU; of papers it has their unit.
mae_levelled is that of slices of heads after one offset a patient, in soft tissue, because the windows of their CTs differ.
Bone of slices is what has more than 0.9 of the grey levels, of CT what has more than 250 HU. Results are appended to
docs/reference/evidence.tsv. The commit is the last one that changed src/ or benchmarks/.
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
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch

import evidence_readme
import ledger
from evidence_faults import FAULTS
from evidence_rows import COHORTS, WORKERS, Row, all_rows, in_order, planned_minutes
from evidence_scores import KINDS, Place, prepare_cohort
from voxlate.base.groups import grouped
from voxlate.training.precision import choose

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "reference" / "evidence.tsv"
REFERENCES = ROOT / "docs" / "reference" / "references.toml"
CODE = ("src", "benchmarks")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def commit_of_code() -> str:
    """The last commit that changed the code, with ledger.DIRTY if it has changes that are not committed."""
    commit = _git("log", "-1", "--format=%h", "--abbrev=8", "--", *CODE)
    return commit + (ledger.DIRTY if _git("status", "--porcelain", "--", *CODE) else "")


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


def run_alone(name: str, options: argparse.Namespace, work: Path) -> None:
    """Prepare a cohort or measure a row in a process of its own with one thread; raises CalledProcessError if it fails."""
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    prepared = work_of(options.work, options.commit) / "prepared"  # of trials, too
    command = [sys.executable, __file__, "--data", options.data]
    changes = ["--set", *options.set] if options.set else []
    if options.fault:
        changes += ["--fault", options.fault]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        subprocess.run(
            [f"{part}" for part in (*command, *changes, "--only", name, folder, prepared)],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | ONE_THREAD,
        )


def measure_here(name: str, folder: Path, prepared: Path, options: argparse.Namespace) -> None:
    """Prepare a cohort, or measure a row and write its scores into its folder."""
    torch.set_num_threads(1)
    changes = dict(one.split("=", 1) for one in options.set)
    place = Place(options.data, folder, prepared, changes)
    if name in COHORTS:
        prepare_cohort(name, place)
        return
    if options.fault:
        FAULTS[options.fault]()
    row = _row_of(name)
    begun = time.monotonic()
    measured = KINDS[row.kind](row, place)
    minutes = (time.monotonic() - begun) / 60
    document = {**asdict(measured), "minutes": minutes, "cpu": time.process_time() / 60}
    (folder / "scores.json").write_text(json.dumps(document), encoding="utf-8")


def _row_of(name: str) -> Row:
    return next(one for one in all_rows() if one.name == name)


def measure_all(rows: Sequence[Row], options: argparse.Namespace, work: Path) -> list[Row]:
    """Measure rows two at a time, longest first, after the cohorts that they need; returns those that failed."""
    ordered = in_order(rows)
    cohorts = dict.fromkeys(row.cohort for row in ordered if row.cohort)
    failed, begun = list[Row](), time.monotonic()
    with ThreadPoolExecutor(options.workers) as pool:
        ready = {name: pool.submit(run_alone, name, options, work) for name in cohorts}

        def measure(row: Row) -> None:
            """Measure a row when its cohort is there."""
            if row.cohort:
                ready[row.cohort].result()
            run_alone(row.name, options, work)

        # a row whose cohort is not ready would wait in a worker's place
        waiting: dict[Future[None], Row] = {}
        for row in ordered:
            waiting[pool.submit(measure, row)] = row
        for done, future in enumerate(as_completed(waiting), start=1):
            row = waiting[future]
            try:
                future.result()
                shown = ", ".join(map(describe, results_of(row, work, "")))
            except Exception as error:  # whatever stops one row, the others go on
                failed.append(row)
                log = folder_of(row, work) / "log.txt"
                shown = f"{row.name}: failed. {last_line(log) or error} See {log}."
            seconds = time.monotonic() - begun
            print(f"{shown}\n{progress_of(done, ordered, seconds)}", flush=True)
    return failed


def folder_of(row: Row, work: Path) -> Path:
    """The folder of a row."""
    return work / row.name


def results_of(row: Row, work: Path, commit: str) -> list[ledger.Result]:
    """The results of a row that was measured; none of one that was not."""
    path = folder_of(row, work) / "scores.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    day, machine = f"{date.today()}", kind_of_machine()
    return [
        ledger.Result(commit, day, machine, name, found["steps"], found["minutes"], scores)
        for name, scores in zip(row.results, found["scores"], strict=True)
    ]


def last_line(log: Path) -> str:
    """What a process said last, which is the sentence of an error; "" without a log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return lines[-1] if lines else ""


def describe(result: ledger.Result) -> str:
    """The scores of a result on one line."""
    texts = [f"{name} {value:.4g}" for name, value in result.scores.items()]
    return f"{result.row} ({result.minutes:.1f} min): {', '.join(texts)}"


def progress_of(done: int, rows: Sequence[Row], seconds: float) -> str:
    """How many rows are done, and about how long the others take."""
    minutes = seconds / 60
    left = 0 if done == len(rows) else max(planned_minutes(rows) - minutes, 0)
    return f"{done} of {len(rows)} rows in {minutes:.0f} minutes, about {left:.0f} left"


def show(rows: Iterable[Row], work: Path, commit: str) -> bool:
    """Print the table of the rows that were measured; returns whether a group is worse than its reference."""
    references = ledger.read_references(REFERENCES)
    compared: list[tuple[str, ledger.Compared]] = []
    naive: dict[str, float] = {}
    for row in rows:
        for result in results_of(row, work, commit):
            if ledger.NAIVE in result.scores:
                naive[result.row] = result.scores[ledger.NAIVE]
            if row.extra:
                print(describe(result))
                continue
            compared += [(row.group, one) for one in ledger.compare(result, references)]
    text, is_worse = ledger.table(grouped(compared), naive)
    print(f"\n{commit}\n{text}")
    return is_worse


def accept(rows: Iterable[Row], work: Path, commit: str) -> int:
    """Move the references to the results of a commit that are better."""
    if commit.endswith(ledger.DIRTY):
        print(
            "expected committed code, found changes of src/ or benchmarks/. Commit, and measure that."
        )
        return 2
    references = ledger.read_references(REFERENCES)
    for row in rows:
        for result in () if row.extra else results_of(row, work, commit):
            references[result.row] = ledger.better(result, references.get(result.row))
    names = [name for row in all_rows() for name in row.results]
    ordered = {name: references[name] for name in names if name in references}
    ledger.write_references(REFERENCES, ordered)
    write_readme()
    return 0


def write_readme() -> None:
    """Write README's table from the references."""
    path = ROOT / "README.md"
    block = evidence_readme.block(ledger.read_references(REFERENCES))
    text = path.read_text(encoding="utf-8")
    path.write_text(evidence_readme.with_block(text, block), encoding="utf-8")


def chosen_rows(patterns: Sequence[str] | None) -> list[Row]:
    """The rows that match a pattern, as they are named there; by default all that are compared."""
    if not patterns:
        return [row for row in all_rows() if not row.extra]
    return [row for row in all_rows() if any(fnmatch.fnmatch(row.name, one) for one in patterns)]


def present_rows(rows: Iterable[Row], data: Path) -> list[Row]:
    """The rows whose scans are there; the others are named."""
    present = []
    for row in rows:
        scans = data / COHORTS[row.cohort][0] if row.cohort else data
        if not row.cohort or scans.is_dir():
            present.append(row)
        else:
            print(f"{row.name}: skipped, because {scans} is not there.")
    return present


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", nargs="+", metavar="PATTERN", help="names, with * and ?")
    options.add_argument("--list", action="store_true", help="only print the rows")
    options.add_argument("--compare", action="store_true", help="only print the table")
    options.add_argument("--accept", action="store_true", help="move references to better results")
    options.add_argument("--readme", action="store_true", help="only write README's table")
    options.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="a trial")
    options.add_argument("--fault", choices=FAULTS, help="a trial")
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--work", type=Path, default=ROOT / "bench" / "evidence")
    options.add_argument("--workers", type=int, default=WORKERS, help="rows at a time")
    options.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    return options


def main() -> int:
    options = parser().parse_args()
    if options.only:
        name, folder, prepared = options.only
        measure_here(name, Path(folder), Path(prepared), options)
        return 0
    if options.readme:
        write_readme()
        return 0
    rows = chosen_rows(options.rows)
    if options.list:
        print(*(f"{row.cost:4g} s  {row.name}" for row in rows), sep="\n")
        minutes = planned_minutes(rows)
        print(f"{len(rows)} rows, about {minutes:.0f} minutes in {WORKERS} processes")
        return 0
    options.commit = commit = commit_of_code()
    trial = [*options.set, options.fault] if options.fault else options.set
    work = work_of(options.work, commit, trial)
    if options.compare:
        return int(show(rows, work, commit))
    if options.accept:
        return accept(rows, work, commit)
    is_committed = not commit.endswith(ledger.DIRTY)
    is_kept = is_committed and not trial
    if not is_kept:
        shutil.rmtree(work, ignore_errors=True)
    if not is_committed:  # cohorts may be those of other code
        shutil.rmtree(work_of(options.work, commit), ignore_errors=True)
    present = present_rows(rows, options.data)
    left = [row for row in present if not (folder_of(row, work) / "scores.json").exists()]
    print(
        f"{commit} on {kind_of_machine()}: {len(left)} of {len(rows)} rows to measure", flush=True
    )
    failed = measure_all(left, options, work)
    measured = [row for row in left if row not in failed]
    if is_kept:
        results = (one for row in measured for one in results_of(row, work, commit))
        ledger.append(RESULTS, results)
    is_worse = show(present, work, commit)
    for row in failed:
        print(f"{row.name}: FAILED. See {folder_of(row, work) / 'log.txt'}.")
    return int(is_worse or bool(failed) or not present)


def work_of(work: Path, commit: str, changes: Sequence[str] = ()) -> Path:
    """The folder of the runs of a commit, or of a trial."""
    return work / re.sub(r"[^\w.+=-]", "_", "_".join([commit, *changes]))


if __name__ == "__main__":
    sys.exit(main())
