"""What starters reach on real scans, and what they are worth to a training: `make starter-tables` (hours; resumable).

    python benchmarks/starter_tables.py WORK STARTERS [zero tune patients through adapt] [--seeds 0 1 2] [--minutes 5]

STARTERS is the folder of the packed starters. WORK holds real cohorts, as benchmarks/starters.py takes them:
harvard_scans (mr, ct; pictures), brains_scans (t1, t2, flair) and topcow_scans (tof, cta, mask). Cases of harvard_scans
whose split is train teach, the others are scored. What is prepared and trained is written to WORK/tables.

Each finished measurement is one JSON line next to this file; lines that are there are skipped, and those of other
weights of a starter are measured anew. --print shows the tables: mean over seeds and, in brackets, the range.
Minutes are processor time of one thread: plans, their probes and their pace count it instead of the wall clock.
"""

import argparse
import os
from pathlib import Path

import torch

from starter_adaptation import adapt
from starter_measures import Setup, measure, use_starters
from starter_prints import print_tables
from starter_training import patients, through, tune
from starter_zero import zero

TABLES = {"zero": zero, "tune": tune, "patients": patients, "through": through, "adapt": adapt}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("starters", type=Path)
    parser.add_argument("tables", nargs="*", default=[*TABLES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="instead of those of each table")
    parser.add_argument(
        "--size", type=int, nargs=3, default=[200, 240, 42], help="voxels of phantoms: x y z"
    )
    parser.add_argument("--limit", type=int, help="take no more than so many cases (for trials)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--print", dest="shown", action="store_true")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.tables) - set(TABLES))
    if unknown:
        parser.error(f"expected some of {', '.join(TABLES)}, found {unknown[0]}")
    if not chosen.shown:
        torch.set_num_threads(1)
        setup = Setup(
            work=chosen.work.resolve(),
            starters=chosen.starters.resolve(),
            seeds=tuple(chosen.seeds),
            minutes=chosen.minutes,
            size=tuple(chosen.size),
            limit=chosen.limit,
        )
        use_starters(setup.starters)
        for name in chosen.tables:
            measure(TABLES[name](setup), chosen.out)
    print_tables(chosen.out, chosen.tables)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
