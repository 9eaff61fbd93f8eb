"""Digests of what the command line computes, to show that a refactoring changed no result.

python benchmarks/digests.py --inputs INPUTS --source SRC            once, with the code before the change
python benchmarks/digests.py WORK --source SRC --inputs INPUTS --write digests.json [--only 'synth-*']
python benchmarks/digests.py --compare BEFORE.json AFTER.json [--ignore '*messages.jsonl*']

SRC is the folder that holds the package. Only `python -m voxlate` and voxlate-run are called, so that files of the
package may move. A step that a WORK has finished is not run again: take a new WORK for other code.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from string import Formatter
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

FLOAT32 = "--set train.precision=float32"
# The rates, the augmentation and the network of a plan depend on measured seconds.
FIXED_PLAN = (
    "--minutes 1 --memory 2GB --mode mean --from-scratch --source t1 --target ct "
    "--set net.width=16 --set net.patch=1 --set data.augment.flip_lr=0.5 --set data.augment.rotate_degrees=5 "
    "--set data.augment.scale=0.05 --set data.augment.remap=0.2 --set train.batch=2 --set train.steps=20 "
    "--set train.ema=0.9 --set train.save_every=7 --set train.validate_every=10 --set train.optimiser.kind=muon "
    "--set train.optimiser.lr=0.002 --set train.optimiser.warm_up=3 --set train.optimiser.hold=0.2"
)
PATCH = "--set data.patch=[1,64,64]"
CASE = "{in}/heads/phantom_008"
SCAN = "{in}/starters/phantom_000"
EVALUATE = "--truth {in}/heads --json"

# Words of a command, by the name of the step; {other-step} is its folder of results, and runs it before.
STEPS = {
    "phantom-simulated": "phantom --out {out} --cases 2 --size 40 48 24 --seed 3 {anatomy}",
    "phantom-stripped": "phantom --out {out} --cases 1 --size 40 48 24 --seed 4 --lesion tumour --stripped --modality maps --modality t1 {anatomy}",
    "phantom-labels": "phantom --out {out} --cases 2 --labels {in}/labels --tissues {in}/tissues.toml --spacing 4 4 6 --seed 5 --modality t1 --modality ct",
    "prepare-heads": "prepare {in}/heads --out {out} --shares 5 6 1 --audit-cases 2 --json",
    "prepare-strokes": "prepare {in}/heads --out {out} --shares 7 4 1 --mask brain --align midline --modality ncct --modality cta1 --modality cta2 --modality cta3 --modality tmax",
    "prepare-moved": "prepare {in}/moved --out {out} --shares 1 1 0 --register rigid --fixed ct --spacing 3 3 6 --modality t1 --modality ct --json",
    "prepare-resized": "prepare {in}/heads --out {out} --shares 9 2 1 --matrix 64 64 --modality swi --modality tof --no-audit",
    "prepare-dicom": "prepare {in}/dicom --out {out} --shares 1 1 0 --resample --json",
    "train-xmodality": f"train tof_to_cta_adm_small --data {{prepare-heads}} --out {{out}} {PATCH} {FLOAT32} --set stages.regression.train.precision=float32 --set train.steps=8 --set stages.regression.train.steps=8",
    "train-lyu-wang": f"train mr_to_ct_em_small --data {{prepare-heads}} --out {{out}} {PATCH} {FLOAT32} --set train.steps=15",
    "train-wgan-gp": f"train mr_to_ct_wgan_gp_small --data {{prepare-heads}} --out {{out}} {PATCH} {FLOAT32} --set train.steps=6",
    "train-umm-csgm": f"train umm_csgm_small --data {{prepare-heads}} --out {{out}} {PATCH} {FLOAT32} --set train.steps=10 --set train.accumulate=2",
    "train-mrdpm": f"train mrdpm_small --data {{prepare-strokes}} --out {{out}} {PATCH} {FLOAT32} --set stages.predictor.train.precision=float32 --set train.steps=10 --set stages.predictor.train.steps=10",
    "train-cyclegan": f"train cyclegan_tmax_small --data {{prepare-strokes}} --out {{out}} {PATCH} {FLOAT32} --set train.steps=6",
    "train-make-a-volume": f"train make_a_volume_swi_mra_small --data {{prepare-resized}} --out {{out}} --set data.patch=[8,64,64] --set stages.slices.data.patch=[1,64,64] {FLOAT32} --set stages.autoencoder.train.precision=float32 --set stages.slices.train.precision=float32 --set train.steps=4 --set stages.autoencoder.train.steps=10 --set stages.slices.train.steps=6",
    "train-auto": f"train auto --data {{prepare-heads}} --out {{out}} {FIXED_PLAN} {FLOAT32}",
    "train-continued": "train {out} --steps +5",
    "adapt": "adapt {train-auto} --data {prepare-moved} --steps 8 --out {out}",
    "calibrate": "calibrate {out} {in}/heads --split val --json",
    "calibrate-samples": "calibrate {out} {in}/heads --split val --samples 2 --set steps=3 --bound none --json",
    "synth-auto": "synth {calibrate} {in}/heads --split val --out {out} --json",
    "synth-moved": "synth {calibrate} t1={in}/moved/phantom_000/t1.nii.gz --out {out} --exact --format mha",
    "synth-xmodality": f"synth {{train-xmodality}} {CASE} --out {{out}} --json",
    "synth-xmodality-mean": f"synth {{train-xmodality}} {CASE} --out {{out}} --answer mean --bids --set slices.kind=resized --set slices.size=[64,64]",
    "synth-lyu-wang": f"synth {{train-lyu-wang}} {CASE} --out {{out}} --like mr_to_ct_pc_small --steps 6",
    "synth-lyu-wang-ode": f"synth {{train-lyu-wang}} {CASE} --out {{out}} --like mr_to_ct_ode_small --set rtol=1e-3",
    "synth-umm-csgm": f"synth {{train-umm-csgm}} {CASE} --out {{out}} --missing flair --missing t1c --samples 2 --noise correlated",
    "synth-umm-csgm-dpm": f"synth {{train-umm-csgm}} {CASE} --out {{out}} --missing t2 --sampler dpmpp_2m --steps 6 --seed 3",
    "synth-mrdpm": "synth {train-mrdpm} {in}/heads --split test --out {out} --steps 4 --json",
    "synth-mrdpm-samples": "synth {calibrate-samples} {in}/heads --split test --out {out} --samples 2 --steps 3",
    "synth-mrdpm-mean": "synth {train-mrdpm} {in}/heads --split test --out {out} --answer mean",
    "synth-mrdpm-between": "synth {train-mrdpm} {in}/heads --split test --out {out} --sharpness 0.5 --steps 4",
    "synth-cyclegan": "synth {train-cyclegan} {in}/heads --split test --out {out}",
    "synth-make-a-volume": f"synth {{train-make-a-volume}} {CASE} --out {{out}} --steps 2",
    "synth-ensemble": f"synth {{train-lyu-wang}} {{train-wgan-gp}} {CASE} --out {{out}}",
    "starter-head-mr-to-ct": f"synth starter:head-mr-to-ct {SCAN}/t1.nii.gz --out {{out}} --json",
    "starter-head-mr-to-ct-exact": f"synth starter:head-mr-to-ct {SCAN}/t2.nii.gz --out {{out}} --exact --json",
    "starter-head-tof-to-cta-experimental": "synth starter:head-tof-to-cta-experimental {in}/slab/tof.nii.gz --out {out} --set precision=float32 --json",
    "starter-brain-mr-to-mr": f"synth starter:brain-mr-to-mr t1={SCAN}/t1.nii.gz t2={SCAN}/t2.nii.gz --out {{out}} --set precision=float32 --json",
    "evaluate": f"evaluate {{out}} {EVALUATE} --mask body --region core=seg=1 --region bone=ct>250 --score slices --align",
    "evaluate-maps": f"evaluate {{out}} {EVALUATE} --mask brain --region 'high=tmax>3' --score slices",
    "evaluate-means": f"evaluate {{out}} {EVALUATE} --mask brain --region 'high=tmax>3'",
    "evaluate-missing": f"evaluate {{out}} {EVALUATE} --run {{train-umm-csgm}} --split test --missing one --steps 2 --units network",
    "compare": "compare {evaluate-maps} {evaluate-means} --json",
    "info": "info {train-mrdpm} --json",
    "info-cohort": "info {in}/heads --json",
    "onnx-auto": "export {calibrate} --out {out}",
    "onnx-xmodality": "export {train-xmodality} --out {out} --steps 3",
    "onnx-run-auto": f"voxlate-run {{onnx-auto}} t1={CASE}/t1.nii.gz --out {{out}}",
    "onnx-run-xmodality": f"voxlate-run {{onnx-xmodality}} tof={CASE}/tof.nii.gz --out {{out}}",
    "dicom-synth": "synth starter:head-mr-to-ct {in}/series --out {out} --dicom {out}/series --set precision=float32",
    "dicom-export": "export {dicom-synth} --dicom {out}/enhanced --enhanced",
    "dicom-rtstruct": "export {dicom-synth} --dicom {out}/planning --rtstruct",
}  # fmt: skip
# These steps extend a folder: a copy of that of another step.
COPIES = {
    "train-continued": "train-auto",
    "calibrate": "train-auto",
    "calibrate-samples": "train-mrdpm",
    "evaluate": "synth-auto",
    "evaluate-maps": "synth-mrdpm",
    "evaluate-means": "synth-mrdpm-mean",
}
TOLERANT = "onnx-run-*"  # another version of a graph rounds differently
TOLERANCE = 1e-3  # of the range of an image, as tests of exported models allow
VOLATILE = re.compile(
    r"(^|_)(seconds|minutes|took|memory|bytes)(_|$)|_per_s$"
    r"|^(voxlate|python|torch|numpy|nibabel|safetensors|onnx\w*|version|checksum|time|date|created|device)$"
)
SENTENCES = {"text", "message", "reason", "notice", "note", "sentence", "title"}
HASH = re.compile(r"\b([0-9a-f]{16}|[0-9a-f]{64})\b")
UID = re.compile(r"\b\d+(\.\d+){5,}\b")
VARYING_TAGS = {"UI", "DA", "TM", "DT", "UN"}
VARYING_KEYWORDS = {"SoftwareVersions", "PixelData"}
LONGEST = 64  # values of a list that are stored one by one
Items = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the code is, its inputs, and the folder of results."""

    source: Path
    inputs: Path
    work: Path

    def call(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run the words of a voxlate command, or of voxlate-run, on one thread of the CPU."""
        python = [sys.executable, "-m", "voxlate"]
        if words[0] == "voxlate-run":
            project = tomllib.loads((self.source.parent / "pyproject.toml").read_text())
            module = project["project"]["scripts"]["voxlate-run"].partition(":")[0]
            python, words = [sys.executable, "-m", module], words[1:]
        changes = {
            "PYTHONPATH": str(self.source),
            "VOXLATE_CACHE": str(self.work / "cache"),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return subprocess.run(
            [*python, *words],
            cwd=self.work,
            env=os.environ | changes,
            capture_output=True,
            text=True,
        )


def requirements(name: str) -> list[str]:
    """The steps whose folders a step reads."""
    fields = [field for _, field, _, _ in Formatter().parse(STEPS[name]) if field in STEPS]
    return [*fields, *([COPIES[name]] if name in COPIES else [])]


def run_step(name: str, place: Place, anatomy: str) -> Items:
    """The digests of a step, which is run if it was not yet, after those that it needs."""
    stored = place.work / f"{name}.json"
    if stored.exists():
        return json.loads(stored.read_text())
    for needed in requirements(name):
        if f"{needed}#exit" in run_step(needed, place, anatomy):
            return {f"{name}#exit": f"not run: {needed} failed"}
    out = place.work / name
    shutil.rmtree(out, ignore_errors=True)
    if name in COPIES:
        shutil.copytree(place.work / COPIES[name], out)
    folders = {step: str(place.work / step) for step in STEPS}
    fields = {**folders, "out": str(out), "in": str(place.inputs), "anatomy": anatomy}
    words = shlex.split(STEPS[name].format(**fields))
    began = time.monotonic()
    done = place.call(words)
    print(f"{name}: exit {done.returncode}, {time.monotonic() - began:.1f} s", flush=True)
    if done.returncode not in (0, 3):  # 3: an image that is not to be trusted
        print(done.stderr[-2000:], file=sys.stderr)
        return {f"{name}#exit": done.returncode}
    items = {f"{name}/{key}": item for key, item in sorted(of_folder(out))}
    if "--json" in words:
        items |= {f"{name}#{key}": item for key, item in flat(json.loads(done.stdout))}
    items = {key: _without_place(item, place) for key, item in items.items()}
    stored.write_text(json.dumps(items, indent=0))
    return items


def _without_place(item: Any, place: Place) -> Any:
    """A value whose text does not say where the folders are."""
    if not isinstance(item, str):
        return item
    inputs = rf"[^\s\"',;:=|]*\b{re.escape(place.inputs.name)}/"
    return re.sub(inputs, "<inputs>/", item).replace(f"{place.work}{os.sep}", "")


def of_folder(folder: Path) -> Iterator[tuple[str, Any]]:
    """Digests of the files of a folder by their paths; pictures, pages, graphs and states are left out."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        name = UID.sub("<uid>", str(path.relative_to(folder)))
        if path.name.endswith((".nii", ".nii.gz")):
            image = nibabel.nifti1.Nifti1Image.from_filename(path)
            yield name, of_array(np.asarray(image.dataobj), image.affine.tobytes())
        elif path.suffix == ".safetensors":
            yield from ((f"{name}#{key}", item) for key, item in of_tensors(path))
        elif path.suffix == ".dcm":
            yield from ((f"{name}#{key}", item) for key, item in of_dicom(path))
        elif path.suffix == ".mha":
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        elif path.suffix in READERS:
            content = READERS[path.suffix](path.read_text(encoding="utf-8"))
            yield from ((f"{name}#{key}", item) for key, item in flat(content))


def codes(text: str) -> Any:
    """The lines of a log; of messages their codes and how many there are."""
    lines = [json.loads(line) for line in text.splitlines()]
    if all("code" in line for line in lines):
        return Counter(line["code"] for line in lines)
    return lines


READERS: dict[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".jsonl": codes,
    ".toml": tomllib.loads,
    ".csv": lambda text: ["|".join(row) for row in csv.reader(text.splitlines())],
}


def of_array(values: np.ndarray, context: bytes = b"") -> Items:
    """The hash of an array with its type and shape, and statistics that show how far another one is from it."""
    kind = f"{values.dtype} {values.shape}"
    data = hashlib.sha256(kind.encode() + context + np.ascontiguousarray(values).tobytes())
    numbers = np.nan_to_num(values.astype(np.float64).ravel())
    item: Items = {"sha256": data.hexdigest()[:32], "kind": kind}
    if numbers.size:
        blocks = [float(block.mean()) for block in np.array_split(numbers, min(numbers.size, 27))]
        item |= {"low": float(numbers.min()), "high": float(numbers.max()), "blocks": blocks}
        item |= {"mean": float(numbers.mean()), "sd": float(numbers.std())}
    return item


def of_tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """Digests of the tensors of a safetensors file, and its metadata."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    for key, text in header.pop("__metadata__", {}).items():
        try:
            yield from flat(json.loads(text), key)
        except json.JSONDecodeError:
            yield from flat(text, key)
    kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
    for key, tensor in header.items():
        first, last = (start + offset for offset in tensor["data_offsets"])
        values = np.frombuffer(content[first:last], kinds.get(tensor["dtype"], "u1"))
        yield key, of_array(values, f"{tensor['dtype']} {tensor['shape']}".encode())


def of_dicom(path: Path) -> Iterator[tuple[str, Any]]:
    """The pixels of a DICOM file, and the hash of each tag that depends neither on time nor on the version."""
    data = pydicom.dcmread(path)
    if "PixelData" in data:
        yield "pixels", of_array(data.pixel_array)
    for element in data.iterall():
        if element.VR not in VARYING_TAGS | {"SQ"} and element.keyword not in VARYING_KEYWORDS:
            value = element.value
            if isinstance(value, bytes):
                value = hashlib.sha256(value).hexdigest()[:32]
            yield f"{element.tag}", HASH.sub("<hash>", UID.sub("<uid>", str(value)))


def flat(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a document by their paths, without those of time and version, sentences and hashes of files."""
    if isinstance(content, dict):
        for key, value in sorted(content.items()):
            if not VOLATILE.search(str(key)) and key not in SENTENCES:
                yield from flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list) and len(content) > LONGEST:
        text = json.dumps([list(flat(value)) for value in content], default=str)
        yield name, hashlib.sha256(text.encode()).hexdigest()[:32]
    elif isinstance(content, list):
        yield f"{name}.length", len(content)
        for number, value in enumerate(content):
            yield from flat(value, f"{name}.{number}")
    else:
        yield name, HASH.sub("<hash>", content) if isinstance(content, str) else content


