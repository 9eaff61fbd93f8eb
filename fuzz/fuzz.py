"""Mutates every kind of file that voxlate reads, and runs the command line on it: a right result or one sentence.

python fuzz/fuzz.py [--seconds 600] [--seed 0]     exits with 1 where anything crashed or was wrong without a word
"""

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import tomli_w
from PIL import Image
from rich.console import Console
from rich.table import Table

from voxlate import cli

RECIPE = """
title = "tiny"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 1, batch = 1, precision = "float32", workers = 0, save_every = 1, validate_every = 0 }
"""
CHECKSUM = "checksum"  # of tables that voxlate writes: without it a changed value may pass for a user's own
ODD: list[Any] = [-1, 0, 1e308, float("inf"), "", "../../evil", "x" * 300, True, [], {}, [[]], "[/]", "\x00", "é" * 99]


@dataclass(frozen=True)
class Kind:
    """One kind of file: where it lies, the command that reads it, and whether its format has a checksum."""

    name: str
    file: str
    command: tuple[str, ...]
    checked: bool = False
    text: bool = False


KINDS = (
    Kind("NIfTI", "scans/a.nii", ("info", "scans/a.nii", "--json")),
    Kind("NIfTI, gzip", "scans/a.nii.gz", ("info", "scans/a.nii.gz", "--json"), checked=True),
    Kind("NIfTI pair, header", "scans/pair.hdr", ("info", "scans/pair.hdr", "--json")),
    Kind("MGH", "scans/a.mgh", ("info", "scans/a.mgh", "--json")),
    Kind("MGZ", "scans/a.mgz", ("info", "scans/a.mgz", "--json"), checked=True),
    Kind("MetaImage, packed", "scans/a.mha", ("info", "scans/a.mha", "--json")),
    Kind("NRRD, packed", "scans/a.nrrd", ("info", "scans/a.nrrd", "--json")),
    Kind("PNG", "scans/a.png", ("info", "scans/a.png", "--json"), checked=True),
    Kind("TIFF", "scans/a.tif", ("info", "scans/a.tif", "--json")),
    Kind("DICOM slice", "series/2.dcm", ("info", "series", "--json")),
    Kind("NumPy slice", "scans/a.npy", ("info", "scans/a.npy#channel=1", "--json")),
    Kind("NumPy archive", "scans/a.npz", ("info", "scans/a.npz#array=src", "--json"), checked=True),
    Kind("HDF5 stack", "scans/a.h5", ("info", "scans/a.h5#slice=1", "--json")),
    Kind(
        "list of patients",
        "slices/patients.txt",
        ("prepare", "slices", "--preset", "xmodality", "--out", "new"),
        text=True,
    ),
    Kind("scan of a cohort", "cohort/case1/t1.nii.gz", ("prepare", "cohort", "--out", "new"), checked=True),
    Kind("scan to synthesise", "cohort/case1/t1.nii.gz", ("synth", "run", "cohort", "--out", "new"), checked=True),
    Kind("synthesis to score", "out/case1/t2.nii.gz", ("evaluate", "out", "--truth", "cohort"), checked=True),
    Kind("manifest", "cohort/cases.csv", ("prepare", "cohort", "--out", "new"), text=True),
    Kind("preset", "own.toml", ("prepare", "cohort", "--preset", "own.toml", "--out", "new"), text=True),
    # steps are given, for without them a recipe asks for 10,000
    Kind(
        "recipe",
        "tiny.toml",
        ("train", "tiny.toml", "--data", "prepared", "--out", "new", "--set", "train.steps=2"),
        text=True,
    ),
    Kind("cohort.json", "prepared/cohort.json", ("info", "prepared"), text=True),
    Kind(
        "prepared case",
        "prepared/cases/case1.safetensors",
        ("train", "tiny.toml", "--data", "prepared", "--out", "new"),
        checked=True,
    ),
    Kind("weights", "run/weights.safetensors", ("synth", "run", "cohort/case0", "--out", "new"), checked=True),
    Kind("run's provenance", "run/provenance.json", ("synth", "run", "cohort/case0", "--out", "new"), text=True),
    Kind("provenance", "out/case1/provenance.json", ("evaluate", "out", "--truth", "cohort"), text=True),
    Kind("metrics.json", "out/metrics.json", ("report", "out"), text=True),
    Kind("state", "stopped/state.pt", ("train", "tiny.toml", "--data", "prepared", "--out", "stopped")),
)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    draw, counts, faults = np.random.default_rng(chosen.seed), Counter[tuple[str, str]](), list[str]()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        prepare_files()
        kinds = [kind for kind in KINDS if Path(kind.file).exists()]
        right = {kind.name: run(kind.command)[1] for kind in kinds if kind.command[0] == "info"}
        end, number = time.monotonic() + chosen.seconds, 0
        while time.monotonic() < end:
            kind = kinds[number % len(kinds)]
            number += 1
            outcome, said = attempt(kind, draw, right.get(kind.name))
            counts[kind.name, outcome] += 1
            if outcome in ("crashed", "wrong"):
                faults.append(f"{kind.name}, try {number}: {outcome}: {said[-300:]}")
    show(counts)
    for fault in faults[:20]:
        print(fault)
    return 1 if faults else 0


