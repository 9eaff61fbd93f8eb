"""How the bodies of a training lie and how large they are, and whether a new scan's body lies and ends like them.

Each source of a case is averaged to voxels of about 4 mm, cropped to its body and stretched to a small box. Such boxes
are compared with the mean box of the training patients: as they are, and mirrored along each axis.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import save_file
from scipy.ndimage import zoom

from voxlate.data.case import PreparedCase
from voxlate.data.grades import ADVICE, REFUSE, advice
from voxlate.data.prepared import Cohort
from voxlate.files import whole_file
from voxlate.images.grid import Volume
from voxlate.images.intensity import IntensityMap
from voxlate.images.mask import background_value, bounding_box, foreground
from voxlate.records import MOST, Name, Number, Record, Shape

Box = NDArray[np.float32]
Distance = Annotated[float, Field(ge=-0.001, le=2.001)]  # 1 - correlation, rounded
Width = Annotated[float, Field(gt=1e-6, le=10)]
Lean = Annotated[float, Field(ge=-2.001, le=2.001)]  # a difference of correlations
LogMm = Annotated[float, Field(ge=-10, le=10)]  # up to 22 m

SIDE = 16  # voxels of a box along each axis
COARSE_MM = 4.0
MOST_CASES = 200  # a mean of more is the same
FEWEST = 3  # patients, below which nobody can say what is usual
MARGIN, UNPROVED, ENOUGH = 1.2, 1.5, 19  # times the farthest known patient; UNPROVED for fewer patients than ENOUGH
LEAST_WIDTH, LEAST_CONTRAST = 0.05, 0.15  # of 1 - correlation with the mean box, and inside its body
USUAL_SPREAD, WORTH = 0.05, 3  # of heads' extents, as a logarithm; it counts as much as so many patients
FAR_SIZE = 3.0  # deviations of an extent, below which nothing is said
USUAL_LEAN, LEAN_WORTH = 0.02, 3  # deviation of a difference of correlations; it counts as much as so many patients
TELLS = 4.0  # deviations by which known patients must differ from their mirror images, so that a flip can be seen
OTHER_UNIT = 100.0  # times the largest or least level of the training
LEVEL = 95  # percentile of the foreground
SIDES = ("upside down", "front to back", "left to right")
LEFT_RIGHT = (False, False, True)
FLIPS = tuple(axes for axes in product((False, True), repeat=3) if any(axes))


@dataclass(frozen=True)
class Usual:
    """What training patients are like in one source.

    far, width: 1 - correlation with the mean box of the others, its median and how far beyond it a known patient lies;
    contrast, contrast_width: the same of the voxels inside the body alone, where shape counts for little;
    lean, spread: for each of FLIPS, by how much the mean box is more similar to a patient than to the mirror image,
    its mean and deviation; size, deviation: logarithm of the extents in mm along D, H, W; levels: least and largest
    LEVEL percentile of a foreground.
    """

    patients: Annotated[int, Field(ge=FEWEST, le=MOST)]
    far: Distance
    width: Width
    contrast: Distance
    contrast_width: Width
    lean: Annotated[tuple[Lean, ...], Field(min_length=len(FLIPS), max_length=len(FLIPS))]
    spread: Annotated[tuple[Width, ...], Field(min_length=len(FLIPS), max_length=len(FLIPS))]
    size: tuple[LogMm, LogMm, LogMm]
    deviation: tuple[Width, Width, Width]
    levels: tuple[Number, Number]

    def sees(self, flip: int) -> bool:
        """Whether known patients differ from their mirror images clearly enough to tell which is which."""
        return self.lean[flip] > TELLS * self.spread[flip]


@dataclass(frozen=True)
class Anatomy:
    """Of a training: by source the mean box and what is usual, by target the value of its background.

    backgrounds: in physical units.
    """

    means: Mapping[str, Box]
    usual: Mapping[str, Usual]
    backgrounds: Mapping[str, float]

    def save(self, path: Path) -> None:
        stated = {"usual": {name: asdict(one) for name, one in self.usual.items()}, "backgrounds": self.backgrounds}
        text = json.dumps(stated, sort_keys=True, allow_nan=False)
        metadata = {"anatomy": text, "sha256": _checksum(text, self.means)}
        with whole_file(path) as temporary:
            save_file(
                {name: np.ascontiguousarray(one) for name, one in self.means.items()},
                temporary,
                metadata,
            )


@dataclass(frozen=True)
class _Stated:
    """What the header of a file says."""

    usual: dict[Name, Usual]
    backgrounds: dict[Name, Number]


def read_anatomy(path: Path, modalities: Collection[str]) -> Anatomy:
    """What is usual in a training of these modalities.

    Raises BadInput where a file is damaged, edited, of another training or none of ours.
    """
    record = Record(
        path,
        "what is usual in a training",
        "Remove it: images are then made without these checks.",
    )
    with record.tensors() as file:
        text = file.text("anatomy")
        digest = file.text("sha256")
        stated: _Stated = record.parse(_Stated, text)
        means = file.read(dict.fromkeys(stated.usual, Shape((SIDE,) * 3, low=-1.001, high=1.001)))  # their length is 1
    record.check(digest == _checksum(text, means), "a changed file (its checksum differs)")
    others = (stated.usual.keys() | stated.backgrounds.keys()) - set(modalities)
    record.check(not others, f"modalities that its recipe has not ({', '.join(sorted(others))})")
    for name, one in stated.usual.items():
        record.check(one.levels[0] <= one.levels[1], f"levels of {name} from {one.levels[0]:g} to {one.levels[1]:g}")
    return Anatomy(means, stated.usual, stated.backgrounds)


def _checksum(text: str, means: Mapping[str, Box]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, one in sorted(means.items()):
        digest.update(f"{name}{one.shape}{one.dtype}".encode() + one.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Seen:
    """A case's body in one source: its box (mean 0, length 1), the logarithm of its extents in mm, and its level.

    grain: what half a voxel more changes in these extents.
    """

    box: Box
    size: NDArray[np.float64]
    grain: NDArray[np.float64]
    level: float


def seen(case: PreparedCase, name: str, spec: IntensityMap) -> Seen:
    """A source of a canonical case."""
    statistics = case.header.statistics[name]
    coarse, spacing = _coarse(case.volume(name))
    body = foreground(coarse)
    (z0, z1), (y0, y1), (x0, x1) = bounding_box(body)
    scaled = spec.scale(statistics).forward(np.where(body, coarse.data[0], coarse.data[0].min()))
    extents = np.array([z1 - z0, y1 - y0, x1 - x0]) * spacing
    box = _unit(_stretched(scaled[z0:z1, y0:y1, x0:x1]))
    grain = np.log1p(spacing / 2 / extents)
    return Seen(box, np.log(extents), grain, statistics.foreground.at(LEVEL))


def _coarse(volume: Volume) -> tuple[Volume, NDArray[np.float64]]:
    """A volume averaged over blocks of about COARSE_MM, and its spacing; what fills no block is left out."""
    data = volume.data[0]
    spacing = np.array(volume.grid.spacing_mm)
    for axis, length in enumerate(volume.grid.spacing_mm):
        block = min(data.shape[axis], max(1, round(COARSE_MM / length)))
        if block > 1:
            count = data.shape[axis] // block
            whole = data.take(range(count * block), axis)
            data = whole.reshape(*data.shape[:axis], count, block, *data.shape[axis + 1 :]).mean(axis + 1)
            spacing[axis] *= block
    return Volume(data[None], np.diag([*spacing[::-1], 1.0]), volume.unit, volume.modality), spacing


def _stretched(values: Box) -> Box:
    factors = [SIDE / size for size in values.shape]
    box: Box = zoom(values.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
    return box


def _unit(box: Box) -> Box:
    box = box - box.mean()
    found: Box = box / max(float(np.linalg.norm(box)), 1e-9)
    return found


def anatomy_of(
    cohort: Cohort,
    cases: Sequence[str],
    sources: Mapping[str, IntensityMap],
    targets: Mapping[str, IntensityMap],
) -> Anatomy:
    """What is usual in the training cases of a cohort; at most MOST_CASES of them, evenly chosen."""
    chosen = cases[:: -(-len(cases) // MOST_CASES) or 1]
    found: dict[str, dict[str, list[Seen]]] = {name: {} for name in sources}
    airs: dict[str, list[float]] = {name: [] for name in targets}
    for one in chosen:
        case = cohort.case(one)
        shown = set(case.header.shown)
        for name in shown & sources.keys():
            found[name].setdefault(case.header.patient, []).append(seen(case, name, sources[name]))
        for name in shown & targets.keys():
            scale = targets[name].scale(case.header.statistics[name])
            airs[name].append(float(scale.forward(np.float32(background_value(case.volume(name))))))
    enough = {name: one for name, one in found.items() if len(one) >= FEWEST}
    boxes = {name: _by_patient(patients) for name, patients in enough.items()}
    return Anatomy(
        {name: one.mean(axis=0).astype(np.float32) for name, one in boxes.items()},
        {name: _usual(boxes[name], patients) for name, patients in enough.items()},
        {
            name: float(cohort.target_scale(targets[name], name, cases).inverse(np.median(values)))
            for name, values in airs.items()
            if values
        },
    )


def _by_patient(patients: Mapping[str, Sequence[Seen]]) -> Box:
    """The mean box of each patient, [P, SIDE, SIDE, SIDE]."""
    return np.stack([np.mean([case.box for case in cases], axis=0) for cases in patients.values()])


def _usual(boxes: Box, patients: Mapping[str, Sequence[Seen]]) -> Usual:
    """How each patient compares with the mean of the others, by the least similar of the patient's cases."""
    far = list[float]()
    contrasts = list[float]()
    leans = list[NDArray[np.float64]]()
    for own, cases in zip(boxes, patients.values()):
        others = boxes.sum(axis=0) - own
        found = [_likeness(case.box, others) for case in cases]
        far.append(1 - min(one[0] for one in found))
        contrasts.append(1 - min(_inside(case.box, others) for case in cases))
        leans += [one[0] - one[1:] for one in found]  # slices of a patient differ among each other, too
    count, lean = len(boxes), np.mean(leans, axis=0)
    squares = (count * np.var(leans, axis=0) + LEAN_WORTH * USUAL_LEAN**2) / (count + LEAN_WORTH)
    every = [case for cases in patients.values() for case in cases]
    sizes = np.stack([body.size for body in every])
    spread = (len(sizes) * sizes.var(axis=0) + WORTH * USUAL_SPREAD**2) / (len(sizes) + WORTH) * (1 + 1 / count)
    margin = MARGIN if count >= ENOUGH else UNPROVED
    levels = [body.level for body in every]
    return Usual(
        count,
        *_middle_and_width(far, margin, LEAST_WIDTH),
        *_middle_and_width(contrasts, margin, LEAST_CONTRAST),
        tuple(lean.tolist()),
        tuple(np.sqrt(squares).tolist()),
        tuple(sizes.mean(axis=0).tolist()),
        tuple((np.sqrt(spread) + np.mean([body.grain for body in every], axis=0)).tolist()),
        (min(levels), max(levels)),
    )


