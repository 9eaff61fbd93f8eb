"""Orientation, size and appearance of the bodies in a training, and whether those of a new scan are in distribution.

Each source of a case is averaged to voxels of about 4 mm, cropped to its body and stretched to a small box. Such boxes
are compared with the mean box of the training patients: as they are, and mirrored along each axis.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import ndimage

from voxlate.base.array_types import AnyArray, Bool, Float32, Float64
from voxlate.base.errors import BadInput
from voxlate.base.messages import FEWEST_PATIENTS, Message
from voxlate.base.records import (
    MOST_NUMBER,
    Name,
    NotNegative,
    Number,
    Record,
    Shape,
    checksum,
    write_tensors,
)
from voxlate.checks.check_table import Measured, ask
from voxlate.checks.quality_checks import quality_numbers
from voxlate.checks.thumbnail import MIRRORED, unit
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import IntensityMap
from voxlate.scans.images.mask import (
    background_value,
    box_around,
    dilate,
    foreground,
    hard_edges,
    within,
)
from voxlate.scans.images.matching import block_means

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
# Factor of a distance of the farthest patient; UNPROVED where there are fewer than ENOUGH, who can prove 5 % of false alarms.
MARGIN, UNPROVED, ENOUGH = 1.2, 1.5, 19
# Least values of BodyDistribution.width and BodyDistribution.contrast_width.
LEAST_WIDTH, LEAST_CONTRAST = 0.05, 0.15
# Prior standard deviation of the logarithm of a head's extent, and the number of patients that it counts as.
USUAL_SPREAD, WORTH = 0.05, 3
FAR_SIZE = 3.0  # standard deviations of an extent from which a message is given
# Prior standard deviation of a difference of correlations, and the number of patients that it counts as.
USUAL_LEAN, LEAN_WORTH = 0.02, 3
TELLS = 4.0  # standard deviations by which training patients must differ from their flipped images to detect a flip
LEVEL = 95  # percentile of the foreground
LEFT_RIGHT = (2,)
FLIPS = (LEFT_RIGHT, (1,), (1, 2), (0,), (0, 2), (0, 1), (0, 1, 2))  # the axes that are mirrored
PER_FLIP = Field(min_length=len(FLIPS), max_length=len(FLIPS))
HARD = 0.5  # area at an end that is cut, beside that further in; round ends in these voxels have a third
CROP = 0.6  # of the training's mean extent
LEAST_HEIGHT = 0.25  # of the training's mean height; inside 9 of 134 single slices of heads, the correlation is below 0
# Times the training's longest extent: 490 mm of heads, from which voxels have another size.
TOO_LARGE = 2.3
TURNS = [*permutations(range(3))][1:]  # axes that are exchanged
TURN_GAIN = 0.05  # of the correlation, by which a turned box must be more similar; ordinary scans: at most 0.02
CLEAR_GAIN = 0.15  # 0.06 of a brain in slices of 4 mm that is not turned
# Deviations of extents that fit after a turn, where they are beyond FAR_SIZE as they are.
TURN_FITS = 2.5
TINY = 1e-9
QUALITIES = ("noise", "ghosts", "dark_mm")  # numbers of a scan, of which the worst is known
AXES = ("feet-head", "back-front", "left-right")


@dataclass(frozen=True)
class BodyDistribution:
    """The distribution of the training patients' bodies in one source; a body's box is compared with the mean box.

    far: the median of 1 - correlation of a patient's box with the mean box of the others; width: by how much the
    farthest patient exceeds this median, with a margin. contrast, contrast_width: the same of the voxels inside the body alone, where
    its shape matters little. lean, spread: for each of FLIPS, the correlation of the mean box with a patient's box less
    that with the flipped one; mean and standard deviation over patients. size, deviation: mean and standard deviation
    of the logarithms of the extents in mm along D, H, W. levels: the smallest and the largest LEVEL percentile of the
    patients' foregrounds.
    """

    patients: Annotated[int, Field(ge=FEWEST_PATIENTS, le=MOST_NUMBER)]
    far: Distance
    width: Width
    contrast: Distance
    contrast_width: Width
    lean: Annotated[tuple[Lean, ...], PER_FLIP]
    spread: Annotated[tuple[Width, ...], PER_FLIP]
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
class AnatomyHeader:
    """The header of a file of anatomy."""

    usual: dict[Name, BodyDistribution]
    backgrounds: dict[Name, Number]
    beyond: dict[Name, Number]
    quality: dict[Name, dict[Name, NotNegative]]


@dataclass(frozen=True)
class Anatomy(AnatomyHeader):
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
        stated: AnatomyHeader = record.parse(AnatomyHeader, text)
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
    inside = within(box_around(body))
    cut = np.asarray(hard_edges(body, spacing.tolist(), HARD).all(1))
    values = np.where(body, coarse.data[0], coarse.data[0].min())
    cropped = spec.scale(statistics).forward(values)[inside].astype(np.float32)
    factors = [SIDE / length for length in cropped.shape]
    stretched = ndimage.zoom(cropped, factors, order=1, mode="nearest", grid_mode=True)
    extents = _extents_mm(body, spacing)
    grain = np.log1p(spacing / 2 / extents)
    return Body(unit(stretched), np.log(extents), grain, statistics.foreground.at(LEVEL), cut)


def _extents_mm(body: Bool, spacing: Float64) -> Float64:
    return np.ptp(box_around(body), axis=1) * spacing


def check_extent(anatomy: Anatomy, scan: Volume, case: str) -> None:
    """Raise BadInput where a body is so much larger than those of the training that its voxels have another size."""
    usual = anatomy.usual.get(scan.modality)
    if usual is None:
        return
    coarse, spacing = _coarse(scan)
    longest_mm = float(_extents_mm(foreground(coarse), spacing).max())
    most = TOO_LARGE * float(np.exp(max(usual.size)))
    if longest_mm > most:
        raise BadInput(
            f"{case}: expected a body of at most {most:.0f} mm in {scan.modality}, {TOO_LARGE:g} times the longest of the training, found {longest_mm:.0f} mm. Correct the voxel size in its header."
        )


def _coarse(volume: Volume) -> tuple[Volume, Float64]:
    """A volume averaged over blocks of about COARSE_MM, and its spacing; voxels that fill no block are left out."""
    data = volume.data[0]
    sides_mm = volume.grid.spacing_mm
    blocks = [min(n, max(1, round(COARSE_MM / mm))) for n, mm in zip(data.shape, sides_mm)]
    spacing = np.multiply(sides_mm, blocks)
    affine = np.diag([*spacing[::-1], 1.0])
    return Volume(block_means(data, blocks)[None], affine, volume.unit, volume.modality), spacing


def anatomy_of(
    cohort: "Cohort",
    cases: Sequence[str],
    sources: Mapping[str, IntensityMap],
    targets: Mapping[str, IntensityMap],
) -> Anatomy:
    """The anatomy of a cohort's training cases; at most MOST_CASES of them, evenly chosen."""
    step = -(-len(cases) // MOST_CASES) or 1
    bodies = {name: defaultdict[str, list[Body]](list) for name in sources}
    airs = defaultdict(list)
    beyond = defaultdict(list)
    qualities = defaultdict(list)
    for case_name in cases[::step]:
        case = cohort.case(case_name)
        header = case.header
        # Read once each, because drawn ones are computed.
        volumes = {name: case.volume(name) for name in {*sources, *targets} & {*header.visible}}
        shown = [name for name in sources if name in volumes]
        for name in shown:
            body = body_of(header, volumes[name], sources[name])
            bodies[name][header.patient].append(body)
            if header.units[name] != "HU":
                qualities[name].append(quality_numbers(volumes[name]))
        for name in targets.keys() & volumes.keys():
            scale = targets[name].scale(header.statistics[name])
            airs[name].append(float(scale.forward(np.float32(background_value(volumes[name])))))
            beyond[name].append(_beyond(volumes[name], [volumes[source] for source in shown]))
    usual = {}
    means = {}
    for name, patients in bodies.items():
        if len(patients) >= FEWEST_PATIENTS:
            boxes = np.stack(
                [np.mean([body.box for body in cases], 0) for cases in patients.values()]
            )
            means[name] = boxes.mean(0).astype(np.float32)
            usual[name] = _usual(boxes, [*patients.values()])
    backgrounds = {}
    for name, values in airs.items():
        scale = cohort.target_scale(targets[name], name, cases)
        backgrounds[name] = float(scale.inverse(np.median(values)))
    worst = {
        name: {key: max(scan.get(key, 0.0) for scan in scans) for key in QUALITIES}
        for name, scans in qualities.items()
    }
    return Anatomy(
        usual,
        backgrounds,
        {name: round(float(np.median(shares)), 4) for name, shares in beyond.items()},
        worst,
        means,
    )


def _beyond(target: Volume, sources: Sequence[Volume]) -> float:
    """The share of a target's body that is a voxel of COARSE_MM or more away from the body that any source shows."""
    body, *shown = (foreground(_coarse(volume)[0]) for volume in (target, *sources))
    near = dilate(np.logical_or.reduce(shown), 1, (1, 1, 1))
    return float((body & ~near).sum() / max(1, body.sum()))


def _usual(boxes: Box, patients: Sequence[Sequence[Body]]) -> BodyDistribution:
    """How each patient compares with the mean of the others, by the least similar of the patient's cases.

    boxes: of each patient [P, SIDE, SIDE, SIDE].
    """
    far = []
    contrasts = []
    leans = []
    for own, cases in zip(boxes, patients):
        others = boxes.sum(0) - own
        correlations = [_correlations(case.box, others) for case in cases]
        far.append(1 - min(of_case[0] for of_case in correlations))
        contrasts.append(1 - min(_inside(case.box, others) for case in cases))
        # the slices of a patient differ, too
        leans += [of_case[0] - of_case[1:] for of_case in correlations]
    count = len(boxes)
    margin = margin_of(count)

    def width(values: Sequence[float], least: float) -> float:
        """How far training patients exceed the median."""
        return float(max(margin * (max(values) - float(np.median(values))), least))

    squares = (count * np.var(leans, 0) + LEAN_WORTH * USUAL_LEAN**2) / (count + LEAN_WORTH)
    bodies = [*chain.from_iterable(patients)]
    sizes = np.stack([body.size for body in bodies])
    spread = np.sqrt(variance_of_extents(sizes) * (1 + 1 / count))
    deviation = spread + np.mean([body.grain for body in bodies], 0)
    levels = [body.level for body in bodies]
    return BodyDistribution(
        count,
        float(np.median(far)),
        width(far, LEAST_WIDTH),
        float(np.median(contrasts)),
        width(contrasts, LEAST_CONTRAST),
        tuple(np.mean(leans, 0).tolist()),
        tuple(np.sqrt(squares).tolist()),
        tuple(sizes.mean(0).tolist()),
        tuple(deviation.tolist()),
        (min(levels), max(levels)),
    )


def margin_of(patients: int) -> float:
    """The factor of the largest distance of so many patients, beyond which a scan is unusual."""
    return MARGIN if patients >= ENOUGH else UNPROVED


def variance_of_extents(sizes: AnyArray) -> AnyArray:
    """The variance of the logarithms of extents [N, K]; the fewer the bodies, the nearer it is to that of heads."""
    return (len(sizes) * sizes.var(0) + WORTH * USUAL_SPREAD**2) / (len(sizes) + WORTH)


def _inside(box: Box, mean: Box) -> float:
    """Correlation with a mean box inside its body."""
    body = unit(mean) > 0
    return float((unit(box[body]) * unit(mean[body])).sum())


def _correlations(box: Box, mean: Box) -> Float64:
    """Correlation of a box with a mean one: as it is, then mirrored by each of FLIPS."""
    mean = unit(mean)
    return np.array([float((np.flip(box, axes) * mean).sum()) for axes in ((), *FLIPS)])


def check_body(
    anatomy: Anatomy, name: str, body: Body, height: Literal["whole", "any"] = "whole"
) -> list[Message]:
    """Messages where the body in a source is out of the training's distribution; none after too few patients.

    height: "any" where a scan of some slices is as good as one of the whole body.
    """
    numbers = _body_numbers(anatomy, name, body, height)
    return ask("content", numbers, name) or ask("body", numbers, name)


def check_content(anatomy: Anatomy, name: str, body: Body) -> list[Message]:
    """A message where a scan shows nothing of the training's, a part inside a body, or the body with other axes.

    What else differs from the training then says nothing about the scan.
    """
    return ask("content", _body_numbers(anatomy, name, body, "whole"), name)


def _turns(
    usual: BodyDistribution, body: Body, mean: Box, own: float, largest: float
) -> Iterator[tuple[float, tuple[int, ...], bool]]:
    """The exchanges of axes that make a body more similar: its correlation, the axes, and whether its extents then fit."""
    deviations = np.abs(body.size - usual.size) / usual.deviation
    for axes in TURNS:
        turned = float(_correlations(body.box.transpose(axes), mean).max())
        after = np.abs(body.size[list(axes)] - usual.size) / usual.deviation
        moved = np.flatnonzero(np.array(axes) != range(3))
        fits = bool(after[moved].max() < TURN_FITS and deviations[moved].max() > FAR_SIZE)
        if turned > largest + TURN_GAIN or (fits and turned > own):
            yield turned, axes, fits


def _body_numbers(
    anatomy: Anatomy, name: str, body: Body, height: Literal["whole", "any"]
) -> Measured:
    """See `content` and `body` in limits.toml; none where the model does not know how such scans looked.

    Axes are exchanged where the body is then more similar to the mean box, or is as similar and only then has the
    training's extents.
    """
    if (usual := anatomy.usual.get(name)) is None:
        return {}
    mean = anatomy.means[name]
    correlations = _correlations(body.box, mean)
    own = float(correlations[0])
    largest = float(correlations.max())
    is_small = body.size < usual.size + np.log(CROP)
    turned, axes, fits = max(
        _turns(usual, body, mean, own, largest), default=(-2.0, (0, 1, 2), False)
    )
    # In the plane of the slices, or where extents are as usual and the gain is small, it may be a false alarm.
    is_clear = axes[0] != 0 and (fits or turned > largest + CLEAR_GAIN)
    inside = _inside(body.box, mean)
    apart_inside = (1 - inside - usual.contrast) / usual.contrast_width
    apart, part_correlation, part_usual, part = max(
        (usual.distance(own), own, 1 - usual.far, "the scan"),
        (apart_inside, inside, 1 - usual.contrast, "the inside of its body"),
    )
    size = np.array([usual.size[0] if height == "any" else body.size[0], *body.size[1:]])
    least, most = usual.levels
    numbers: Measured = {
        "cut_axes": int((is_small & body.cut).sum()),
        "longest_mm": float(np.exp(body.size.max())),
        "extent": " x ".join(f"{length:.0f}" for length in np.exp(body.size)),
        "correlation": own,
        "largest": largest,
        "far": usual.distance(own),
        "usual": 1 - usual.far,
        "turned": turned,
        "turned_far": usual.distance(turned),
        "clear": float(is_clear),
        "exchanged": " and ".join(AXES[k] for k in range(3) if axes[k] != k),
        "part": part,
        "apart": apart,
        "part_correlation": part_correlation,
        "part_usual": part_usual,
        "level": body.level,
        "least": least,
        "most": most,
    }
    if least > 0:
        numbers["brighter"] = max(body.level / most, least / max(body.level, TINY))
    if body.size[0] >= usual.size[0] + np.log(LEAST_HEIGHT):  # the inside of thin slabs varies
        numbers |= {"inside": inside, "usual_inside": 1 - usual.contrast}
    return numbers | _size_numbers(usual, size) | _mirror_numbers(usual, correlations)


def check_width(anatomy: Anatomy, name: str, wide_mm: float) -> list[Message]:
    """A message where bodies of this width are out of the training's distribution of a source."""
    if (usual := anatomy.usual.get(name)) is None:
        return []
    return ask("body", _size_numbers(usual, np.array([*usual.size[:2], np.log(wide_mm)])), name)


def _size_numbers(usual: BodyDistribution, size: Float64) -> Measured:
    """The extent that is farthest from the training's; size: the logarithms of all, see `Body`."""
    away = np.abs(size - usual.size) / usual.deviation
    axis = int(away.argmax())
    return {
        "deviations": float(away[axis]),
        "size_mm": float(np.exp(size[axis])),
        "usual_mm": float(np.exp(usual.size[axis])),
        "size_times": float(away[axis]) / FAR_SIZE,
        "side": ("high", "deep", "wide")[axis],
    }


def _mirror_numbers(usual: BodyDistribution, likeness: Float64) -> Measured:
    """The mirror image that is most similar to the training's mean, of those that its patients tell apart."""
    tells_sides = usual.shows_flip(FLIPS.index(LEFT_RIGHT))  # else their difference is noise
    flips = [
        flip
        for flip, axes in enumerate(FLIPS)
        if usual.shows_flip(flip) and (tells_sides or 2 not in axes)
    ]
    if not flips:
        return {}
    flip = max(flips, key=lambda flip: likeness[flip + 1])
    mirrored = float(likeness[flip + 1])
    return {
        "mirrored": mirrored,
        "gain": mirrored - float(likeness[0]),
        "mirrored_far": usual.distance(mirrored),
        "how": " and ".join(MIRRORED[axis] for axis in FLIPS[flip]),
    }
