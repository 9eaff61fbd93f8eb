"""The images of a prepared case: sampled a few slices or one patch at a time, from one plane or all three, and in physical units.

The bright end of these is corrected, because predicted means are too dark.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np

from voxlate.base.array_types import AnyArray, Float32
from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Progress, no_report, report_part
from voxlate.base.items import BACKGROUND, stable_id
from voxlate.base.messages import Message, message
from voxlate.base.streams import Stream, Tile
from voxlate.scans.cases.case import (
    CaseHeader,
    PreparedCase,
    lay_out,
    reorder_axes,
    resize_case,
    thin_slices,
)
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import IntensityMap, Scale, intensity_statistics
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.tiling import (
    Blend,
    SlicePlan,
    Tiling,
    Triple,
    Whole,
    fit_to_frame,
    fit_to_mask,
    plan_slices,
    range_of_varied_slices,
    whole_slices,
    zoom,
)
from voxlate.synthesis.calibration import Prediction
from voxlate.synthesis.facts import CUBIC, DataFacts, ModelFacts, SynthFacts
from voxlate.synthesis.inputs import Checked
from voxlate.synthesis.patch import Patch

LEAST_HEIGHT_MM = 60.0  # height of the stack of slices
# Slices that a starter cuts into thinner ones: those of its training were up to 5 mm thick across the plane that is read.
THICKEST_MM = 7.0
# Share of the range where the upper percentile of an image shall lie: that of a scan lies at its end. Predicted means end at 0.88
# to 0.93 for scanners of the training, else at 0.56 to 0.9. T2 of left-out scanners, divided by their own peaks, had less error
# in the mean with 1 than with 0.95 (docs/reference/measured.md).
REACHED = 1.0
# Of the median body of the training: a part of a body may lack its bright tissue.
WHOLE_BODY_SHARE = 0.6
MOST_SLOPE = 4.0  # slope beyond which an image differs too much from a scan to be corrected
NOTED = 1.1  # slope from which a note states the correction


@dataclass
class Calls:
    """The number of evaluations of a network; a batch of four counts four."""

    count: int = 0


@dataclass(frozen=True)
class NoiseOf:
    """The arguments of base.streams.Streams for one sample of some patches."""

    seed: int
    items: Sequence[Sequence[Stream]]
    samples: int
    tiles: Sequence[Tile] | None

    def of(self, part: slice) -> "NoiseOf":
        """The noise of a part of the patches."""
        tiles = None if self.tiles is None else self.tiles[part]
        return replace(self, items=self.items[part], tiles=tiles)


@runtime_checkable  # as checks of options need it
class Network(Protocol):
    """What synthesises the images of patches, on which device and in which precision."""

    @property
    def device(self) -> Any: ...

    @property
    def device_name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def entry(self) -> Mapping[str, Any]:
        """What decides its images beside the weights and the options, for the model's entry in a provenance."""
        ...

    @property
    def software(self) -> Mapping[str, Any]:
        """The entries of a provenance on the software that computes, and the notice that it is no medical device."""
        ...

    def sample(self, patches: Sequence[Patch], noise: NoiseOf) -> Float32:
        """One sample of each patch in network units, [B, T, D, H, W]; the T channels of each kept state follow."""
        ...

    def count(self) -> AbstractContextManager[Calls]:
        """Counts the evaluations of the network inside the block."""
        ...

    def mean(self) -> "tuple[ModelFacts, Network] | None":
        """The model of the mean prediction, around which this one samples; None where there is none."""
        ...

    def with_options(
        self, facts: ModelFacts, allow_code: bool, like: str | None, changes: Mapping[str, Any]
    ) -> "tuple[ModelFacts, Network]":
        """The model with other keys of synth, first those of the recipe `like`, which trains the same method.

        changes: are not None. Raises BadInput for those that it does not take.
        """
        ...


