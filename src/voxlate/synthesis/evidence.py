"""What a held-back case teaches: voxels of its images with their truth, kept until a calibration is done."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from voxlate.data.case import LABEL, PreparedCase, digest, prepare_case
from voxlate.data.layout import laid_out
from voxlate.data.presets import CaseFiles
from voxlate.errors import BadInput
from voxlate.files import whole_file
from voxlate.images.grid import oriented, same_grid
from voxlate.images.intensity import Scale
from voxlate.images.volume import Volume, content_hash, read_volume
from voxlate.scoring.provenance import recorded_splits
from voxlate.synthesis.model import Model, Ready
from voxlate.synthesis.trusted import Lattice, lattice_of
from voxlate.training.run import DIGITS
from voxlate.trust.calibration import BODY, Image
from voxlate.trust.features import voxel_features
from voxlate.trust.fit import Evidence, evidence_from
from voxlate.trust.regions import parts_of
from voxlate.trust.unfamiliar import Patches

Array = NDArray[np.float32]

KEPT = 30_000  # voxels of a case's body that are kept: the share outside is known to 0.2 % from them
AIR = 3_000  # and of what is around it, which teaches that air is sure
PATCHES = ".patches"  # before the names of a case's patches, as no modality begins


class Trained(BadInput):
    """A patient of the training among those that it is not to have seen."""


def refuse_training(model: Model, case: str, prepared: PreparedCase | None, warn: Callable[[str], None]) -> None:
    """Raise BadInput where a case was in the training: by what its prepared scans hold; of older runs by its name.

    prepared: None before it is read, when only the name can be compared.
    """
    assert model.calibrations is not None
    known, named = model.header.get("training_voxels"), recorded_splits([model.calibrations]).get("train", [])
    if known and prepared is None:
        return
    held = set[str]() if prepared is None else {digest(one[:])[:DIGITS] for one in prepared.arrays.values()}
    if held & set(known or ()) or (case in named and not known):
        raise Trained(
            f"calibrate: expected patients that training did not see, found {case}, which was in it (by "
            f"{'the voxels of its scans' if known else 'name'}): errors there are smaller than of a new patient. Give "
            "--split val, or another cohort."
        )
    if case in named and prepared is not None:
        warn(f"{case} has the name of a training case and other voxels: it counts as another patient.")


def parts_folder(model: Model) -> Path:
    """Where what cases teach is kept until the calibration is done."""
    return model.calibration_file.with_suffix(".parts")


def files_read(case: CaseFiles, model: Model) -> dict[str, Path]:
    """The scans of a case that the model is given or makes; raises BadInput where one is not there."""
    wanted = [*model.recipe.data.source, *model.recipe.data.target]
    if lacking := [name for name in wanted if name not in case.files]:
        raise BadInput(f"{case.case}: expected {' and '.join(wanted)}, found no {' and no '.join(lacking)}.")
    return {name: case.files[name] for name in wanted}


def contents_of(case: CaseFiles, model: Model) -> dict[str, str]:
    """What the files of a case hold that a calibration depends on."""
    files = {**files_read(case, model), **{f"label {name}": place for name, place in case.labels.items()}}
    files |= {"mask": case.mask} if case.mask and "mask" in model.scan_names else {}
    return {name: content_hash(place) for name, place in sorted(files.items())}


def evidence_of(
    model: Model,
    case: CaseFiles,
    texts: Mapping[str, Mapping[str, str]],
    alpha: float,
    seed: int,
    content: Mapping[str, str],
    report: Callable[[int, int], None] | None,
    warn: Callable[[str], None],
) -> tuple[dict[str, Evidence], Patches]:
    """What a case teaches, by target, and what its scans show; kept in a file until the calibration is done."""
    state = (model.header["weights_hash"], model.plan_of_synthesis, alpha, seed, content, texts, KEPT)
    kept = parts_folder(model) / f"{case.case}.{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.safetensors"
    patient = case.patient or case.case
    tensors = _kept(kept)
    if tensors is None:
        found, seen = _draw_evidence(model, case, texts, alpha, seed, report, warn)
        arrays = {**found, PATCHES: vars(seen)}
        tensors = {
            f"{name}/{key}": np.ascontiguousarray(one) for name, own in arrays.items() for key, one in own.items()
        }
        kept.parent.mkdir(exist_ok=True)
        with whole_file(kept) as temporary:
            safetensors.numpy.save_file(tensors, temporary)
    by_target: dict[str, dict[str, np.ndarray]] = {}
    for place, one in tensors.items():
        name, _, key = place.partition("/")
        by_target.setdefault(name, {})[key] = one
    patches = Patches(**by_target.pop(PATCHES))
    return {name: evidence_from(case.case, patient, one) for name, one in by_target.items()}, patches


def _draw_evidence(
    model: Model,
    case: CaseFiles,
    texts: Mapping[str, Mapping[str, str]],
    alpha: float,
    seed: int,
    report: Callable[[int, int], None] | None,
    warn: Callable[[str], None],
) -> tuple[dict[str, dict[str, np.ndarray]], Patches]:
    """The case's images with its truth on their grid, and what its scans show."""
    scans: dict[str, Any] = {name: path for name, path in case.files.items() if name in model.scan_names}
    scans |= {"mask": case.mask} if case.mask and "mask" in model.scan_names else {}
    ready = model.ready(scans, case.case)
    lattice = lattice_of(ready.prepared, model.recipe.data.axes)
    truth = _truth_of(model, case, ready, lattice, warn)
    images, _ = model.draw(ready, seed, report, outer=alpha)
    sources = model.sources(ready.prepared)
    given = [lattice.seen(one) for one in sources]
    chooser = np.random.default_rng([seed, *case.case.encode()])
    found = {
        name: _sampled(lattice.image(one.image), name, model, truth, given, texts[name], chooser).tensors()
        for name, one in images.items()
    }
    return found, model.patches(ready.prepared, sources)