def attempt(kind: Kind, draw: np.random.Generator, right: str | None) -> tuple[str, str]:
    """Mutate one file, run its command, put the file back; what came of it, and what was said."""
    path = Path(kind.file)
    whole, folder = path.read_bytes(), path.parent
    changed = whole
    while changed == whole:
        changed = mutated(path, whole, draw) if kind.text else flipped(whole, draw)
    path.write_bytes(changed)
    before = set(folder.rglob("*"))
    try:
        code, out, err = run(kind.command)
    except Exception as error:  # past the command line's own net
        return "crashed", repr(error)
    finally:
        path.write_bytes(whole)
        shutil.rmtree("new", ignore_errors=True)
        if kind.name == "state":
            shutil.rmtree("stopped")
            shutil.copytree("stopped.kept", "stopped")
    left = [one for one in set(folder.rglob("*")) - before if one.name.startswith(".writing-")]
    if left:
        return "wrong", f"left {left[0]}"
    said = [line for line in err.splitlines() if line.startswith("voxlate: ")]
    if code == 2 and said and "Traceback" not in err:
        return "refused", said[0]
    if code != 0:
        return "crashed", err
    if right is None or out == right:
        return "accepted", ""
    return ("wrong" if kind.checked else "no checksum"), out


def flipped(whole: bytes, draw: np.random.Generator) -> bytes:
    """Some bits turned over, a piece cut off, or a block of zeros."""
    data, way = bytearray(whole), draw.integers(4)
    if way == 0:
        return bytes(data[: draw.integers(len(data))])
    if way == 1:
        start = draw.integers(len(data))
        data[start : start + 64] = bytes(len(data[start : start + 64]))
        return bytes(data)
    head = min(len(data), 400) if way == 2 else len(data)  # headers are small, and matter most
    for _ in range(draw.integers(1, 4)):
        data[draw.integers(head)] ^= 1 << draw.integers(8)
    return bytes(data)


def mutated(path: Path, whole: bytes, draw: np.random.Generator) -> bytes:
    """A value of a JSON or TOML file changed for an odd one, or bits of the text turned over."""
    if draw.random() < 0.3 or path.suffix in (".csv", ".txt"):
        return flipped(whole, draw)
    values = json.loads(whole) if path.suffix == ".json" else tomllib.loads(whole.decode())
    places = list(_places(values))
    owner, key = places[draw.integers(len(places))]
    if draw.random() < 0.5:
        values.pop(CHECKSUM, None)
    owner[key] = ODD[draw.integers(len(ODD))]
    if path.suffix == ".json":
        return json.dumps(values).encode()
    return tomli_w.dumps(values).encode()


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(items):
        yield value, key
        yield from _places(one)


