"""The kinds of files that are mutated, and a small cohort in every format on which every command has run."""

import contextlib
import io
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from voxlate.commands import cli

RECIPE = """
title = "tiny"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20] }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 1, batch = 1, precision = "float32", workers = 0, validate_every = 0 }
"""
TRAIN = ("train", "tiny.toml", "--data", "prepared", "--out", "new")


@dataclass(frozen=True)
class Kind:
    """One kind of file: where it lies, the command that reads it, and whether its format has a checksum."""

    name: str
    file: str
    command: tuple[str, ...]
    checked: bool = False
    form: str = ""  # of structures.mutated; "" where only bits are changed
    restored: str = ""  # a folder that the command changes


# The name of each format, its file, the part that is read, and whether it has a checksum.
SCANS = (
    ("NIfTI", "scans/a.nii", "", False),
    ("NIfTI, gzip", "scans/a.nii.gz", "", True),
    ("MGH", "scans/a.mgh", "", False),
    ("MGZ", "scans/a.mgz", "", True),
    ("MetaImage, packed", "scans/a.mha", "", False),
    ("NRRD, packed", "scans/a.nrrd", "", False),
    ("PNG", "scans/a.png", "", True),
    ("TIFF", "scans/a.tif", "", False),
    ("NumPy slice", "scans/a.npy", "#channel=1", False),
    ("NumPy archive", "scans/a.npz", "#array=src", True),
    ("HDF5 stack", "scans/a.h5", "#slice=1", False),
)
PREPARE = ("prepare", "cohort", "--out", "new")
REPORT = ("report", "prepared", "--out", "new.html")
SYNTH = ("synth", "run", "cohort/case0", "--out", "new")
EVALUATE = ("evaluate", "out", "--truth", "cohort")
COMPARE = ("compare", "out", "other", "--json")
AGAIN, STOPPED = (*TRAIN[:-1], "run"), (*TRAIN[:-1], "stopped")

KINDS = (
    *(
        Kind(name, file, ("info", file + part, "--json"), checked)
        for name, file, part, checked in SCANS
    ),
    Kind("DICOM slice", "series/2.dcm", ("info", "series", "--json")),
    Kind(
        "list of patients",
        "slices/patients.txt",
        ("prepare", "slices", "--preset", "xmodality", "--out", "new"),
    ),
    Kind("scan of a cohort", "cohort/case1/t1.nii.gz", PREPARE, checked=True),
    Kind(
        "scan to synthesise",
        "cohort/case1/t1.nii.gz",
        ("synth", "run", "cohort", "--out", "new"),
        checked=True,
    ),
    Kind("synthesis to score", "out/case1/t2.nii.gz", EVALUATE, checked=True, restored="out"),
    Kind("manifest", "cohort/cases.csv", PREPARE),
    Kind("preset", "own.toml", (*PREPARE, "--preset", "own.toml"), form="toml"),
    # steps are given, for without them a recipe asks for 10,000
    Kind("recipe", "tiny.toml", (*TRAIN, "--set", "train.steps=2"), form="toml"),
    *(
        Kind("cohort.json", "prepared/cohort.json", command, form="json", restored=folder)
        for command, folder in (
            (("info", "prepared", "--json"), ""),
            (REPORT, ""),
            (TRAIN, ""),
            ((*EVALUATE, "--json"), "out"),
        )
    ),
    *(
        Kind("prepared case", "prepared/cases/case1.safetensors", command, True, form="case")
        for command in (TRAIN, REPORT)
    ),
    *(
        Kind("weights", "run/weights.safetensors", command, True, form="weights", restored=folder)
        for command, folder in ((SYNTH, ""), (("info", "run", "--json"), ""), (AGAIN, "run"))
    ),
    *(
        Kind("run's provenance", f"{run}/provenance.json", command, form="json", restored=run)
        for run, command in (
            ("run", SYNTH),
            ("run", (*EVALUATE, "--json")),
            ("run", AGAIN),
            ("stopped", STOPPED),
        )
    ),
    Kind("run's recipe", "stopped/recipe.toml", STOPPED, form="toml", restored="stopped"),
    Kind("anatomy", "run/anatomy.safetensors", SYNTH, checked=True, form="anatomy"),
    *(
        Kind("provenance", f"out/{place}provenance.json", command, form="json", restored="out")
        for place in ("case1/", "")
        for command in (
            (*EVALUATE, "--json"),
            ("report", "out"),
            ("info", "out", "--json"),
            ("synth", "run", "cohort", "--out", "out"),
            COMPARE,
        )
    ),
    *(
        Kind(file, f"out/{file}", command, file == "scores.csv", restored="out")
        for file in ("metrics.json", "scores.csv")
        for command in (("report", "out"), (*COMPARE, "--report", "new.html"))
    ),
    Kind("naive baselines", "run/naive.safetensors", (*EVALUATE, "--json"), form="naive"),
    Kind(
        "calibration",
        "cal/calibration.mean.1.safetensors",
        ("synth", "cal", "cohort/case0", "--out", "new"),
        checked=True,
    ),
    *(
        Kind("state", f"{run}/state.pt", command, restored=run)
        for run, command in (("stopped", STOPPED), ("run", AGAIN))
    ),
)


