"""What the synthesis of a head's CT with intervals takes: seconds, and memory at its peak (`make bench`; Linux).

python benchmarks/bench_synth.py [--size X Y Z]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from voxlate import phantom

HEAD = (170, 256, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=HEAD, help="voxels of the head")
    size = parser.parse_args().size
    with tempfile.TemporaryDirectory() as folder:
        cohort = Path(folder) / "cohort"
        phantom(cohort, cases=1, size=size, modalities=["t1"], lesion="none", progress=False)
        (t1,) = cohort.glob("*/t1.nii.gz")
        words = [
            "-m",
            "voxlate",
            "synth",
            "starter:head-mr-to-ct",
            f"{t1}",
            "--out",
            f"{folder}/out",
        ]
        begun = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    if os.waitstatus_to_exitcode(status) not in (0, 3):  # 3: an image that is not to be trusted
        sys.exit("the synthesis failed")
    cpu_seconds, gib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20
    print(f"head to CT with intervals: {seconds:.0f} s, {cpu_seconds:.0f} s of CPU, {gib:.2f} GiB")


if __name__ == "__main__":
    main()
