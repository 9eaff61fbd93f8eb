"""Keep files of this version, which every later one opens: tests/kept_files/X.Y.tar.xz (make keep, before a release).

python release/keep.py [--out tests/kept_files]
Trains a mean and a residual diffusion for ten steps on phantoms of 12×12×8 voxels, fits intervals, builds the folder of
a hub with its ONNX model, and synthesises one case with both. tests/test_kept_files.py opens them. A few minutes.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from voxlate.base.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
LARGEST_BYTES = 300_000
RECIPE = """
title = "kept"
data = { source = ["t1"], target = ["t2"], patch = [1, 12, 12] }
intensity = { t1 = { kind = "percentile" }, t2 = { kind = "percentile" } }
task = { kind = "residual" }
method = { kind = "diffusion" }
net = { kind = "unet", width = 2, multipliers = [1], blocks = 1, groups = 1, middle_attention = false, zero_init = false }
train = { steps = 10, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
synth = { sampler = "ddim", steps = 2, eta = 1.0 }

[[stages]]
name = "predictor"
method = { kind = "regression" }
net = { kind = "unet", width = 2, multipliers = [1], blocks = 1, groups = 1, middle_attention = false, zero_init = false }
train = { steps = 10, batch = 2, precision = "float32", workers = 0, validate_every = 0 }
"""
PHANTOM = "phantom --size 12 12 8 --modalities t1 --modalities t2"
CASE = "scans/phantom_000"
COMMANDS = (
    f"{PHANTOM} --out scans --cases 4",
    f"{PHANTOM} --out others --cases 3 --seed 1",
    "prepare scans --out prepared --shares 3 1 0 --no-audit",
    "train recipe.toml --data prepared --out run --device cpu",
    "calibrate run others --method difficulty --device cpu",
    f"synth run {CASE} --out synthesised --device cpu",
    f"synth run {CASE} --out mean --answer mean --device cpu",
    "push run kept/files --dry-run hub",
    f"synth hub/onnx t1={CASE}/t1.nii.gz --out carried",
)
KEPT = ("scans/phantom_000/t1.nii.gz", "run", "hub", "synthesised", "mean", "carried")
NOT_KEPT = (".pt", ".png", ".lock", ".csv", ".jsonl")  # states, pictures and logs: never read back


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "kept_files")
    out = parser.parse_args().out
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    archive = out / f"{version.rpartition('.')[0]}.tar.xz"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        (folder / "recipe.toml").write_text(RECIPE)
        for command in COMMANDS:
            print(f"voxlate {command}", flush=True)
            words = [sys.executable, "-m", "voxlate", *command.split()]
            subprocess.run(words, check=True, cwd=folder)
        for path in folder.rglob("provenance.json"):
            content: dict[str, Any] = _without(folder, read_json(path))
            write_json(path, content)
        _pack(folder, archive)
    size = archive.stat().st_size
    print(f"{archive}: {size} bytes")
    return int(size > LARGEST_BYTES)


def _without(folder: Path, value: Any) -> Any:
    """Plain values without the place of a folder in their texts."""
    if isinstance(value, dict):
        return {key: _without(folder, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(folder, item) for item in value]
    return value.replace(str(folder), "/kept") if isinstance(value, str) else value


def _pack(folder: Path, archive: Path) -> None:
    """Pack the kept files, without names of users and places; raises AssertionError if a file names the folder."""
    with tarfile.open(archive, "w:xz") as packed:
        for kept in KEPT:
            for path in sorted([folder / kept, *(folder / kept).rglob("*")]):
                if not path.is_file() or path.name.endswith(NOT_KEPT):
                    continue
                assert str(folder).encode() not in path.read_bytes(), f"{path} names its place"
                packed.add(path, path.relative_to(folder).as_posix(), filter=_nameless)


def _nameless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


if __name__ == "__main__":
    sys.exit(main())