@dataclass(frozen=True)
class SynthesisedImage:
    """An image [D, H, W] on the network's grid in physical units, and the prediction that it is in network units.

    scale: from network units to physical units; peak: the stretch of its values after the network.
    """

    values: np.ndarray
    prediction: Prediction
    scale: Scale
    peak: "Peak | None" = None

    @property
    def physical_sd(self) -> np.ndarray | None:
        """The standard deviation over samples and planes in physical units; None for a single image or plane."""
        if self.prediction.sd is None:
            return None
        return self.prediction.sd * np.float32(self.scale.half)


@dataclass(frozen=True)
class Peak:
    """A stretch of the values above the median of an image's foreground (`middle`) by a factor (`slope`)."""

    middle: float
    slope: float

    def stretch(self, values: np.ndarray) -> np.ndarray:
        """The values [N, ...] after the stretch, in the unit of `middle`."""
        stretched = self.slope * values + (self.middle - self.slope * self.middle)
        return np.where(values > self.middle, stretched, values)

    def stretch_sd(self, sd: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The standard deviations after the stretch of values that had them; both: [N, ...]."""
        return np.where(values > self.middle, self.slope * sd, sd)

    def check(self, name: str) -> list[Message]:
        """A message where the image was changed much."""
        if self.slope < NOTED:
            return []
        text = f"The bright values of the {name} image were too dark and were stretched {self.slope:.2f} times (synth.peaks)."
        if self.slope < MOST_SLOPE:
            return [message("stretched", text, slope=self.slope)]
        text += (
            " They may still be too dark: do not judge how bright fluid, fat or a lesion is in it."
        )
        return [message("stretched", text, grade="caution", slope=self.slope)]


def in_physical_units(
    facts: ModelFacts, name: str, prediction: Prediction, affine: AnyArray
) -> SynthesisedImage:
    """A prediction of a target in physical units, and its values in network units as those are rounded.

    Its bright end is stretched where synth.peaks asks for it; affine: of the network's grid.
    """
    scale = facts.scales[name]
    values = scale.inverse(prediction.values)
    sd = prediction.sd
    peak = None
    if facts.synth.peaks:
        volume = Volume(values[None], affine, facts.units[name], name)
        share = facts.synth.peak_shares.get(name)
        peak = find_peak(volume, facts.intensity[name], scale, facts.training_ml, share)
    if peak is not None:
        if sd is not None:
            half = np.float32(scale.half)
            sd = np.asarray(peak.stretch_sd(sd * half, values) / half, np.float32)
        values = peak.stretch(values)
    prediction = replace(prediction, values=scale.of(values), sd=sd)
    return SynthesisedImage(values, prediction, scale, peak)


def find_peak(
    image: Volume,
    spec: IntensityMap,
    scale: Scale,
    training_ml: float = 0.0,
    share: float | None = None,
) -> Peak | None:
    """The stretch that moves an image's upper percentile close to that of the training scans.

    image: in physical units, on the network's grid; scale: from network units to physical units; training_ml: median
    volume of bodies in training; share: of the range where the percentile shall lie, as the recipe states
    it; it is approached as far as a moderate slope moves it. None where the map has no upper percentile, where it is close already, where no moderate slope moves it there,
    and where the image shows only a part of a body, which may lack the bright tissue.
    """
    if spec.upper_percentile is None:
        return None
    body = foreground(image)
    body_ml = np.count_nonzero(body) * np.prod(image.grid.spacing_mm) / 1000
    if body_ml < WHOLE_BODY_SHARE * training_ml:
        return None
    inside = intensity_statistics(image.data[0], body).foreground
    middle = inside.at(50)
    peak = inside.at(spec.upper_percentile)
    goal = scale.low + (share or REACHED) * (scale.high - scale.low)
    if not middle < peak < goal:
        return None
    slope = (goal - middle) / (peak - middle)
    if slope > MOST_SLOPE:
        return None if share is None else Peak(middle, MOST_SLOPE)
    return Peak(middle, slope)


def predict_case(
    facts: ModelFacts,
    network: Network,
    checked: Checked,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, SynthesisedImage], float]:
    """The images of a case on the network's grid, and the mean number of network evaluations per sample of a slice or patch.

    Those of a voxel: the sum over the planes that are read, whose noise is independent. With synth.sharpness the image lies
    between the mean prediction and a sample.
    """
    sharpness = np.float32(facts.synth.sharpness)
    of_mean = None if sharpness == 1 else network.mean()
    stages = [] if of_mean is None else [of_mean]
    if of_mean is None or sharpness:
        stages.append((facts, network))
    parts_each = thinner_slices(facts, checked.prepared.header)
    case = thin_slices(checked.prepared, parts_each)
    evaluations = 0.0
    made = []
    for place, (own, net) in enumerate(stages, 1):
        told = progress if place == len(stages) else no_report
        planes = planes_read(own, case.header)
        by_plane = []
        for number, data in enumerate(planes):
            key = f"{checked.key} {data.axes}" if number else checked.key
            parts = number, len(planes), checked.prepared.header.shape[0]
            report = partial(report_part, told, *parts) if len(planes) > 1 else told
            drawn, calls = sample_targets(
                replace(own, data=data), net, lay_out(case, data.axes), key, seed, report
            )
            evaluations += calls
            back = partial(reorder_axes, now=data.axes, axes=own.data.axes)
            by_plane.append([prediction.map(back) for prediction in drawn])
        thin = _join_planes(own, by_plane)
        made.append([one.map(partial(_mean_of_parts, parts=parts_each)) for one in thin])
    if len(made) == 2:
        for mean, sample in zip(*made):
            # Freirich et al. 2021
            sample.values[:] = mean.values + sharpness * (sample.values - mean.values)
    by_target = dict(zip(facts.data.target, made[-1]))
    affine = np.array(checked.prepared.header.affine)
    images = {
        name: in_physical_units(facts, name, by_target[name], affine) for name in checked.targets
    }
    return images, evaluations


def _join_planes(
    facts: ModelFacts, by_plane: Sequence[Sequence[Prediction]]
) -> Sequence[Prediction]:
    """The mean of each target's predictions in several planes, and the standard deviation over planes and samples.

    In HU it is half their mean and half their median: a plane that takes air for bone counts a sixth where the two others
    agree.
    """
    if len(by_plane) == 1:
        return by_plane[0]
    joined = []
    for name, predictions in zip(facts.data.target, zip(*by_plane)):
        pool = Moments()
        for one in predictions:
            pool.add(one.values, one.sd, facts.synth.samples)
        mean = pool.mean
        if facts.units[name] == "HU":
            mean = _half_median(mean, [one.values for one in predictions])
        joined.append(Prediction(mean, pool.sd(), predictions[-1].states))
    return joined


def _half_median(mean: Float32, three: Sequence[Float32]) -> Float32:
    """The mean of the mean and the median of three images, of which the median is 3 mean - least - largest."""
    return 2 * mean - (np.minimum.reduce(three) + np.maximum.reduce(three)) / 2


def _mean_of_parts(values: np.ndarray, parts: int) -> np.ndarray:
    """The means [D, H, W] over the thinner slices of each slice [parts D, H, W]."""
    if parts == 1:
        return values
    return np.asarray(values.reshape(-1, parts, *values.shape[1:]).mean(1))


def thinner_slices(facts: ModelFacts, header: CaseHeader) -> int:
    """Into how many thinner slices each slice of a case is cut, so that a starter of three planes reads it in all of them."""
    slice_mm, *pixel_mm = header.spacing_mm
    spacing_mm = facts.preparation.spacing_mm
    if facts.starter is None or not facts.data.planes or spacing_mm is None:
        return 1
    is_thick = CUBIC * max(pixel_mm) < slice_mm <= THICKEST_MM
    return round(slice_mm / spacing_mm[0]) if is_thick and _is_tall(header) else 1


def planes_read(facts: ModelFacts, header: CaseHeader) -> tuple[DataFacts, ...]:
    """The data of each plane in which a case is read: a starter reads very thick slices, and few, in their own plane alone."""
    planes = facts.data.by_plane
    slice_mm, *pixel_mm = header.spacing_mm
    is_thin = slice_mm / thinner_slices(facts, header) <= CUBIC * max(pixel_mm)
    return planes if facts.starter is None or (is_thin and _is_tall(header)) else planes[:1]


def _is_tall(header: CaseHeader) -> bool:
    """Whether the slices of a case are many enough to be cut across."""
    return header.spacing_mm[0] * header.shape[0] >= LEAST_HEIGHT_MM


def sample_targets(
    facts: ModelFacts,
    network: Network,
    prepared: PreparedCase,
    key: str,
    seed: int,
    progress: Progress,
) -> tuple[list[Prediction], float]:
    """The targets of a case in one plane, and evaluations of the network for each sample of a slice or patch.

    The image is the mean over the samples. The seed and the key decide the noise.
    """
    synth = facts.synth
    plan, prepared = _plan_slices(facts, prepared)
    starts = plan.starts()
    levels = len({start[0] for start in starts})  # slices, of which each may have several patches
    # the values of voxels that no patch holds, mean, standard deviation and states
    background = [BACKGROUND] if synth.samples == 1 else [BACKGROUND, 0.0]
    background += [BACKGROUND] * synth.keep_states
    blend = Blend(plan.output_tiling, np.repeat(background, len(facts.data.target)).tolist())

    targets = len(facts.data.target)
    size = 1 if synth.exact else synth.batch
    with network.count() as calls:
        for begin in range(0, len(starts), size):
            chosen = starts[begin : begin + size]
            patches = [
                Patch(prepared, facts.data, facts.intensity, *plan.patch_at(start), None)
                for start in chosen
            ]
            noise = _noise_of(synth, plan, chosen, prepared.header.spacing_mm[0], key, seed)
            moments = Moments()
            for number in range(synth.samples):
                drawn = network.sample(patches, replace(noise, samples=number))
                image = _without_margins(drawn, plan)
                moments.add(image[:, :targets], None, 1)
            parts = [moments.mean, image[:, targets:]]
            if synth.samples > 1:
                parts.insert(1, moments.sd())
            for start, joined in zip(chosen, np.concatenate(parts, 1)):
                blend.add(joined, plan.place(start))
            progress(levels * (begin + len(chosen)) // len(starts), levels)
    evaluations_each = calls.count / max(1, len(starts) * synth.samples)
    return _predictions(prepared.header.case, blend.result(), facts), evaluations_each


def _predictions(case: str, blended: np.ndarray, facts: ModelFacts) -> list[Prediction]:
    """The predictions of all targets, [k T, D, H, W]: mean, standard deviation of several samples, states; raises BadInput for values that are not finite."""
    parts = blended.reshape(-1, len(facts.data.target), *blended.shape[1:])
    for part in parts:
        wrong = np.count_nonzero(~np.isfinite(part))
        if wrong:
            raise BadInput(
                f"{case}: expected an image of finite values, found {wrong} of {part.size} that are not: nothing is written. Choose another sampler or more steps, or train again."
            )
    mean = 0
    sd = min(facts.synth.samples, 2) - 1
    return [
        Prediction(of[mean], of[sd] if sd else None, tuple(of[sd + 1 :]))
        for of in parts.swapaxes(0, 1)
    ]


def _plan_slices(facts: ModelFacts, prepared: PreparedCase) -> tuple[SlicePlan, PreparedCase]:
    """The patches for the network, and the case from which they are read, resized where the options require it."""
    shape = prepared.header.shape
    slices = facts.synth.slices
    if facts.synth.in_windows:
        if slices != Whole():
            raise BadInput(
                f"synth.windows: expected synth.slices of kind 'whole', found {slices}. Drop one of the two."
            )
        # one item, because the denoiser reads windows of its slices at every step
        whole = Tiling(shape, shape)
        return SlicePlan(whole, whole), prepared
    plan = plan_slices(slices, shape, facts.data.patch, facts.synth.overlap)
    if slices.resize_to is not None:
        first, last = range_of_varied_slices(
            [prepared.arrays[name][:] for name in prepared.header.units]
        )
        plan = replace(
            plan, input_tiling=whole_slices((last - first, *slices.resize_to)), first=first
        )
        if last == first:
            return plan, prepared
        prepared = resize_case(prepared, slices.resize_to, (first, last))
    mask = prepared.mask(facts.data.source) if facts.ignores_outside else None
    plan = fit_to_mask(plan, mask, facts.multiple, facts.data.centred)
    if facts.data.frame is not None:
        header = prepared.header
        height, width = (round(facts.data.frame / side) for side in header.spacing_mm[1:])
        least = facts.data.patch[1:]
        plan = fit_to_frame(plan, header.mask_box[1:], (height, width), facts.multiple, least)
    return plan, prepared


def _noise_of(
    synth: SynthFacts,
    plan: SlicePlan,
    starts: Sequence[Triple],
    spacing_mm: float,
    key: str,
    seed: int,
) -> NoiseOf:
    """The noise of the first sample of some patches."""
    items = []
    for start in starts:
        first = plan.place(start)[0]
        slices = range(first, first + plan.input_tiling.patch[0])
        weights = [synth.noise.streams(z, spacing_mm).items() for z in slices]
        # tiles of a slice share its streams
        items.append([{stable_id(key, z, 0, 0): w for z, w in of_slice} for of_slice in weights])
    plane = plan.input_tiling.shape[1:]
    size = plan.input_tiling.patch[1:]
    # whole slices have all of the noise, whatever their margins
    is_whole = all(length >= whole for length, whole in zip(size, plane))
    tiles = None if is_whole else [Tile((y, x), size, plane) for _, y, x in starts]
    return NoiseOf(seed, items, 0, tiles)


def _without_margins(image: Float32, plan: SlicePlan) -> Float32:
    """Images [B, T, D, H, W] without margins, at the volume's resolution; clipped last, because splines overshoot."""
    left, right, top, bottom = plan.margins
    left_out = [(max(0, -top), max(0, -bottom)), (max(0, -left), max(0, -right))]
    if any(map(any, left_out)):
        image = np.pad(image, [(0, 0)] * 3 + left_out, constant_values=BACKGROUND)
    height, width = image.shape[-2:]
    rows = slice(max(0, top), height - max(0, bottom))
    columns = slice(max(0, left), width - max(0, right))
    image = image[..., rows, columns]
    if plan.resized:
        image = zoom(image, plan.output_tiling.patch[1:])
    return np.clip(image, -1, 1)


class Moments:
    """The mean of images, each a mean of samples, and the spread over all samples; one image at a time (Welford 1962).

    All images have the same weight, whatever the number of their samples. With n_i samples of mean m_i and variance v_i of
    image i of M (law of total variance, without bias): (sum (m_i - m)^2 + (1 - 1/n_i) v_i) / (M - sum 1/n_i / M).
    """

    mean: Float32
    squares: Float32

    def __init__(self) -> None:
        self.count = 0
        self.shares = 0.0

    def add(self, image: Float32, sd: Float32 | None, samples: int) -> None:
        """Add an image, and the standard deviation over its samples where there are several."""
        self.count += 1
        self.shares += 1 / samples
        if self.count == 1:
            self.mean = np.zeros(image.shape, np.float32)
            self.squares = np.zeros(image.shape, np.float32)
        step = image - self.mean
        self.mean += step / np.float32(self.count)
        self.squares += step * (image - self.mean)
        if sd is not None:
            self.squares += np.float32(1 - 1 / samples) * np.square(sd)

    @property
    def has_spread(self) -> bool:
        """Whether there are several samples."""
        return self.count > 1 or self.shares < self.count

    def sd(self) -> Float32:
        """The standard deviation over all samples."""
        freedom = np.float32(self.count - self.shares / self.count)
        return np.sqrt(self.squares / freedom)