def run(command: tuple[str, ...]) -> tuple[int, str, str]:
    """The command line in this process: exit code, stdout, stderr."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    arguments, sys.argv = sys.argv, ["voxlate", *command]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = arguments
    return code, out.getvalue(), err.getvalue()


def prepare_files() -> None:
    """A small cohort in every format, prepared, trained, synthesised and scored."""
    draw = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in (20, 24, 6)), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.1) ** 2 < 1
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    for number in range(4):
        t1 = inside * (600 + 100 * np.sin(4 * x * draw.normal() + 4 * y * draw.normal()))
        for name, values in (("t1", t1), ("t2", inside * (1400 - t1))):
            path = Path(f"cohort/case{number}/{name}.nii.gz")
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    Path("cohort/cases.csv").write_text(
        "case,patient,split\n" + "".join(f"case{k},p{k},{'val' if k == 3 else 'train'}\n" for k in range(4))
    )
    Path("own.toml").write_text(
        'title = "own"\nsource = "here"\npatterns = ["{case}/{modality}"]\n[aliases]\nt1w = "t1"\n'
    )
    Path("tiny.toml").write_text(RECIPE)
    Path("scans").mkdir()
    whole = t1.astype(np.int16)
    for suffix in ("nii", "nii.gz"):
        nib.save(nib.Nifti1Image(whole, affine), f"scans/a.{suffix}")
    nib.save(nib.Nifti1Pair(whole, affine), "scans/pair.img")
    for suffix in ("mgh", "mgz"):
        nib.save(nib.MGHImage(whole, affine), f"scans/a.{suffix}")
    for suffix in ("png", "tif"):
        Image.fromarray((whole[:, :, 3] // 4).astype(np.uint8)).save(f"scans/a.{suffix}")
    with contextlib.suppress(ImportError):
        import SimpleITK

        for suffix in ("mha", "nrrd"):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(whole.T), f"scans/a.{suffix}", True)
    with contextlib.suppress(ImportError):
        write_series(whole)
    np.save("scans/a.npy", whole)
    np.savez_compressed("scans/a.npz", src=whole[:, :, 3], tgt=whole[:, :, 2])
    with contextlib.suppress(ImportError):
        import h5py

        with h5py.File("scans/a.h5", "w") as file:
            file["data"] = whole.T
    Path("slices").mkdir()
    for k in range(4):
        np.savez(f"slices/s{k}.npz", src=whole[:, :, k] / 1000, tgt=whole[:, :, k] - 1000)
    Path("slices/patients.txt").write_text("".join(f"s{k} p{k}\n" for k in range(4)))
    steps: tuple[tuple[str, ...], ...] = (
        ("prepare", "cohort", "--out", "prepared"),
        ("train", "tiny.toml", "--data", "prepared", "--out", "run"),
        ("synth", "run", "cohort", "--out", "out"),
        ("evaluate", "out", "--truth", "cohort"),
        ("train", "tiny.toml", "--data", "prepared", "--out", "stopped"),
    )
    for step in steps:
        code, _, err = run(step)
        if code:
            raise SystemExit(err)
    Path("stopped/weights.safetensors").unlink()  # as if it had been killed before the end
    shutil.copytree("stopped", "stopped.kept")


def write_series(whole: np.ndarray) -> None:
    import pydicom

    Path("series").mkdir()
    for k in range(4):
        header = pydicom.Dataset()
        header.SOPClassUID, header.SOPInstanceUID, header.Modality = "1.2.840.10008.5.1.4.1.1.4", f"1.2.{k}", "MR"
        header.SeriesInstanceUID, header.PatientID, header.FrameOfReferenceUID = "1.2.3", "p", "1.2.5"
        header.Rows, header.Columns, header.SamplesPerPixel = 24, 20, 1
        header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 1
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelSpacing, header.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [0, 0, 3 * k]
        header.PixelData = np.ascontiguousarray(whole[:, :, k].T).tobytes()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.save_as(f"series/{k}.dcm", enforce_file_format=True)


def show(counts: Counter[tuple[str, str]]) -> None:
    outcomes = ("refused", "accepted", "no checksum", "wrong", "crashed")
    table = Table("kind", "tries", *outcomes)
    for name in dict.fromkeys(name for name, _ in counts):
        row = [counts[name, outcome] for outcome in outcomes]
        table.add_row(name, str(sum(row)), *map(str, row))
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
