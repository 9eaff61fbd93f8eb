"""The images of a prepared case: sampled a few slices or one patch at a time, from one plane or all three, and in physical units.

The bright end of an image is corrected, because predicted means are too dark.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from voxlate.base.array_types import AnyArray, Float32
from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Progress, report_part
from voxlate.base.items import BACKGROUND, stable_id
from voxlate.base.messages import Message, message
from voxlate.base.streams import Tile
from voxlate.scans.cases.case import CaseHeader, PreparedCase, lay_out, reorder_axes, resize_case
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
from voxlate.synthesis.inputs import CaseInputs
from voxlate.synthesis.network import Network, NoiseOf
from voxlate.synthesis.patch import Patch

LEAST_HEIGHT_MM = 60.0  # height of the stack of slices
REACHED = 0.95  # of the range: predicted means end at 0.88 to 0.93 for scanners of the training, else at 0.56 to 0.9
# Of the median body of the training: a part of a body may lack its bright tissue.
WHOLE_BODY_SHARE = 0.6
MOST_SLOPE = 4.0  # slope beyond which an image differs too much from a scan to be corrected
NOTED = 1.1  # slope from which a note states the correction


def sample_planes(
    facts: ModelFacts,
    network: Network,
    inputs: CaseInputs,
    seed: int,
    progress: Progress,
) -> tuple[list[Prediction], float]:
    """The targets of a case as sample_targets gives them; with data.planes one image from those of all planes.

    It is their mean; in HU half their mean and half their median: a plane that takes air for bone counts a sixth where the
    two others agree. The standard deviation is over planes and samples. The noise of the planes is independent. Evaluations
    of the network are those of a voxel: the sum over the planes.
    """
    planes = planes_read(facts, inputs.prepared.header)
    if len(planes) == 1:
        single = replace(facts, data=planes[0])
        return sample_targets(single, network, inputs, seed, progress)
    moments = [Moments() for _ in facts.data.target]
    images: list[list[Float32]] = [[] for _ in moments]
    evaluations = 0.0
    for number, data in enumerate(planes):
        of_plane = replace(
            inputs,
            prepared=lay_out(inputs.prepared, data.axes),
            key=f"{inputs.key} {data.axes}" if number else inputs.key,
        )
        part = partial(report_part, progress, number, len(planes), inputs.prepared.header.shape[0])
        single = replace(facts, data=data)
        predictions, calls = sample_targets(single, network, of_plane, seed, part)
        evaluations += calls
        for name, pool, kept, prediction in zip(facts.data.target, moments, images, predictions):
            back = prediction.map(partial(reorder_axes, now=data.axes, axes=facts.data.axes))
            pool.add(back.values, back.sd, facts.synth.samples)
            pool.states = back.states
            if facts.units[name] == "HU":
                kept.append(back.values)
    return [
        Prediction(_half_median(pool.mean, kept) if kept else pool.mean, pool.sd(), pool.states)
        for pool, kept in zip(moments, images)
    ], evaluations


def _half_median(mean: Float32, three: Sequence[Float32]) -> Float32:
    """The mean of the mean and the median of three images, of which the median is 3 mean - least - largest."""
    return 2 * mean - (np.minimum.reduce(three) + np.maximum.reduce(three)) / 2


def planes_read(facts: ModelFacts, header: CaseHeader) -> tuple[DataFacts, ...]:
    """The data of each plane in which a case is read: a starter reads thick slices, and few, in their own plane alone."""
    planes = facts.data.by_plane
    slice_mm, *pixel_mm = header.spacing_mm
    # slices are thin and many enough to be cut across
    is_fine = slice_mm <= CUBIC * max(pixel_mm) and slice_mm * header.shape[0] >= LEAST_HEIGHT_MM
    return planes if facts.starter is None or is_fine else planes[:1]


def sample_targets(
    facts: ModelFacts,
    network: Network,
    inputs: CaseInputs,
    seed: int,
    progress: Progress,
) -> tuple[list[Prediction], float]:
    """The targets of a case, and evaluations of the network for each sample of a slice or patch.

    The image is the mean over the samples. The seed and the key of the inputs decide the noise.
    """
    synth = facts.synth
    plan, prepared = _plan_slices(facts, inputs.prepared)
    starts = plan.starts()
    levels = len({start[0] for start in starts})  # slices, of which each may have several patches
    # the values of voxels that no patch holds, in the order of _draw_samples
    background = [BACKGROUND] if synth.samples == 1 else [BACKGROUND, 0.0]
    background += [BACKGROUND] * synth.keep_states
    blend = Blend(plan.output_tiling, np.repeat(background, len(facts.data.target)).tolist())

    def finished(begin: int, size: int, samples: int) -> None:
        """Report the items before a batch, and those of the batch by its finished samples."""
        done = begin * synth.samples + size * samples
        progress(levels * done // (len(starts) * synth.samples), levels)

    with network.count() as calls:
        size = 1 if synth.exact else synth.batch
        for begin in range(0, len(starts), size):
            chosen = starts[begin : begin + size]
            patches = [
                Patch(prepared, facts.data, facts.intensity, *plan.patch_at(start), None)
                for start in chosen
            ]
            noise = _noise_of(synth, plan, chosen, prepared.header.spacing_mm[0], inputs.key, seed)
            report = partial(finished, begin, len(chosen))
            images = _draw_samples(network, patches, noise, facts, plan, report)
            for start, image in zip(chosen, images):
                blend.add(image, plan.place(start))
    evaluations_each = calls.count / max(1, len(starts) * synth.samples)
    return _predictions(prepared.header.case, blend.result(), facts), evaluations_each


def _predictions(case: str, blended: np.ndarray, facts: ModelFacts) -> list[Prediction]:
    """The predictions of all targets, [k T, D, H, W] as _draw_samples gives; raises BadInput for values that are not finite."""
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


def _draw_samples(
    network: Network,
    patches: Sequence[Patch],
    noise: NoiseOf,
    facts: ModelFacts,
    plan: SlicePlan,
    report: Callable[[int], None],
) -> Float32:
    """The mean of the samples, of several their standard deviation (ddof = 1), and states of the last: [B, k T, D, H, W].

    report: gets the number of finished samples.
    """
    moments = Moments()
    samples = facts.synth.samples
    for number in range(samples):
        drawn = _without_margins(network.sample(patches, replace(noise, samples=number)), plan)
        image, states = np.split(drawn, [len(facts.data.target)], axis=1)
        moments.add(image, None, 1)
        report(number + 1)
    sd = [moments.sd()] if samples > 1 else []
    return np.concatenate([moments.mean, *sd, states], 1)


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
    states: tuple[Float32, ...] = ()  # of the last image

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

    def stretched(self, peak: "Peak") -> "SynthesisedImage":
        """The image with its values stretched, and its spread with them."""
        values = peak.stretch(self.values)
        sd = self.physical_sd
        if sd is not None:
            wider = peak.stretch_sd(sd, self.values)
            sd = np.asarray(wider / np.float32(self.scale.half), np.float32)
        prediction = replace(self.prediction, values=self.scale.of(values), sd=sd)
        return SynthesisedImage(values, prediction, self.scale, peak)


@dataclass(frozen=True)
class Peak:
    """A stretch of the values above the median of an image's foreground (`middle`) by a factor (`slope`)."""

    middle: float
    slope: float

    def stretch(self, values: np.ndarray) -> np.ndarray:
        """The values [N, ...] after the stretch, in the unit of `middle`."""
        stretched = values.copy()
        offset = self.middle - self.slope * self.middle
        np.copyto(stretched, self.slope * values + offset, where=values > self.middle)
        return stretched

    def stretch_sd(self, sd: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The standard deviations after the stretch of values that had them; both: [N, ...]."""
        stretched = sd.copy()
        np.copyto(stretched, self.slope * sd, where=values > self.middle)
        return stretched

    @property
    def entry(self) -> dict[str, float]:
        """The entry of a provenance."""
        return {"median": round(self.middle, 4), "slope": round(self.slope, 4)}

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
    image = SynthesisedImage(values, replace(prediction, values=scale.of(values)), scale)
    if not facts.synth.peaks:
        return image
    volume = Volume(values[None], affine, facts.units[name], name)
    share = facts.synth.peak_shares.get(name)
    peak = find_peak(volume, facts.intensity[name], scale, facts.training_ml, share)
    return image if peak is None else image.stretched(peak)


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
