"""Memory of `voxlate synth` on large volumes: the peak of its resident memory, and of the part that is not in files.

python benchmarks/bench_large.py RUN [--size 1024 1024 800] [--folder bench/large] [--keep]
RUN: a run of one source. A child process synthesises a made-up head of int16 voxels; this process reads
/proc/PID/status every 50 ms: VmRSS is all of the resident memory, RssAnon the part that no file holds. The system may
take the rest, pages of mapped files, at any time. ru_maxrss is the kernel's own peak of all of it. (Linux)
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from voxlate.base.files import write_json

INTERVAL = 0.05
FIELDS = ("VmRSS", "RssAnon", "RssFile")


def write_scan(path: Path, size: tuple[int, int, int]) -> None:
    """An uncompressed NIfTI file of a noisy ellipsoid with a bright core, written plane by plane."""
    width, height, depth = size
    header = nib.nifti1.Nifti1Header()
    header.set_data_shape(size)
    header.set_data_dtype(np.int16)
    spacing = (220 / width, 220 / height, 180 / depth)
    header.set_sform(np.diag([*spacing, 1.0]), code=1)
    header.set_slope_inter(1.0, 0.0)
    rng = np.random.default_rng(0)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    with path.open("wb") as file:
        header.write_to(file)
        file.write(bytes(header.get_data_offset() - file.tell()))
        for z in np.linspace(-1, 1, depth):
            radius = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2
            plane = rng.integers(0, 12, (height, width), np.int16)
            plane += (400 * (radius < 1) + 300 * (radius < 0.4)).astype(np.int16)
            file.write(plane.tobytes())


def watch(command: list[str]) -> dict[str, float]:
    """Run a command; its seconds, and its peaks of memory in GiB."""
    begun = time.monotonic()
    process = subprocess.Popen(command)
    peaks = dict.fromkeys(FIELDS, 0)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        try:
            text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        except OSError:
            continue
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]))
        time.sleep(INTERVAL)
    if os.waitstatus_to_exitcode(status) not in (0, 3):  # 3: an image that is not to be trusted
        sys.exit(f"{' '.join(command)}: failed")
    found = {f"{name}_gib": round(value / 2**20, 3) for name, value in peaks.items()}
    return {
        "seconds": round(time.monotonic() - begun, 1),
        "ru_maxrss_gib": round(usage.ru_maxrss / 2**20, 3),
        **found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--size", nargs=3, type=int, default=(1024, 1024, 800), metavar="N")
    parser.add_argument("--folder", type=Path, default=Path("bench/large"))
    parser.add_argument("--ending", default=".nii.gz", help="of the synthesised image")
    parser.add_argument("--keep", action="store_true", help="keep the scan and the image")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    width, height, depth = arguments.size
    scan = folder / f"t1_{width}x{height}x{depth}.nii"
    if not scan.exists():
        write_scan(scan, (width, height, depth))
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    voxlate = [sys.executable, "-m", "voxlate", "synth"]
    result = watch(
        [
            *voxlate,
            arguments.run,
            str(scan),
            "--anyway",
            "--out",
            str(out),
            "--format",
            arguments.ending[1:],
        ]
    )
    print(result)
    write_json(folder / "large.json", {"size": [width, height, depth], **result})
    if not arguments.keep:
        scan.unlink()
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
