"""Calibration: what held-back patients, whose truth is known, teach about the errors of a run's images."""

import hashlib
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from voxlate.data.case import LABEL, PreparedCase, digest, prepare_case
from voxlate.data.find import find_cohort
from voxlate.data.layout import laid_out
from voxlate.data.presets import CaseFiles
from voxlate.errors import BadInput
from voxlate.files import locked, whole_file
from voxlate.images.grid import oriented, same_grid
from voxlate.images.intensity import Scale, network_ends
from voxlate.images.volume import Volume, content_hash, read_volume
from voxlate.scoring.provenance import recorded_splits
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.folder import in_split
from voxlate.synthesis.model import Model, Ready
from voxlate.synthesis.trusted import Lattice, lattice_of
from voxlate.training.run import DIGITS, made_by
from voxlate.trust.calibration import BODY, Calibration, Header, Image, Target, write_calibration
from voxlate.trust.conformal import Bound
from voxlate.trust.features import voxel_features
from voxlate.trust.fit import Evidence, evidence_from, fit
from voxlate.trust.regions import check_regions, default_regions, parts_of
from voxlate.trust.unfamiliar import Patches, remember
from voxlate.trust.widths import Widths

Array = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

KEPT = 30_000  # voxels of a case's body that are kept: the share outside is known to 0.2 % from them
AIR = 3_000  # and of what is around it, which teaches that air is sure
FEWEST, ENOUGH = 2, 10  # patients: at all, and for a margin by Student's t
ODD = 3  # times the median case's error, from which a case is worth a look
PATCHES = ".patches"  # before the names of a case's patches, as no modality begins


