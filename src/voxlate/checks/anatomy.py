"""Orientation, size and appearance of the bodies in a training, and whether those of a new scan are in distribution.

Each source of a case is averaged to voxels of about 4 mm, cropped to its body and stretched to a small box. Such boxes
are compared with the mean box of the training patients: as they are, and mirrored along each axis.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from voxlate.base.arrays import AnyArray, Bool, Float32, Float64
from voxlate.base.codes import Grade
from voxlate.base.errors import BadInput
from voxlate.base.messages import REFUSED, Message, grade_of_distance, message
from voxlate.base.records import MOST, Name, Number, Record, Shape, checksum, write_tensors
from voxlate.base.schema import Field
from voxlate.base.slabs import in_slabs
from voxlate.checks.quality_checks import Quality, quality_of, worst_quality
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.filters import ndimage
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.mask import background_value, box_around, dilate, foreground, hard_edges

if TYPE_CHECKING:
    from voxlate.scans.cases.prepared import Cohort

Box = Float32
Distance = Annotated[float, Field(ge=-0.001, le=2.001)]  # 1 - correlation, rounded
Width = Annotated[float, Field(gt=1e-6, le=10)]
Lean = Annotated[float, Field(ge=-2.001, le=2.001)]  # a difference of correlations
LogMm = Annotated[float, Field(ge=-10, le=10)]  # up to 22 m

SIDE = 16  # voxels of a box along each axis
COARSE_MM = 4.0
MOST_CASES = 200  # a mean of more is the same
FEWEST = 3  # patients from whom a distribution is estimated
# Factor of a distance of the farthest training patient; UNPROVED where there are fewer than ENOUGH patients.
MARGIN, UNPROVED, ENOUGH = 1.2, 1.5, 19
# Least values of Usual.width and Usual.contrast_width.
LEAST_WIDTH, LEAST_CONTRAST = 0.05, 0.15
# Prior standard deviation of the logarithm of a head's extent, and the number of patients that it counts as.
USUAL_SPREAD, WORTH = 0.05, 3
FAR_SIZE = 3.0  # standard deviations of an extent from which a message is given
# Prior standard deviation of a difference of correlations, and the number of patients that it counts as.
USUAL_LEAN, LEAN_WORTH = 0.02, 3
TELLS = 4.0  # standard deviations by which training patients must differ from their flipped images to detect a flip
OTHER_UNIT = 100.0  # times the largest or least level of the training
LEVEL = 95  # percentile of the foreground
SIDES = ("upside down", "front to back", "left to right")
LEFT_RIGHT = (2,)
FLIPS = (LEFT_RIGHT, (1,), (1, 2), (0,), (0, 2), (0, 1), (0, 1, 2))  # the axes that are mirrored
UNRELATED = 0.25  # correlation with the mean scan; real heads, brains and single slices reach 0.53 to 0.92, noise 0
# Correlation with the mean scan inside its body: 0.04 or more of 10 real heads, 20 label heads and 22 images of brains, below
# 0 of 9 of the 10 heads after inversion.
OPPOSITE = 0.0
HARD = 0.5  # area at an end that is cut, beside that further in; round ends in these voxels have a third
CROP = 0.6  # of the training's mean extent
LEAST_CROP_MM = 30  # longest extent, below which voxels are too small or little is shown
SHOWS = 0.2  # of the training's own patients, from which that says something
LEAST_HEIGHT = 0.25  # of the training's mean height; inside 9 of 134 single slices of heads, the correlation is below 0
# Times the training's longest extent: 490 mm of heads, from which voxels have another size.
TOO_LARGE = 2.3
TURNS = [*permutations(range(3))][1:]  # axes that are exchanged
TURN_GAIN = 0.05  # of the correlation, by which a turned box must be more similar; ordinary scans: at most 0.02
CLEAR_GAIN = 0.15  # 0.06 of a brain in slices of 4 mm that is not turned
# Deviations of extents that fit after a turn, where they are beyond FAR_SIZE as they are.
TURN_FITS = 2.5
AXES = ("feet-head", "back-front", "left-right")


@dataclass(frozen=True)
class Usual:
    """The distribution of the training patients' bodies in one source; a body's box is compared with the mean box.

    far: the median of 1 - correlation of a patient's box with the mean box of the others; width: by how much the
    farthest patient exceeds this median, with a margin. contrast, contrast_width: the same of the voxels inside the body alone, where
    its shape matters little. lean, spread: for each of FLIPS, the correlation of the mean box with a patient's box less
    that with the flipped one; mean and standard deviation over patients. size, deviation: mean and standard deviation
    of the logarithms of the extents in mm along D, H, W. levels: the smallest and the largest LEVEL percentile of the
    patients' foregrounds.
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

    def distance(self, correlation: float) -> float:
        """The distance from the usual correlation, in units of the farthest training patient's."""
        return (1 - correlation - self.far) / self.width

    def shows_flip(self, flip: int) -> bool:
        """Whether training patients differ clearly enough from their mirror images to detect this flip."""
        return self.lean[flip] > TELLS * self.spread[flip]