def compare(before: Items, after: Items, ignored: list[str]) -> int:
    """Print what differs by step; returns the number of differences."""
    keys = before.keys() | after.keys()
    steps = {key: re.split("[/#]", key)[0] for key in keys}
    values = [Counter(steps[key] for key in side) for side in (before, after)]
    differing = Counter[str]()
    for key in sorted(keys):
        step = steps[key]
        if not all(side[step] for side in values):
            continue
        difference = _difference(before.get(key), after.get(key), fnmatch(step, TOLERANT))
        if difference and not any(fnmatch(key, pattern) for pattern in ignored):
            print(f"{key}: {difference}")
            differing[step] += 1
    for step in dict.fromkeys([*STEPS, *sorted(steps.values())]):
        if not all(side[step] for side in values):
            print(f"{step}: not run on both sides")
        elif differing[step]:
            print(f"{step}: {differing[step]} of {values[0][step]} values differ")
        else:
            print(f"{step}: {values[0][step]} values are equal")
    return differing.total()


def _difference(before: Any, after: Any, tolerant: bool) -> str:
    """In what two values differ, empty if they are equal."""
    if before == after or (before != before and after != after):
        return ""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return f"{before!r} → {after!r}"
    if before["kind"] != after["kind"] or "low" not in before:
        return f"{before['kind']} → {after['kind']}"
    if before["blocks"] == after["blocks"] and before["sd"] == after["sd"]:
        return "equal statistics: a few voxels, or the grid"
    pairs = [(before[name], after[name]) for name in ("mean", "low", "high", "sd")]
    pairs += zip(before["blocks"], after["blocks"])
    share = max(abs(a - b) for a, b in pairs) / (before["high"] - before["low"] or 1)
    if tolerant and share <= TOLERANCE:
        return ""
    return f"statistics differ by {share:.2g} of the range; mean {before['mean']:.6g} → {after['mean']:.6g}"