def prepare_files() -> None:
    """A small cohort in every format, prepared, trained, synthesised and scored."""
    write_scans()
    done(
        ("prepare", "cohort", "--out", "prepared"),
        ("train", "tiny.toml", "--data", "prepared", "--out", "run"),
        ("synth", "run", "cohort", "--out", "out"),
        ("evaluate", "out", "--truth", "cohort"),
    )
    for copied in ("cal", "stopped"):
        shutil.copytree("run", copied)
    done(("calibrate", "cal", "others"))
    Path("stopped/weights.safetensors").unlink()  # as if it had been killed before the end
    shutil.copytree("out", "other")
    keep(KINDS)


def write_scans() -> None:
    """A small cohort, and one scan in every format."""
    draw = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in (20, 24, 6)), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.1) ** 2 < 1
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    for number in range(7):
        t1 = inside * (600 + 100 * np.sin(4 * x * draw.normal() + 4 * y * draw.normal()))
        for name, values in (("t1", t1), ("t2", inside * (1400 - t1))):
            path = Path(f"{'cohort' if number < 4 else 'others'}/case{number}/{name}.nii.gz")
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    Path("cohort/cases.csv").write_text(
        "case,patient,split\n"
        + "".join(f"case{k},p{k},{'val' if k == 3 else 'train'}\n" for k in range(4))
    )
    Path("own.toml").write_text(
        'title = "own"\nsource = "here"\npatterns = ["{case}/{modality}"]\n[aliases]\nt1w = "t1"\n'
    )
    Path("tiny.toml").write_text(RECIPE)
    Path("scans").mkdir()
    whole = t1.astype(np.int16)
    for suffix in ("nii", "nii.gz"):
        nib.save(nib.Nifti1Image(whole, affine), f"scans/a.{suffix}")
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


def done(*steps: tuple[str, ...]) -> None:
    """Run commands that must end well."""
    for step in steps:
        code, _, err = run(step)
        if code:
            raise SystemExit(err)


def keep(kinds: Sequence[Kind]) -> None:
    """Copy the folders that commands change, to be put back after each."""
    for folder in {kind.restored for kind in kinds if kind.restored}:
        shutil.copytree(folder, f"kept/{folder}")


def write_series(whole: np.ndarray) -> None:
    """The scan as a DICOM series on the grid of the cohort, which an export asks for."""
    import pydicom

    Path("series").mkdir()
    for k in range(whole.shape[2]):
        header = pydicom.Dataset()
        header.SOPClassUID, header.SOPInstanceUID, header.Modality = (
            "1.2.840.10008.5.1.4.1.1.4",
            f"1.2.{k}",
            "MR",
        )
        header.SeriesInstanceUID, header.PatientID, header.FrameOfReferenceUID = (
            "1.2.3",
            "p",
            "1.2.5",
        )
        header.Rows, header.Columns, header.SamplesPerPixel = 24, 20, 1
        header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 1
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelSpacing, header.ImageOrientationPatient = [2, 2], [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [0, 0, 3 * k]
        header.PixelData = np.ascontiguousarray(whole[:, :, k].T).tobytes()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.save_as(f"series/{k}.dcm", enforce_file_format=True)


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
