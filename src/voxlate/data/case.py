"""One case on its way: read, brought to one grid in canonical orientation, masked, measured, written."""

import hashlib
from pathlib import Path

import numpy as np

from voxlate.data.align import Bringing, Common, find_common
from voxlate.data.prepared import LABEL, MASK, VERSION, CaseHeader, Origin, case_path, compact, read_header, write_case
from voxlate.data.presets import CaseFiles
from voxlate.data.scale import intensity_statistics
from voxlate.errors import BadInput
from voxlate.images.frames import without_frame
from voxlate.images.grid import canonical, same_grid
from voxlate.images.mask import brain, foreground, user_mask
from voxlate.images.register import write_transform
from voxlate.images.volume import Volume, files_of, read_volume

READ_BYTES = 1 << 20


def prepare_case(files: CaseFiles, out: Path, bringing: Bringing) -> None:
    """Prepare one case, unless its file is there and was made from the same inputs in the same way."""
    path = case_path(out, files.case)
    inputs = _digest_of_inputs(files, bringing)
    if path.exists() and read_header(path).inputs == inputs:
        return
    scans = {name: read_volume(place, name) for name, place in files.files.items()}
    origins = {
        name: Origin(files.files[name].name, scan.grid.shape, scan.affine.tolist(), scan.note)
        for name, scan in scans.items()
    }
    scans = {name: canonical(scan) for name, scan in scans.items()}
    common = find_common(files.case, scans, bringing)
    grid = common.grid
    if bringing.mask == "brain" and files.mask is None:
        shown = _scan_of_brain(files.case, scans, bringing)
        if not same_grid(shown.grid, grid):
            brain(shown)  # refuses a head that is cut off, before air is put around it
    volumes = {name: common.bring(name, scans.pop(name)) for name in files.files}
    own = {name: foreground(volume) for name, volume in volumes.items()}
    mask = _mask(files, volumes, own, common, bringing)
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
        # inside the scan's own foreground: at synthesis neither the target nor a mask file is there to ask
        statistics={name: intensity_statistics(values, own[name]) for name, values in stored.items()},
        mask_from=_mask_from(files, common, bringing),
        mask_area=[int(area) for area in mask.sum(axis=(1, 2))],
        mask_box=_box(mask),
        mask_ml=float(mask.sum() * np.prod(grid.spacing_mm) / 1000),
        inputs=inputs,
        voxels={name: _digest_of_voxels(values) for name, values in stored.items()},
        registered=common.registered,
    )
    stored[MASK] = mask.astype(np.uint8)
    for name, place in files.labels.items():
        stored[LABEL + name] = compact(common.bring_labels(canonical(read_volume(place, name))).data[0])
    for name, transform in common.transforms.items():
        write_transform(out / common.registered[name].transform, transform)
    write_case(path, stored, header)


def _mask(
    files: CaseFiles, volumes: dict[str, Volume], own: dict[str, np.ndarray], common: Common, bringing: Bringing
) -> np.ndarray:
    """The given mask where there is one, else the brain or what is foreground in any modality; bool [D, H, W].

    Where scans were registered, only what all of them show: beyond, a target is no more than its fill.
    """
    if files.mask is None:
        if bringing.mask == "brain":
            return brain(_scan_of_brain(files.case, volumes, bringing)) & common.seen()
        inside: np.ndarray = np.any(list(own.values()), axis=0)
        return inside & common.seen()
    return user_mask(common.bring_labels(canonical(read_volume(files.mask, "mask")))) & common.seen()


def _scan_of_brain(case: str, volumes: dict[str, Volume], bringing: Bringing) -> Volume:
    name = bringing.mask_from
    if name not in volumes:
        raise BadInput(
            f"case {case}: expected {name}, in which the brain is found, found {', '.join(volumes)}. "
            "Name another scan by --mask-from, or give this case a mask file."
        )
    return volumes[name]


def _mask_from(files: CaseFiles, common: Common, bringing: Bringing) -> str:
    found = f"brain of {bringing.mask_from}" if bringing.mask == "brain" else "foreground of " + ", ".join(files.files)
    source = files.mask.name if files.mask is not None else found
    return f"{source}, where all were scanned" if common.transforms else source


def _box(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last + 1 of the mask along D, H and W; the whole volume where the mask is empty."""
    if not mask.any():
        return [(0, length) for length in mask.shape]
    lines = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [(int(line[0]), int(line[-1]) + 1) for line in lines]


def _digest_of_inputs(files: CaseFiles, bringing: Bringing) -> str:
    digest = hashlib.sha256(repr((VERSION, files.case, files.patient, bringing)).encode())
    paths = [*files.files.items(), *files.labels.items(), *([("mask", files.mask)] if files.mask else [])]
    added = set[Path]()  # several frames may come from one large file
    for name, path in paths:
        digest.update(name.encode() + without_frame(path)[1].encode())
        for file in files_of(path):
            if file not in added:
                _add_file(digest, file)
            added.add(file)
    return digest.hexdigest()


def _add_file(digest: "hashlib._Hash", path: Path) -> None:
    if not path.is_file():
        return
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)


def _digest_of_voxels(values: np.ndarray) -> str:
    return hashlib.sha256(repr((values.shape, values.dtype.str)).encode() + values.tobytes()).hexdigest()
