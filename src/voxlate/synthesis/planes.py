"""Sampling of a case from the slices of one plane or of all three."""

from dataclasses import replace
from functools import partial

from voxlate.base.arrays import Bool
from voxlate.base.executors.job import Progress
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.cases.layout import lay_out, reorder_axes
from voxlate.synthesis.calibration import Prediction
from voxlate.synthesis.facts import CUBIC, DataFacts, ModelFacts
from voxlate.synthesis.inputs import CaseInputs
from voxlate.synthesis.moments import Moments
from voxlate.synthesis.network import Network
from voxlate.synthesis.progress import report_part
from voxlate.synthesis.sampling import sample_targets

LEAST_HEIGHT_MM = 60.0  # height of the stack of slices


def sample_planes(
    facts: ModelFacts,
    network: Network,
    inputs: CaseInputs,
    seed: int,
    progress: Progress,
    unused: Bool | None = None,
) -> tuple[list[Prediction], float]:
    """The targets of a case as sample_targets gives them; with data.planes the mean of the images from all planes.

    Their standard deviation is then over planes and samples. The noise of the planes is independent. Evaluations of the
    network are those of a voxel: the sum over the planes.
    """
    planes = planes_read(facts, inputs.prepared.header)
    if len(planes) == 1:
        single = replace(facts, data=planes[0])
        return sample_targets(single, network, inputs, seed, progress, unused)
    moments = [Moments() for _ in facts.data.target]
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
        for pool, prediction in zip(moments, predictions):
            back = prediction.map(partial(reorder_axes, now=data.axes, axes=facts.data.axes))
            pool.add(back.values, back.sd, facts.synth.samples)
            pool.states = back.states
    return [Prediction(pool.mean, pool.sd(), pool.states) for pool in moments], evaluations


def planes_read(facts: ModelFacts, header: CaseHeader) -> tuple[DataFacts, ...]:
    """The data of each plane in which a case is read: a starter reads thick slices, and few, in their own plane alone."""
    planes = facts.data.by_plane
    slice_mm, *pixel_mm = header.spacing_mm
    # slices are thin and many enough to be cut across
    is_fine = slice_mm <= CUBIC * max(pixel_mm) and slice_mm * header.shape[0] >= LEAST_HEIGHT_MM
    return planes if facts.starter is None or is_fine else planes[:1]