def _kept(path: Path) -> dict[str, np.ndarray] | None:
    """What an earlier, stopped calibration kept of a case; None where there is nothing whole."""
    try:
        return safetensors.numpy.load_file(path) if path.is_file() else None
    except safetensors.SafetensorError:
        return None


@dataclass(frozen=True)
class _Truth:
    """The true images and label maps [D, H, W] of a case on the voxels of its images, and the scales of the former."""

    case: str
    volumes: dict[str, Volume]
    scales: dict[str, Scale]
    labels: dict[str, NDArray[np.generic]]


def _truth_of(model: Model, case: CaseFiles, ready: Ready, lattice: Lattice, warn: Callable[[str], None]) -> _Truth:
    """The truth as its file has it, which is what evaluate compares with; moved only where its grid is another."""
    files = files_read(case, model)
    scans = {name: read_volume(path, name) for name, path in files.items()}
    maps = {name: read_volume(path, name) for name, path in case.labels.items()}
    preparation = model.preparation_for({name: scans[name] for name in model.recipe.data.source})
    whole = prepare_case(case.case, scans, preparation, labels=maps, masked=False)
    refuse_training(model, case.case, whole, warn)
    prepared = laid_out(whole, model.recipe.data.axes)
    if prepared.header.shape != ready.prepared.header.shape:
        raise BadInput(
            f"{case.case}: expected the truth on the grid of the scans ({ready.prepared.header.shape}), found "
            f"{prepared.header.shape}. Check both files."
        )

    registered = prepared.header.registered

    def on_lattice(own: Volume, values: NDArray[np.generic], order: Literal[0, 1]) -> Volume:
        """The file itself where it has the image's voxels, and registration did not move it."""
        moved = lattice.laid(lattice.written(values, str(own.modality), own.unit, order))
        turned = oriented(own, model.recipe.data.axes[::-1])
        still = str(own.modality) not in registered or registered[str(own.modality)].kept == "none"
        return turned if still and same_grid(turned.grid, moved.grid) else moved

    volumes, scales = dict[str, Volume](), dict[str, Scale]()
    for name in model.recipe.data.target:
        statistics = prepared.header.statistics[name]
        if statistics.blank:
            raise BadInput(f"{case.case}: expected {name} to show something, found the same value everywhere.")
        volumes[name] = on_lattice(scans[name], prepared.arrays[name][:], 1)
        scales[name] = model.recipe.intensity[name].scale(statistics)
    labels = {name: on_lattice(one, prepared.arrays[LABEL + name][:], 0).data[0] for name, one in maps.items()}
    return _Truth(case.case, volumes, scales, labels)


def _sampled(
    image: Image,
    name: str,
    model: Model,
    truth: _Truth,
    sources: Sequence[Array],
    texts: Mapping[str, str],
    chooser: np.random.Generator,
) -> Evidence:
    """Voxels of a case, drawn evenly from the body that its image or its truth shows, and a few from around it."""
    volume = truth.volumes[name]
    scale = Scale(*model.header["target_scales"][name])
    made = Volume(scale.inverse(image.made)[None], volume.affine, volume.unit, name)
    of_truth, of_made = parts_of(texts, volume, truth.labels), parts_of(texts, made)
    known = volume.data[0].astype(np.float32)
    shown = (of_truth[BODY] | of_made[BODY]).ravel()
    parts = [np.flatnonzero(shown), np.flatnonzero(~shown)]
    drawn = [chooser.permutation(part)[:most] for part, most in zip(parts, (KEPT, AIR))]
    places = np.sort(np.concatenate(drawn))

    def at(values: np.ndarray | None) -> Any:
        return None if values is None else values.reshape(-1, *values.shape[3:])[places]

    return Evidence(
        truth.case,
        "",
        at(voxel_features(image.made, sources, image.sd)),
        at(image.made),
        at(truth.scales[name].forward(known) if model.recipe.intensity[name].window else truth.scales[name].of(known)),
        at(image.sd),
        at(image.low),
        at(image.high),
        {part: at(mask) for part, mask in of_truth.items()},
        {part: at(mask) for part, mask in of_made.items()},
    )
