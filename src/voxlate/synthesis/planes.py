"""Sampling of a case from the slices of one plane or of all three."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from voxlate.base.array_types import Bool, Float32
from voxlate.base.executors.case_work import Progress, report_part
from voxlate.scans.cases.case import CaseHeader, lay_out, reorder_axes
from voxlate.synthesis.calibration import Prediction
from voxlate.synthesis.facts import CUBIC, DataFacts, ModelFacts
from voxlate.synthesis.inputs import CaseInputs
from voxlate.synthesis.network import Network
from voxlate.synthesis.sampling import Moments, sample_targets

LEAST_HEIGHT_MM = 60.0  # height of the stack of slices


def sample_planes(
    facts: ModelFacts,
    network: Network,
    inputs: CaseInputs,
    seed: int,
    progress: Progress,
    unused: Bool | None = None,
) -> tuple[list[Prediction], float]:
    """The targets of a case as sample_targets gives them; with data.planes one image from those of all planes.

    It is their mean; in HU half their mean and half their median: a plane that takes air for bone counts a sixth where the
    two others agree. The standard deviation is over planes and samples. The noise of the planes is independent. Evaluations
    of the network are those of a voxel: the sum over the planes.
    """
    planes = planes_read(facts, inputs.prepared.header)
    if len(planes) == 1:
        single = replace(facts, data=planes[0])
        return sample_targets(single, network, inputs, seed, progress, unused)
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