def _middle_and_width(values: Sequence[float], margin: float, least: float) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, float(max(margin * (max(values) - middle), least))


def _inside(box: Box, mean: Box) -> float:
    """Correlation with a mean box inside its body."""
    body = _unit(mean) > 0
    return float((_unit(box[body]) * _unit(mean[body])).sum())


def _likeness(box: Box, mean: Box) -> NDArray[np.float64]:
    """Correlation of a box with a mean one: as it is, then mirrored by each of FLIPS."""
    mean = _unit(mean)
    mirrored = [np.flip(box, tuple(axis for axis, one in enumerate(flip) if one)) for flip in FLIPS]
    return np.array([float((one * mean).sum()) for one in (box, *mirrored)])


def strange(anatomy: Anatomy, name: str, case: Seen) -> list[str]:
    """Sentences on what a source shows unlike the training's patients; none where too few of them are known."""
    if name not in anatomy.usual:
        return []
    usual = anatomy.usual[name]
    likeness = _likeness(case.box, anatomy.means[name])
    found = [
        _turned(name, usual, likeness) or _unlike(name, usual, likeness[0], _inside(case.box, anatomy.means[name])),
        _other_size(name, usual, case),
        _other_unit(name, usual, case),
    ]
    return [one for one in found if one]


def _turned(name: str, usual: Usual, likeness: NDArray[np.float64]) -> str:
    """A sentence where a mirror image is familiar, and more similar to the training's mean than the scan itself."""
    seen = [flip for flip in range(len(FLIPS)) if usual.sees(flip)]
    sides = usual.sees(FLIPS.index(LEFT_RIGHT))
    flips = [flip for flip in seen if sides or not FLIPS[flip][-1]]  # else left to right is noise
    flip = max(flips, key=lambda one: likeness[one + 1], default=None)
    if flip is None or likeness[flip + 1] <= likeness[0] or _away(usual, likeness[flip + 1]) > REFUSE:
        return ""
    how = " and ".join(side for side, one in zip(SIDES, FLIPS[flip]) if one)
    return f"{name}: the scan is likely turned {how}: its correlation with the mean training scan is {likeness[0]:.2f}, and {likeness[flip + 1]:.2f} when it is mirrored so. Check its orientation. {ADVICE['do not trust']}"


