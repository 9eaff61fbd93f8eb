"""One grey value of soft tissue in the targets of all patients, whose pictures have windows of their own."""

from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from voxlate.base.groups import grouped
from voxlate.scans.cases.case import CaseHeader
from voxlate.scans.images.intensity import IntensityMap, typical_scale

# Percentile of a foreground: soft tissue, below the bone that a window of the brain clips.
TISSUE = 25
# In network units: a level at the end of a window would leave no room for what is beyond it.
LIMIT = 0.9


def find_levels(
    training: Sequence[CaseHeader],
    headers: Sequence[CaseHeader],
    targets: Sequence[str],
    intensity: Mapping[str, IntensityMap],
) -> dict[str, Tensor]:
    """The level of each case's patient and that of the median training patient, by case: [2, T] in network units.

    A patient's level is the median over the cases of the patient among `headers`.
    """
    levels = {header.case: list[Tensor]() for header in headers}
    for name in targets:
        statistics = [header.statistics[name] for header in training if name in header.visible]
        scale = typical_scale(intensity[name], statistics)
        common = median(_by_patient(training, name).values())
        own = _by_patient(headers, name)
        for header in headers:
            both = torch.tensor([own.get(header.patient, common), common])
            levels[header.case].append(scale.of(both).clip(-LIMIT, LIMIT))
    return {case: torch.stack(of_targets, dim=1) for case, of_targets in levels.items()}


def _by_patient(headers: Sequence[CaseHeader], name: str) -> dict[str, float]:
    """The level of each patient in a modality, in its unit."""
    having = [header for header in headers if name in header.visible]
    values = ((header.patient, header.statistics[name].foreground.at(TISSUE)) for header in having)
    return {patient: median(several) for patient, several in grouped(values).items()}


def to_one_level(target: Tensor, levels: Tensor) -> Tensor:
    """Targets [B, T, D, H, W] with their own levels moved to the common ones; levels: [B, 2, T].

    Values change linearly on both sides of the level, and both ends of the range stay.
    """
    own, common = levels[..., None, None, None].unbind(1)
    below = (target + 1) * ((common + 1) / (own + 1)) - 1
    above = 1 - (1 - target) * ((1 - common) / (1 - own))
    return torch.where(target < own, below, above)
