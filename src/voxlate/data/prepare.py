"""From scans as they come to a prepared cohort: one grid a case, checked, masked, split by patient."""

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voxlate import __version__
from voxlate.data.cohort import CaseFiles, find_cases, manifest_in
from voxlate.data.fingerprint import fingerprint, warnings_of
from voxlate.data.prepared import (
    LABEL,
    MASK,
    VERSION,
    CaseHeader,
    Cohort,
    Entry,
    Origin,
    case_path,
    compact,
    open_cohort,
    read_header,
    write_case,
    write_cohort,
)
from voxlate.data.scale import intensity_statistics
from voxlate.data.split import split_patients
from voxlate.errors import BadInput
from voxlate.images.grid import Grid, canonical, resample, same_grid, with_spacing
from voxlate.images.mask import foreground
from voxlate.images.volume import Volume, read_volume

Progress = Callable[[int, int, str], None]
MOST_WORKERS = 8
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Bringing:
    """How a case comes to one grid: spacing (D, H, W) in mm or as scanned, and whether unequal grids are mended."""

    spacing_mm: tuple[float, float, float] | None = None
    resample: bool = False


def prepare(
    root: Path | str,
    out: Path | str,
    *,
    pattern: str | None = None,
    manifest: Path | str | None = None,
    preset: str | Path | None = None,
    modalities: Sequence[str] | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    resample: bool = False,
    seed: int = 0,
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Prepare a cohort for training; the same call again resumes and leaves what is done as it is.

    pattern, manifest, preset, modalities: see cohort.find_cases. spacing_mm: (D, H, W), default as scanned. resample:
    bring a case's modalities to the grid of its first (in the order of `modalities`, else by name) where they differ.
    shares: train, val, test by patient, unless the manifest tells. workers: processes, each holding one case in memory.
    progress(done, total, case) is called after each case. Raises BadInput for bad cases and for an `out` in use.
    """
    root, out = Path(root), Path(out)
    cases = find_cases(root, pattern, manifest, preset, modalities)
    bringing = Bringing(spacing_mm, resample)
    _refuse_other(out, root, {one.case for one in cases})
    for stray in [*out.glob(".writing-*"), *out.glob("cases/.writing-*")]:  # of a run that was killed
        stray.unlink()
    _prepare_all(cases, out, bringing, workers, progress)
    headers = [read_header(case_path(out, one.case)) for one in cases]
    _check_units(headers)
    splits = split_patients([(one.patient, one.split) for one in cases], seed, shares)
    entries = tuple(_entry(header, splits[header.patient]) for header in headers)
    training = [header for header, entry in zip(headers, entries) if entry.split == "train"]
    table = manifest if manifest is not None else manifest_in(root)
    options = {"pattern": pattern, "preset": preset, "manifest": table, "modalities": modalities}
    cohort = Cohort(
        folder=out,
        cases=entries,
        modalities=tuple(sorted({name for header in headers for name in header.units})),
        units={name: unit for header in headers for name, unit in header.units.items()},
        fingerprint=fingerprint(headers, training),
        warnings=tuple(warnings_of(headers, splits)),
        made={
            "root": str(root.resolve()),
            **{name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
            **asdict(bringing),
            "split_by": "manifest" if cases[0].split is not None else f"patient, shares {shares}, seed {seed}",
            "voxlate": __version__,
        },
    )
    write_cohort(cohort)
    _forget_others(out, {one.case for one in cases})
    return open_cohort(out)


def _refuse_other(out: Path, root: Path, cases: set[str]) -> None:
    """Let a new, an empty, an unfinished or the same cohort's folder pass."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: expected a folder to write to, found a file. Choose another name.")
    entries = [one.name for one in out.iterdir() if not one.name.startswith(".writing-")] if out.exists() else []
    strange = sorted(set(entries) - {"cases", "cohort.json"})
    if "cohort.json" in entries:
        made_from = open_cohort(out).made.get("root")
        if made_from != str(root.resolve()):
            strange = [f"the prepared cohort of {made_from}"]
    else:
        there = [one.name for one in out.glob("cases/*") if not one.name.startswith(".writing-")]
        strange += sorted(set(there) - {f"{case}.safetensors" for case in cases})
    if strange:
        raise BadInput(f"{out}: expected an empty folder or this cohort's, found {strange[0]}. Choose another folder.")


def _forget_others(out: Path, cases: set[str]) -> None:
    """Remove files of cases that were once in this cohort and are no longer."""
    for path in (out / "cases").glob("*.safetensors"):
        if path.name.removesuffix(".safetensors") not in cases:
            path.unlink()


def _prepare_all(
    cases: list[CaseFiles], out: Path, bringing: Bringing, workers: int | None, progress: Progress | None
) -> None:
    processes = min(workers or min(len(os.sched_getaffinity(0)), MOST_WORKERS), len(cases))
    work = functools.partial(prepare_case, out=out, bringing=bringing)
    for done, case in enumerate(
        _in_turn(work, cases) if processes == 1 else _side_by_side(work, cases, processes), start=1
    ):
        if progress is not None:
            progress(done, len(cases), case)


def _in_turn(work: Callable[[CaseFiles], None], cases: list[CaseFiles]) -> Iterator[str]:
    for one in cases:
        work(one)
        yield one.case


def _side_by_side(work: Callable[[CaseFiles], None], cases: list[CaseFiles], processes: int) -> Iterator[str]:
    with ProcessPoolExecutor(processes) as pool:
        running = {pool.submit(work, one): one.case for one in cases}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def prepare_case(files: CaseFiles, out: Path, bringing: Bringing) -> None:
    """Prepare one case, unless its file is there and was made from the same inputs in the same way."""
    path = case_path(out, files.case)
    inputs = _digest_of_inputs(files, bringing)
    if path.exists() and read_header(path).inputs == inputs:
        return
    scans = {name: read_volume(place, name) for name, place in files.files.items()}
    origins = {
        name: Origin(files.files[name].name, scan.grid.shape, scan.affine.tolist()) for name, scan in scans.items()
    }
    volumes = {name: canonical(scan) for name, scan in scans.items()}
    del scans
    first = next(iter(volumes.values()))
    grid = with_spacing(first.grid, bringing.spacing_mm) if bringing.spacing_mm is not None else first.grid
    volumes = {name: _brought(volume, first, grid, bringing) for name, volume in volumes.items()}
    mask = _mask(files, volumes, first, grid, bringing)
    stored = {name: compact(volume.data[0]) for name, volume in volumes.items()}
    header = CaseHeader(
        case=files.case,
        patient=files.patient,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        affine=grid.affine.tolist(),
        units={name: volume.unit for name, volume in volumes.items()},
        origins=origins,
        labels=list(files.labels),
        statistics={name: intensity_statistics(values, mask) for name, values in stored.items()},
        mask_from=files.mask.name if files.mask is not None else "foreground of " + ", ".join(volumes),
        mask_area=[int(area) for area in mask.sum(axis=(1, 2))],
        mask_box=_box(mask),
        mask_ml=float(mask.sum() * np.prod(grid.spacing_mm) / 1000),
        inputs=inputs,
        voxels={name: _digest_of_voxels(values) for name, values in stored.items()},
    )
    stored[MASK] = mask.astype(np.uint8)
    for name, place in files.labels.items():
        stored[LABEL + name] = compact(
            _brought(canonical(read_volume(place, name)), first, grid, bringing, order=0).data[0]
        )
    write_case(path, stored, header)


def _brought(volume: Volume, first: Volume, grid: Grid, bringing: Bringing, order: Literal[0, 1] = 1) -> Volume:
    """The volume on the case's grid; raises BadInput where it had another than the first volume's, and may not move."""
    if not same_grid(volume.grid, first.grid) and not bringing.resample:
        raise BadInput(
            f"{volume.origin}: expected the grid of {first.origin} ({first.grid}), found {volume.grid}"
            f"{_shift(volume.grid, first.grid)}. Pass --resample to bring it there."
        )
    if same_grid(volume.grid, grid):
        return volume
    moved = resample(volume, grid, order=order)
    if not same_grid(volume.grid, first.grid) and np.ptp(moved.data) == 0 < np.ptp(volume.data):
        raise BadInput(
            f"{volume.origin}: expected it to overlap {first.origin} in space, found nothing of it there. "
            "Register the two first: their headers do not share a frame."
        )
    return moved


def _shift(found: Grid, expected: Grid) -> str:
    """What to say of two grids that print alike."""
    if str(found) != str(expected):
        return ""
    apart = np.abs(found.affine - expected.affine)[:3, 3].max()
    return f" in another place or direction (first voxels {apart:.2f} mm apart)"


def _mask(files: CaseFiles, volumes: dict[str, Volume], first: Volume, grid: Grid, bringing: Bringing) -> np.ndarray:
    """The given mask where there is one, else what is foreground in any modality; bool [D, H, W]."""
    if files.mask is None:
        return np.any([foreground(volume) for volume in volumes.values()], axis=0)
    given = _brought(canonical(read_volume(files.mask, "mask")), first, grid, bringing, order=0)
    mask: np.ndarray = given.data[0] > 0
    if not mask.any():
        raise BadInput(f"{files.mask}: expected a mask with voxels above 0, found none. Mend or remove the file.")
    return mask


def _box(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last + 1 of the mask along D, H and W; the whole volume where the mask is empty."""
    if not mask.any():
        return [(0, length) for length in mask.shape]
    lines = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [(int(line[0]), int(line[-1]) + 1) for line in lines]


def _digest_of_inputs(files: CaseFiles, bringing: Bringing) -> str:
    digest = hashlib.sha256(repr((VERSION, files.case, files.patient, bringing)).encode())
    paths = [*files.files.items(), *files.labels.items(), *([("mask", files.mask)] if files.mask else [])]
    for name, path in paths:
        digest.update(name.encode())
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            _add_file(digest, file)
    return digest.hexdigest()


def _add_file(digest: "hashlib._Hash", path: Path) -> None:
    if not path.is_file():
        return
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)


def _digest_of_voxels(values: np.ndarray) -> str:
    return hashlib.sha256(repr((values.shape, values.dtype.str)).encode() + values.tobytes()).hexdigest()


def _check_units(headers: list[CaseHeader]) -> None:
    """Raise BadInput where a modality has one unit in one case and another in the next."""
    seen: dict[str, dict[str, str]] = defaultdict(dict)
    for header in headers:
        for name, unit in header.units.items():
            seen[name].setdefault(unit, header.case)
    for name, units in seen.items():
        if len(units) > 1:
            (unit, case), (other, other_case) = list(units.items())[:2]
            raise BadInput(
                f"{name}: expected one unit in all cases, found {unit} in {case} and {other} in {other_case}. "
                "Convert one of them, or leave those cases out by a manifest."
            )


def _entry(header: CaseHeader, split: str) -> Entry:
    return Entry(
        case=header.case,
        patient=header.patient,
        split=split,
        present=header.present,
        labels=header.labels,
        shape=header.shape,
        spacing_mm=header.spacing_mm,
        mask_ml=round(header.mask_ml, 3),
    )