def _away(usual: Usual, correlation: float) -> float:
    """How many times as far from the usual as the farthest familiar scans."""
    return (1 - correlation - usual.far) / usual.width


def _unlike(name: str, usual: Usual, whole: float, inside: float) -> str:
    """A sentence where correlations with the mean training scan, of the whole box and inside its body, are low."""
    times, correlation, known, where = max(
        (_away(usual, whole), whole, usual.far, ""),
        ((1 - inside - usual.contrast) / usual.contrast_width, inside, usual.contrast, " inside the body"),
    )
    if times <= 1:
        return ""
    return f"{name}: its correlation with the mean training scan{where} is {correlation:.2f}, that of the training's own patients {1 - known:.2f} (median), so {times:.1f} times as far from the usual as the farthest familiar ones: another modality, field of view or part of the body? {advice(times)}"


def _other_size(name: str, usual: Usual, case: Seen) -> str:
    away = np.abs(case.size - usual.size) / usual.deviation
    axis = int(away.argmax())
    times = float(away[axis]) / FAR_SIZE
    if times <= 1:
        return ""
    found, mean = np.exp([case.size[axis], usual.size[axis]])
    return f"{name}: its body is {found:.0f} mm {('high', 'deep', 'wide')[axis]}, those of the training {mean:.0f} mm on average ({times * FAR_SIZE:.1f} standard deviations): another field of view? {advice(times)}"


def _other_unit(name: str, usual: Usual, case: Seen) -> str:
    least, most = usual.levels
    if least <= 0 or least / OTHER_UNIT < case.level < most * OTHER_UNIT:
        return ""
    return f"{name}: the {LEVEL}th percentile of its foreground is {case.level:.3g}, that of the training's scans {least:.3g} to {most:.3g}: another unit? {ADVICE['caution']}"