def make_inputs(place: Place) -> None:
    """Write the scans that both sides read."""
    place.work.mkdir(parents=True, exist_ok=True)
    for name, options in INPUTS.items():
        done = place.call(shlex.split(f"phantom --out {place.inputs / name} {options}"))
        done.check_returncode()
    moved = place.inputs / "moved"
    for case in sorted(moved.glob("phantom_*")):
        _rewrite(case / "t1.nii.gz", _turned)
    starters = place.inputs / "starters" / "phantom_000"
    (place.inputs / "slab").mkdir()
    shutil.copy(starters / "tof.nii.gz", place.inputs / "slab")
    _rewrite(place.inputs / "slab" / "tof.nii.gz", _thin)
    labels = place.inputs / "labels"
    labels.mkdir()
    shutil.copy(place.inputs / "map" / "phantom_000" / "seg.nii.gz", labels / "head.nii.gz")
    tissues = json.loads((place.inputs / "map" / "phantom.json").read_text())["seg"]
    lines = [f"{name} = [{number}]" for name, number in tissues.items() if name != "air"]
    (place.inputs / "tissues.toml").write_text("\n".join(["title = 'heads'", "[labels]", *lines]))
    write_series(starters / "t1.nii.gz", place.inputs / "series", "MR")
    for case in sorted(moved.glob("phantom_*")):
        for name, kind in (("t1", "MR"), ("ct", "CT")):
            write_series(case / f"{name}.nii.gz", place.inputs / "dicom" / case.name / name, kind)


