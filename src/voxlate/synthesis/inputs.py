"""A case's scans as a model is given them: read, checked, and prepared as those of its training were."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from voxlate.config import adapter
from voxlate.data.align import Preparation
from voxlate.data.anatomy import Anatomy, anatomy_warnings, body_of
from voxlate.data.case import MASK, PreparedCase, prepare_case
from voxlate.data.grades import advice
from voxlate.data.intensity_checks import check_floor, out_of_distribution, varied_level
from voxlate.data.layout import laid_out
from voxlate.errors import BadInput
from voxlate.images.grid import Volume, canonical, check_affine
from voxlate.images.io import read_volume
from voxlate.images.mask import clearest
from voxlate.images.units import unit_of
from voxlate.recipe import Recipe

Scan = Volume | Path | str | nib.spatialimages.SpatialImage | tuple[np.ndarray, np.ndarray]
UNLIKE_VOXELS = 1.5  # times as long or as short, along any axis


@dataclass(frozen=True)
class Ready:
    """A case as the network is given it; key: of its noise; files: where its scans were read from.

    stated: how it was prepared, for its provenance; notes: sentences on what is not as in the training.
    """

    prepared: PreparedCase
    key: str
    files: Mapping[str, str]
    stated: Mapping[str, Any]
    notes: tuple[str, ...]


def make_ready(
    recipe: Recipe, header: Mapping[str, Any], scans: Mapping[str, Scan], case: str, anatomy: Anatomy | None = None
) -> Ready:
    """Prepare a case's scans as those of the training were; header: of the weights; anatomy: usual in the training.

    Raises BadInput where one shows nothing, or they do not fit together.
    """
    volumes = {name: _read(scan, name) for name, scan in scans.items()}
    files = {name: volume.origin for name, volume in volumes.items()}
    mask = volumes.pop(MASK, None)
    key = _voxels_key(volumes.values())
    trained, used = preparation_of(header), preparation_for(header, volumes)
    prepared = prepare_case(case, volumes, used, mask=mask, masked=recipe.needs_mask)
    notes = _check_scans(recipe, header, prepared, anatomy)
    if mask is None and recipe.needs_mask and used.mask_from != trained.mask_from:
        notes.append(f"The brain was found in {used.mask_from}, not in {trained.mask_from} as in training (missing).")
    if not recipe.method.makes_targets:
        made = " and ".join(recipe.data.target)
        notes.append(f"{made} is reconstructed from itself: the bound of models with this autoencoder, no synthesis.")
    widths = header.get("target_widths", {})
    notes += [varied_level(name, widths.get(name, ())) for name in made_of(recipe, scans)]
    stated = _stated(trained, used, prepared)
    # from here on as the network sees it; its affine leads the images back
    return Ready(laid_out(prepared, recipe.data.axes), key, files, stated, tuple(filter(None, notes)))


def by_name(scans: Any, sources: Sequence[str]) -> Mapping[str, Scan]:
    """Scans by their modality, where a model with one source may be given a scan alone; raises BadInput for others."""
    if isinstance(scans, Mapping):
        if anatomy_warnings := [name for name in scans if not isinstance(name, str)]:
            raise BadInput(
                f"scans: expected names of modalities ({', '.join(sources)}), found {anatomy_warnings[0]!r}. Change it."
            )
        return scans
    if not isinstance(scans, Volume | Path | str | nib.spatialimages.SpatialImage | tuple):
        found = type(scans).__name__
        raise BadInput(
            f'scans: expected scans by modality, as {{"{sources[0]}": "scan.nii.gz"}}, found {found}. Give each a name.'
        )
    if len(sources) > 1:
        raise BadInput(
            f"scans: expected scans by modality for a model of {', '.join(sources)}, found one scan without a name. "
            f'Write {{"{sources[0]}": scan, "{sources[1]}": …}}.'
        )
    return {sources[0]: scans}


def made_of(recipe: Recipe, scans: Collection[str]) -> list[str]:
    """The modalities that are made of a case with these scans: the targets, of a completion those that it lacks."""
    return [name for name in recipe.data.target if not (recipe.task.completes and name in scans)]


def preparation_of(header: Mapping[str, Any]) -> Preparation:
    """How the training's cases came to one grid and to their mask."""
    return adapter(Preparation).validate_python(header.get("preparation", {}))


def preparation_for(header: Mapping[str, Any], scans: Mapping[str, Volume]) -> Preparation:
    """The training's; a missing fixed scan is replaced by the first source, that of the brain by the clearest."""
    trained, spacing = preparation_of(header), header.get("training_spacing_mm")
    if trained.mask == "brain" and trained.mask_from not in scans:
        trained = replace(trained, mask_from=clearest({name: scan.unit for name, scan in scans.items()}))
    if trained.fixed in scans:
        return trained
    moved = trained.resample or trained.register
    if trained.fixed is not None and moved and spacing and not trained.changes_voxels:
        trained = replace(trained, spacing_mm=tuple(spacing))  # the fixed scan's, in training
    return replace(trained, fixed=next(iter(scans)))