def calibrate(
    model: Model | Ensemble,
    cases: Sequence[CaseFiles],
    *,
    split: str | None = None,
    coverage: float = 0.9,
    confidence: float = 0.9,
    bound: Bound | None = None,
    regions: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[Path, Calibration]:
    """Make the images of cases with truth, compare ways of intervals, and write the best into the run.

    coverage: share of a new patient's voxels that intervals are to hold, on average over patients, with this
    confidence, counted as conformal.upper_bound says (unset: "normal" from ENOUGH patients on, else "none", for a
    margin from fewer would be most of the range). regions: parts of the body by a rule ("vessels": "cta>150"),
    in addition to those of the unit and of label maps. A stopped calibration goes on where it was. Raises BadInput
    where the model is an ensemble, completes, or was trained on one of the cases, and where there are too few.
    """
    model = _fitting(model)
    if not 0.5 <= coverage < 1 or not 0.5 <= confidence < 1 or abs(100 * coverage - round(100 * coverage)) > 1e-6:
        wrong = f"{coverage:g} and {confidence:g}"
        raise BadInput(
            f"calibrate: expected a coverage in whole percents and a confidence, from 0.5 to below 1, found {wrong}. "
            "Change them."
        )
    for case in cases:
        _refuse_training(model, case.case, None, warn)
    target_names = model.recipe.data.target
    labels = sorted({name for case in cases for name in case.labels})
    texts = {name: _regions(name, model, labels, regions) for name in target_names}
    path = model.calibration_file
    with locked(path.parent):
        known = _gather(model, cases, texts, 1 - coverage, seed, progress, warn)
        if bound is None:
            bound = "normal" if len(known.patients) >= ENOUGH else "none"
        targets, widths = dict[str, Target](), dict[str, Widths]()
        ends = {name: network_ends(model.recipe.intensity[name]) for name in target_names}
        for number, (name, evidence) in enumerate(known.evidence.items()):
            if progress:
                progress("fits", number + 1, len(known.evidence))
            targets[name], learned = fit(evidence, texts[name], coverage, confidence, bound, seed, ends[name])
            widths |= {} if learned is None else {name: learned}
        header = Header(
            weights=model.header["weights_hash"],
            synth=model.plan_of_synthesis,
            coverage=coverage,
            confidence=confidence,
            bound=bound,
            patients=len(known.patients),
            cases=known.contents,
            split=split,
            seed=seed,
            targets=targets,
            units={name: model.header["units"][name] for name in target_names},
            halves={name: (high - low) / 2 for name, (low, high) in model.header["target_scales"].items()},
            made_by=made_by(),
        )
        write_calibration(path, Calibration(header, widths, remember(known.patches, known.whose, seed)))
        shutil.rmtree(_parts(model), ignore_errors=True)
    made = model.calibration()
    assert made is not None
    return path, made


@dataclass
class _Known:
    """What cases teach: by target, what their scans show, whose they are, and the content of their files."""

    evidence: dict[str, list[Evidence]]
    patches: list[Patches] = field(default_factory=list)
    whose: list[str] = field(default_factory=list)
    contents: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def patients(self) -> set[str]:
        return set(self.whose)


def _gather(
    model: Model,
    cases: Sequence[CaseFiles],
    texts: Mapping[str, Mapping[str, str]],
    alpha: float,
    seed: int,
    progress: Progress | None,
    warn: Callable[[str], None],
) -> _Known:
    """What the cases teach; raises BadInput where they are too few. One that cannot be made is left out, and said."""
    known, failed = _Known({name: [] for name in texts}), list[str]()
    report = (lambda done, total: progress("slices", done, total)) if progress else None
    for number, case in enumerate(cases):
        if progress:
            progress("cases", number, len(cases))
        try:
            content = _contents(case, model)
            evidence, patches = _evidence(model, case, texts, alpha, seed, content, report, warn)
        except _Trained:
            raise
        except BadInput as error:
            failed.append(f"{case.case} is left out: {error}")
            warn(failed[-1])
            continue
        for other, theirs in known.contents.items():
            if theirs == content:
                warn(f"{case.case} has the same scans as {other}: it is left out, for it is no other patient.")
                break
        else:
            for name, one in evidence.items():
                known.evidence[name].append(one)
            known.patches.append(patches)
            known.whose.append(case.patient or case.case)
            known.contents[case.case] = content
    if progress:
        progress("cases", len(cases), len(cases))
    for name, evidence_of in known.evidence.items():
        _check_regions(name, evidence_of, texts[name])
        say_odd(name, evidence_of, warn)
    if len(known.patients) < FEWEST:
        raise BadInput(
            f"calibrate: expected at least {FEWEST} patients with {' and '.join(texts)} that training did not see, "
            f"found {len(known.patients)} ({len(known.contents)} of {len(cases)} cases"
            f"{f': {failed[0]}' if failed else ''}). Hold back more: prepare with other --shares."
        )
    return known


def _check_regions(name: str, evidence: Sequence[Evidence], texts: Mapping[str, str]) -> None:
    for region, text in texts.items():
        if evidence and text != f"{region}>0.5" and not any(one.truth_parts[region].any() for one in evidence):
            raise BadInput(
                f"region {region}: expected voxels of {text} in the {name} of at least one case, found none. Move the "
                "threshold."
            )


def say_odd(name: str, evidence: Sequence[Evidence], warn: Callable[[str], None]) -> None:
    """A case whose error is many times the others' is seldom a hard one: its unit or its grid is another."""
    errors = {one.case: float(np.abs(one.truth - one.made).mean()) for one in evidence}
    usual = float(np.median([*errors.values()])) if errors else 0.0
    for case, error in errors.items():
        if error > ODD * usual:
            warn(
                f"{case}: the error of its {name} is {error / usual:.1f} times that of the median case: look at it; a "
                "unit, an offset or a misplaced truth widens the intervals of all."
            )


def _parts(model: Model) -> Path:
    """Where what cases teach is kept until the calibration is done."""
    return model.calibration_file.with_suffix(".parts")


def _fitting(model: Model | Ensemble) -> Model:
    if isinstance(model, Ensemble):
        raise BadInput("calibrate: expected one run, found an ensemble. Calibrate a single run.")
    if model.recipe.task.completes or not model.recipe.method.makes_targets:
        raise BadInput(
            f"{model.origin}: expected a model that makes {' and '.join(model.recipe.data.target)} of other scans, "
            f"found '{model.recipe.title}': completions and autoencoders have no calibration."
        )
    return model


def _read_of(case: CaseFiles, model: Model) -> dict[str, Path]:
    """The scans of a case that the model is given or makes; raises BadInput where one is not there."""
    wanted = [*model.recipe.data.source, *model.recipe.data.target]
    if lacking := [name for name in wanted if name not in case.files]:
        raise BadInput(f"{case.case}: expected {' and '.join(wanted)}, found no {' and no '.join(lacking)}.")
    return {name: case.files[name] for name in wanted}


def _contents(case: CaseFiles, model: Model) -> dict[str, str]:
    """What the files of a case hold that a calibration depends on."""
    files = {**_read_of(case, model), **{f"label {name}": place for name, place in case.labels.items()}}
    files |= {"mask": case.mask} if case.mask and "mask" in model.scan_names else {}
    return {name: content_hash(place) for name, place in sorted(files.items())}


def held_back(model: Model | Ensemble, cohort: Path, split: str | None, **layout: Any) -> list[CaseFiles]:
    """The cases of a cohort in a split: of the run's training, where that says more than the cohort's own."""
    found = in_split(model, find_cohort(cohort, **layout).cases, split)
    if not found:
        raise BadInput(
            f"{cohort}: expected cases{f' of the split {split}' if split else ''}, found none. Check --split."
        )
    return found


class _Trained(BadInput):
    """A patient of the training among those that it is not to have seen."""


def _refuse_training(model: Model, case: str, prepared: PreparedCase | None, warn: Callable[[str], None]) -> None:
    """Raise BadInput where a case was in the training: by what its prepared scans hold; of older runs by its name.

    prepared: None before it is read, when only the name can be compared.
    """
    assert model.calibrations is not None
    known, named = model.header.get("training_voxels"), recorded_splits([model.calibrations]).get("train", [])
    if known and prepared is None:
        return
    held = set[str]() if prepared is None else {digest(one[:])[:DIGITS] for one in prepared.arrays.values()}
    if held & set(known or ()) or (case in named and not known):
        raise _Trained(
            f"calibrate: expected patients that training did not see, found {case}, which was in it (by "
            f"{'the voxels of its scans' if known else 'name'}): errors there are smaller than of a new patient. Give "
            "--split val, or another cohort."
        )
    if case in named and prepared is not None:
        warn(f"{case} has the name of a training case and other voxels: it counts as another patient.")


def _regions(target: str, model: Model, labels: list[str], given: Mapping[str, str] | None) -> dict[str, str]:
    texts = default_regions(target, model.header["units"][target], labels)
    check_regions(given or {}, target, labels)
    return {**texts, **(given or {})}


def _evidence(
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
    kept = _parts(model) / f"{case.case}.{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.safetensors"
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
    files = _read_of(case, model)
    scans = {name: read_volume(path, name) for name, path in files.items()}
    maps = {name: read_volume(path, name) for name, path in case.labels.items()}
    preparation = model.preparation_for({name: scans[name] for name in model.recipe.data.source})
    whole = prepare_case(case.case, scans, preparation, labels=maps, masked=False)
    _refuse_training(model, case.case, whole, warn)
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