INPUTS = {
    "heads": "--cases 12 --size 72 88 12 --seed 31",
    "moved": "--cases 2 --size 56 64 20 --seed 32 --modality t1 --modality ct --lesion none",
    "starters": "--cases 1 --size 160 192 10 --seed 33 --anatomy 2 --modality t1 --modality t2 --modality tof",
    "map": "--cases 1 --size 48 56 32 --seed 34 --anatomy 2 --modality t1",
}


def _rewrite(
    path: Path, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> None:
    image = nibabel.nifti1.Nifti1Image.from_filename(path)
    values, affine = change(np.asarray(image.dataobj), image.affine)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def _turned(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A scan whose patient moved by some millimetres and three degrees."""
    angle = np.radians(3)
    motion = np.eye(4)
    motion[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    motion[:3, 3] = 4, -3, 5
    return values, motion @ affine


def _thin(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Four slices of a scan, 1 mm apart."""
    steps = affine.copy()
    steps[:3, 2] /= np.linalg.norm(steps[:3, 2])
    return values[:, :, 3:7], steps


def write_series(path: Path, folder: Path, kind: str) -> None:
    """An axial MR or CT series with the values of a NIfTI scan with upright axes."""
    image = nibabel.nifti1.Nifti1Image.from_filename(path)
    values = np.asarray(image.dataobj).round().astype(np.int16)
    spacing = [float(step) for step in nibabel.affines.voxel_sizes(image.affine)]
    folder.mkdir(parents=True)
    series = f"1.2.826.0.1.3680043.10.1.{int(hashlib.sha256(str(folder)[-24:].encode()).hexdigest()[:10], 16)}"
    for k in range(values.shape[2]):
        position = image.affine @ [0, 0, k, 1]
        data = pydicom.Dataset()
        for keyword, value in {
            "SOPClassUID": MRImageStorage if kind == "MR" else CTImageStorage,
            "SOPInstanceUID": f"{series}.{k + 1}",
            "SeriesInstanceUID": series,
            "StudyInstanceUID": f"{series}.0",
            "FrameOfReferenceUID": f"{series}.0.1",
            "Modality": kind,
            "PatientName": "Digest^Head",
            "PatientID": folder.parent.name,
            "PatientBirthDate": "19500101",
            "StudyDate": "20200101",
            "StudyTime": "120000",
            "SeriesNumber": 3,
            "InstanceNumber": k + 1,
            "SeriesDescription": path.name.partition(".")[0],
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "Rows": values.shape[1],
            "Columns": values.shape[0],
            "PixelSpacing": [spacing[1], spacing[0]],
            "SliceThickness": spacing[2],
            "ImagePositionPatient": [-position[0], -position[1], position[2]],
            "ImageOrientationPatient": [
                *(-image.affine[:2, 0] / spacing[0]),
                0,
                *(-image.affine[:2, 1] / spacing[1]),
                0,
            ],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
            "PixelData": np.ascontiguousarray(values[:, :, k].T).tobytes(),
        }.items():
            setattr(data, keyword, value)
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.save_as(folder / f"{k + 1:03}.dcm", enforce_file_format=True)


def main() -> int:
    """The command; returns 1 where digests differ or steps fail."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", nargs="?", type=Path, help="folder of the results of one source")
    parser.add_argument("--source", type=Path, help="folder that holds the package")
    parser.add_argument(
        "--inputs", type=Path, help="folder of the scans, which is made if WORK is left out"
    )
    parser.add_argument("--write", type=Path, help="file of the digests")
    parser.add_argument("--only", nargs="*", default=["*"], help="steps, with * and ?")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    parser.add_argument(
        "--ignore", nargs="*", default=[], help="values that may differ, with * and ?"
    )
    chosen = parser.parse_args()
    if chosen.compare:
        before, after = (json.loads(path.read_text()) for path in chosen.compare)
        return min(compare(before, after, chosen.ignore), 1)
    source, inputs = chosen.source.resolve(), chosen.inputs.resolve()
    if chosen.work is None:
        make_inputs(Place(source, inputs, inputs))
        return 0
    place = Place(source, inputs, chosen.work.resolve())
    place.work.mkdir(parents=True, exist_ok=True)
    # The first anatomy is the default where there are two.
    anatomy = "--anatomy 2" if "--anatomy" in place.call(["phantom", "--help"]).stdout else ""
    items: Items = {}
    for name in STEPS:
        if any(fnmatch(name, pattern) for pattern in chosen.only):
            items |= run_step(name, place, anatomy)
    if chosen.write:
        chosen.write.write_text(json.dumps(items, indent=0))
    return int(any(key.endswith("#exit") for key in items))


if __name__ == "__main__":
    sys.exit(main())