def _stated(trained: Preparation, used: Preparation, prepared: PreparedCase) -> dict[str, Any]:
    """How a case was prepared, for its provenance."""
    moves = used.resample or used.register or used.align
    note = f"{used.fixed} in place of the training's {trained.fixed}, which is no scan of this case"
    registered = prepared.header.registered.items()
    return {
        **asdict(used),
        **({"on_grid_of": used.fixed} if used.register else {}),
        **({"grid_of": note} if moves and trained.fixed not in (None, used.fixed) else {}),
        "registered": {name: asdict(replace(one, transform="")) for name, one in registered},
    }


def _check_scans(
    recipe: Recipe, header: Mapping[str, Any], prepared: PreparedCase, anatomy: Anatomy | None
) -> list[str]:
    """Sentences on guesses and on scans unlike the training's; raises BadInput for one that shows nothing."""
    notes, case, ranges = [], prepared.header.case, header.get("training_ranges", {})
    for name, statistics in prepared.header.statistics.items():
        if statistics.blank:
            found = f"every voxel {statistics.all.at(0):g}"
            raise BadInput(f"{case}: expected {name} to show something, found {found}. Check the scan.")
        check_floor(name, recipe.intensity[name], prepared.header, case)
        notes += [f"{name}: {guess}" for guess in prepared.header.origins[name].guesses]
        notes.append(out_of_distribution(name, statistics, recipe.intensity[name], ranges))
        if anatomy is not None:
            notes += anatomy_warnings(anatomy, name, body_of(prepared, name, recipe.intensity[name]))
    return [*notes, _other_voxels(header, prepared)]


def _other_voxels(header: Mapping[str, Any], prepared: PreparedCase) -> str:
    """A sentence where voxels are of quite another size than in training, and nothing resamples them; else ''."""
    trained, here = header.get("training_spacing_mm"), prepared.header.spacing_mm
    if not trained or preparation_of(header).changes_voxels:
        return ""
    times = max(max(a / b, b / a) for a, b in zip(trained, here))
    if times <= UNLIKE_VOXELS:
        return ""
    mm = " x ".join(f"{one:.3g}" for one in here), " x ".join(f"{one:.3g}" for one in trained)
    return (
        f"Voxels are {mm[0]} mm (z, y, x), where those of the training were {mm[1]} mm: anatomy has another size "
        f"to the network. Resample the scan. {advice(times)}"
    )


def _voxels_key(scans: Iterable[Volume]) -> str:
    """What scans show and where: the same patient has the same noise, whatever the case and its files are called."""
    digest = hashlib.sha256()
    for scan in scans:
        in_ras = canonical(scan)
        digest.update(repr((in_ras.data.shape, (np.round(in_ras.affine, 3) + 0.0).tolist())).encode())
        digest.update(np.ascontiguousarray(in_ras.data).data)
    return digest.hexdigest()


def _read(scan: Scan, modality: str) -> Volume:
    if isinstance(scan, Volume):
        _check_plain(scan.data, modality)
        return scan
    if isinstance(scan, str | Path):
        return read_volume(Path(scan), modality)
    pair = (scan.dataobj, scan.affine) if isinstance(scan, nib.spatialimages.SpatialImage) else scan
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise BadInput(
            f"{modality}: expected a path, a Volume, a nibabel image, or a pair of an array [x, y, z] and its affine, "
            f"found {type(scan).__name__}. Give one of these."
        )
    _check_plain(pair[0], modality)
    try:
        values, affine = np.asarray(pair[0], np.float32), np.asarray(pair[1], np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{modality}: expected numbers for an array and its affine, found others ({error}).") from error
    if affine.shape != (4, 4):
        raise BadInput(f"{modality}: expected an affine of the shape (4, 4), found {affine.shape}. Change it.")
    if values.ndim != 3 or not np.isfinite(values).all():
        found = f"the shape {values.shape}" if values.ndim != 3 else "values that are not"
        raise BadInput(f"{modality}: expected an array [x, y, z] of finite values, found {found}. Change it.")
    return Volume(values.T[None].copy(), check_affine(affine, modality), unit_of(modality), modality)


def _check_plain(values: Any, modality: str) -> None:
    """Raise BadInput for an array that masks voxels, or is complex: both would be lost without a word."""
    if np.ma.is_masked(values):
        raise BadInput(
            f"{modality}: expected an array in which no voxel is masked, found a masked one. Fill these voxels "
            f"(array.filled(0)), and give the mask as a scan called '{MASK}'."
        )
    if getattr(getattr(values, "dtype", None), "kind", "") == "c":  # a tensor's dtype has no kind
        raise BadInput(f"{modality}: expected real numbers, found complex ones. Give the magnitude (np.abs).")