@dataclass(frozen=True)
class Stated:
    """The header of a file of anatomy."""

    usual: dict[Name, Usual]
    backgrounds: dict[Name, Number]
    beyond: dict[Name, Number]
    quality: dict[Name, Quality]


@dataclass(frozen=True)
class Anatomy(Stated):
    """The bodies of a training: by source the mean box and the usual values, by target its background and `beyond`.

    backgrounds: in physical units; beyond: the share of a target's body that no source shows, median over cases;
    quality: the worst of the scans of each source that is not in HU.
    """

    means: Mapping[str, Box] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the anatomy as a safetensors file."""
        stated = asdict(self)
        del stated["means"]
        text = json.dumps(stated, sort_keys=True, allow_nan=False)
        write_tensors(path, self.means, {"anatomy": text, "sha256": checksum(text, self.means)})


def read_anatomy(path: Path, modalities: Collection[str]) -> Anatomy:
    """Read the anatomy of a training of these modalities.

    Raises BadInput where a file is damaged, was edited, or is of another training or format.
    """
    record = Record(
        path,
        "what is usual in a training",
        "Remove it, and images are synthesised without these checks; install voxlate again if it is that of a starter.",
    )
    with record.tensors() as file:
        text = file.text("anatomy")
        digest = file.text("sha256")
        stated: Stated = record.parse(Stated, text)
        box = Shape((SIDE,) * 3, low=-1.001, high=1.001)  # their length is 1
        means = file.read(dict.fromkeys(stated.usual, box))
    record.check_checksum(digest, checksum(text, means))
    others = set().union(*vars(stated).values()) - set(modalities)
    record.check(not others, f"modalities that its recipe has not ({', '.join(sorted(others))})")
    for name, usual in stated.usual.items():
        least, most = usual.levels
        record.check(least <= most, f"levels of {name} from {least:g} to {most:g}")
    return Anatomy(**vars(stated), means=means)


@dataclass(frozen=True)
class Body:
    """A case's body in one source: its box (mean 0, length 1), the logarithm of its extents in mm, and its level.

    grain: the change of these extents by half a voxel; cut: whether both ends of the scan cut the body, along D, H, W.
    """

    box: Box
    size: Float64
    grain: Float64
    level: float
    cut: Bool


def body_of(header: CaseHeader, volume: Volume, spec: IntensityMap) -> Body:
    """The body in one source of a canonical case; volume: that source, whole."""
    statistics = header.statistics[volume.modality]
    coarse, spacing = _coarse(volume)
    body = foreground(coarse)
    ends = box_around(body)
    inside = tuple(slice(*pair) for pair in ends)
    cut = np.asarray(hard_edges(body, spacing.tolist(), HARD).all(axis=1))
    values = np.where(body, coarse.data[0], coarse.data[0].min())
    cropped = spec.scale(statistics).forward(values)[inside].astype(np.float32)
    factors = [SIDE / length for length in cropped.shape]
    stretched = ndimage.zoom(cropped, factors, order=1, mode="nearest", grid_mode=True)
    extents = _extents_mm(body, spacing)
    grain = np.log1p(spacing / 2 / extents)
    return Body(_unit(stretched), np.log(extents), grain, statistics.foreground.at(LEVEL), cut)


def _extents_mm(body: Bool, spacing: Float64) -> Float64:
    return np.ptp(box_around(body), axis=1) * spacing


def check_extent(anatomy: Anatomy, scan: Volume, case: str) -> None:
    """Raise BadInput where a body is so much larger than those of the training that its voxels have another size."""
    usual = anatomy.usual.get(scan.modality)
    if usual is None:
        return
    coarse, spacing = _coarse(scan)
    found = float(_extents_mm(foreground(coarse), spacing).max())
    most = TOO_LARGE * float(np.exp(max(usual.size)))
    if found > most:
        raise BadInput(
            f"{case}: expected a body of at most {most:.0f} mm in {scan.modality}, {TOO_LARGE:g} times the longest of the training, found {found:.0f} mm. Correct the voxel size in its header."
        )


def _coarse(volume: Volume) -> tuple[Volume, Float64]:
    """A volume averaged over blocks of about COARSE_MM, and its spacing; voxels that fill no block are left out."""
    data = volume.data[0]
    spacing = np.array(volume.grid.spacing_mm)
    for axis, length in enumerate(volume.grid.spacing_mm):
        block = min(data.shape[axis], max(1, round(COARSE_MM / length)))
        if block == 1:
            continue
        spacing[axis] *= block
        count = data.shape[axis] // block
        if axis == 0:
            blocks = data[: count * block].reshape(count, block, *data.shape[1:])
            data = in_slabs(lambda slab: slab.mean(1), blocks)
        else:
            data = in_slabs(partial(_block_means, axis=axis, count=count, block=block), data)
    affine = np.diag([*spacing[::-1], 1.0])
    return Volume(data[None], affine, volume.unit, volume.modality), spacing


def _block_means(data: AnyArray, axis: int, count: int, block: int) -> AnyArray:
    """The means of `count` blocks along an axis of [D, H, W]."""
    whole = data.take(range(count * block), axis)
    blocks = (*data.shape[:axis], count, block, *data.shape[axis + 1 :])
    return whole.reshape(blocks).mean(axis + 1)


def _unit(box: Box) -> Box:
    centred = box - box.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-9)


def anatomy_of(
    cohort: "Cohort",
    cases: Sequence[str],
    sources: Mapping[str, IntensityMap],
    targets: Mapping[str, IntensityMap],
) -> Anatomy:
    """The anatomy of a cohort's training cases; at most MOST_CASES of them, evenly chosen."""
    step = -(-len(cases) // MOST_CASES) or 1
    bodies: dict[str, dict[str, list[Body]]] = {name: {} for name in sources}
    airs, beyond = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    qualities = defaultdict[str, list[Quality]](list)
    for case_name in cases[::step]:
        case = cohort.case(case_name)
        header = case.header
        # Read once each, because drawn ones are computed.
        volumes = {name: case.volume(name) for name in {*sources, *targets} & {*header.visible}}
        shown = [name for name in sources if name in volumes]
        for name in shown:
            of_patient = bodies[name].setdefault(header.patient, [])
            of_patient.append(body_of(header, volumes[name], sources[name]))
            if header.units[name] != "HU":
                qualities[name].append(quality_of(volumes[name]))
        for name in targets.keys() & volumes.keys():
            scale = targets[name].scale(header.statistics[name])
            air = np.float32(background_value(volumes[name]))
            airs[name].append(float(scale.forward(air)))
            beyond[name].append(_beyond(volumes[name], [volumes[source] for source in shown]))
    usual = dict[str, Usual]()
    means = dict[str, Box]()
    for name, patients in bodies.items():
        if len(patients) >= FEWEST:
            of_cases = [[body.box for body in several] for several in patients.values()]
            boxes = np.stack([np.mean(several, axis=0) for several in of_cases])
            means[name] = boxes.mean(axis=0).astype(np.float32)
            usual[name] = _usual(boxes, [*patients.values()])
    backgrounds = dict[str, float]()
    for name, values in airs.items():
        scale = cohort.target_scale(targets[name], name, cases)
        backgrounds[name] = float(scale.inverse(np.median(values)))
    return Anatomy(
        usual,
        backgrounds,
        {name: round(float(np.median(shares)), 4) for name, shares in beyond.items()},
        {name: worst_quality(scans) for name, scans in qualities.items()},
        means,
    )


def _beyond(target: Volume, sources: Sequence[Volume]) -> float:
    """The share of a target's body that is a voxel of COARSE_MM or more away from the body that any source shows."""
    bodies = [foreground(_coarse(volume)[0]) for volume in (target, *sources)]
    body, *shown = bodies
    near = dilate(np.logical_or.reduce(shown), 1, (1, 1, 1))
    return float((body & ~near).sum() / max(1, body.sum()))


def _usual(boxes: Box, patients: Sequence[Sequence[Body]]) -> Usual:
    """How each patient compares with the mean of the others, by the least similar of the patient's cases.

    boxes: of each patient [P, SIDE, SIDE, SIDE].
    """
    far, contrasts = list[float](), list[float]()
    leans = list[Float64]()
    for own, cases in zip(boxes, patients):
        others = boxes.sum(axis=0) - own
        correlations = [_correlations(case.box, others) for case in cases]
        far.append(1 - min(of_case[0] for of_case in correlations))
        contrasts.append(1 - min(_inside(case.box, others) for case in cases))
        # the slices of a patient differ, too
        leans += [of_case[0] - of_case[1:] for of_case in correlations]
    count = len(boxes)
    margin = MARGIN if count >= ENOUGH else UNPROVED

    def width(values: Sequence[float], least: float) -> float:
        """How far training patients exceed the median."""
        return float(max(margin * (max(values) - float(np.median(values))), least))

    squares = (count * np.var(leans, axis=0) + LEAN_WORTH * USUAL_LEAN**2) / (count + LEAN_WORTH)
    bodies = [*chain.from_iterable(patients)]
    sizes = np.stack([body.size for body in bodies])
    variance = (len(sizes) * sizes.var(axis=0) + WORTH * USUAL_SPREAD**2) / (len(sizes) + WORTH)
    spread = np.sqrt(variance * (1 + 1 / count))
    deviation = spread + np.mean([body.grain for body in bodies], axis=0)
    levels = [body.level for body in bodies]
    return Usual(
        count,
        float(np.median(far)),
        width(far, LEAST_WIDTH),
        float(np.median(contrasts)),
        width(contrasts, LEAST_CONTRAST),
        tuple(np.mean(leans, axis=0).tolist()),
        tuple(np.sqrt(squares).tolist()),
        tuple(sizes.mean(axis=0).tolist()),
        tuple(deviation.tolist()),
        (min(levels), max(levels)),
    )


def _inside(box: Box, mean: Box) -> float:
    """Correlation with a mean box inside its body."""
    body = _unit(mean) > 0
    return float((_unit(box[body]) * _unit(mean[body])).sum())


def _correlations(box: Box, mean: Box) -> Float64:
    """Correlation of a box with a mean one: as it is, then mirrored by each of FLIPS."""
    mean = _unit(mean)
    return np.array([float((np.flip(box, axes) * mean).sum()) for axes in ((), *FLIPS)])


def check_body(
    anatomy: Anatomy, name: str, body: Body, height: Literal["whole", "any"] = "whole"
) -> list[Message]:
    """Messages where the body in a source is out of the training's distribution; none after too few patients.

    height: "any" where a scan of some slices is as good as one of the whole body.
    """
    messages = check_content(anatomy, name, body)
    usual = anatomy.usual.get(name)
    if usual is None or messages:
        return messages
    mean = anatomy.means[name]
    correlations = _correlations(body.box, mean)
    messages = _check_mirror(name, usual, correlations)
    if not messages:
        messages = _check_correlation(name, usual, correlations[0], _inside(body.box, mean))
        messages = _check_inside(name, usual, body, mean) or messages
    away = np.abs(body.size - usual.size) / usual.deviation
    if height == "any":
        away[0] = 0
    axis = int(away.argmax())
    times = float(away[axis]) / FAR_SIZE
    if times > 1:
        extent, known = np.exp([body.size[axis], usual.size[axis]])
        text = f"{name}: its body is {extent:.0f} mm {('high', 'deep', 'wide')[axis]}, the training bodies {known:.0f} mm on average ({times * FAR_SIZE:.1f} standard deviations)."
        grade = grade_of_distance(times)
        messages.append(
            message("body-size", text, grade=grade, times=times, extent_mm=extent, usual_mm=known)
        )
    least, most = usual.levels
    if least > 0 and not least / OTHER_UNIT < body.level < most * OTHER_UNIT:
        text = f"{name}: the {LEVEL}th percentile of its foreground is {body.level:.3g}, that of the training's scans {least:.3g} to {most:.3g}."
        messages.append(message("other-unit", text, level=body.level, least=least, most=most))
    return messages


def check_content(anatomy: Anatomy, name: str, body: Body) -> list[Message]:
    """A message where a scan shows nothing of the training's, a part inside a body, or the body with other axes.

    What else differs from the training then says nothing about the scan. Axes are exchanged where the body is then more
    similar to the mean box, or is as similar and only then has the training's extents.
    """
    usual = anatomy.usual.get(name)
    if usual is None:
        return []
    is_small = body.size < usual.size + np.log(CROP)
    if (is_small & body.cut).sum() >= 2:
        extent = " x ".join(f"{length:.0f}" for length in np.exp(body.size))
        text = f"{name}: it shows {extent} mm (height, depth, width) inside a body, the training's scans whole bodies: its content and orientation cannot be judged. If it is larger, correct the voxel size in its header."
        grade: Grade = "do not trust" if body.size.max() < np.log(LEAST_CROP_MM) else "caution"
        return [message("crop", text, grade=grade)]
    mean = anatomy.means[name]
    correlations = _correlations(body.box, mean)
    own, largest = float(correlations[0]), correlations.max()
    if largest < UNRELATED and usual.distance(own) > 1:
        text = f"{name}: its correlation with the mean training scan is {own:.2f}, that of the training's own patients {1 - usual.far:.2f} (median): it does not show what the training showed."
        return [message("other-content", text, correlation=own, usual=1 - usual.far)]
    deviations = np.abs(body.size - usual.size) / usual.deviation
    turns = []
    for axes in TURNS:
        turned = _correlations(body.box.transpose(axes), mean).max()
        after = np.abs(body.size[list(axes)] - usual.size) / usual.deviation
        moved = np.flatnonzero(np.array(axes) != range(3))
        fits = after[moved].max() < TURN_FITS and deviations[moved].max() > FAR_SIZE
        if turned > largest + TURN_GAIN or (fits and turned > own):
            turns.append((float(turned), axes, fits))
    best, axes, fits = max(turns, default=(-np.inf, (), False))
    if usual.distance(best) > 1:
        return []
    exchanged = " and ".join(AXES[k] for k in range(3) if axes[k] != k)
    # In the plane of the slices, or where extents are as usual and the gain is small, it may be a false alarm.
    is_clear = axes[0] != 0 and (fits or best > largest + CLEAR_GAIN)
    grade = "do not trust" if is_clear else "caution"
    text = f"{name}: its {exchanged} axes are likely exchanged: its correlation with the mean training scan is {own:.2f}, and {best:.2f} when it is turned so."
    return [message("axes-exchanged", text, grade=grade, correlation=own, turned=best)]


def _check_mirror(name: str, usual: Usual, likeness: Float64) -> list[Message]:
    """A message where a mirror image is in distribution, and more similar to the training's mean than the scan."""
    tells_sides = usual.shows_flip(FLIPS.index(LEFT_RIGHT))  # else their difference is noise
    flips = [
        flip
        for flip, axes in enumerate(FLIPS)
        if usual.shows_flip(flip) and (tells_sides or 2 not in axes)
    ]
    flip = max(flips, key=lambda flip: likeness[flip + 1], default=-1)
    own, mirrored = likeness[0], likeness[flip + 1]
    if mirrored <= own or usual.distance(mirrored) > REFUSED:
        return []
    how = " and ".join(SIDES[axis] for axis in FLIPS[flip])
    text = f"{name}: the scan is likely turned {how}: mirrored so, it resembles the training's scans more (correlation with their mean {mirrored:.2f} instead of {own:.2f})."
    return [message("mirrored", text, correlation=own, mirrored=mirrored)]


def _check_inside(name: str, usual: Usual, body: Body, mean: Box) -> list[Message]:
    """A message where a body that is no thin slab is the opposite of the mean training scan inside its outline."""
    inside = _inside(body.box, mean)
    is_thin = body.size[0] < usual.size[0] + np.log(LEAST_HEIGHT)
    if is_thin or inside >= OPPOSITE or 1 - usual.contrast < SHOWS:
        return []
    text = f"{name}: inside its body, its correlation with the mean training scan is {inside:.2f}, that of the training's own patients {1 - usual.contrast:.2f} (median): its contrast is inverted, or it shows something else."
    return [message("other-content", text, inside=inside, usual=1 - usual.contrast)]


def _check_correlation(name: str, usual: Usual, whole: float, inside: float) -> list[Message]:
    """A message where correlations with the mean training scan, of the whole box and inside its body, are low."""
    of_inside = (1 - inside - usual.contrast) / usual.contrast_width
    times, correlation, known, what = max(
        (usual.distance(whole), whole, usual.far, "the scan"),
        (of_inside, inside, usual.contrast, "the inside of its body"),
    )
    if times <= 1:
        return []
    text = f"{name}: {what} resembles the training's scans less than these resemble each other (correlation with their mean {correlation:.2f}, their own {1 - known:.2f})."
    unrelated = whole < UNRELATED and usual.distance(whole) > 1  # although a mirror image has more
    grade: Grade = "do not trust" if unrelated else grade_of_distance(times)
    return [message("appearance", text, grade=grade, times=times, correlation=correlation)]
