"""One grey value of soft tissue in the targets of all patients, whose pictures have windows of their own."""

from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from voxlate.base.groups import grouped
from voxlate.scans.cases.case_header import CaseHeader
from voxlate.scans.images.intensity import IntensityMap, typical_scale

TISSUE = (
    25  # percentile of a foreground: soft tissue, below the bone that a window of the brain clips
)
LIMIT = 0.9  # network units: a level at the end of a window leaves no room for what is beyond it


def find_levels(
    training: Sequence[CaseHeader],
    headers: Sequence[CaseHeader],
    names: Sequence[str],
    intensity: Mapping[str, IntensityMap],
) -> dict[str, Tensor]:
    """The level of a case's patient in each target, and that of the median training patient, [2, T] in network units, by case.

    A patient's level is the median over their cases.
    """
    levels = {header.case: list[Tensor]() for header in headers}
    for name in names:
        shown = [header.statistics[name] for header in training if name in header.visible]
        scale = typical_scale(intensity[name], shown)
        common = median(_by_patient(training, name).values())
        own = _by_patient(headers, name)
        for header in headers:
            both = torch.tensor([own.get(header.patient, common), common])
            levels[header.case].append(scale.of(both).clip(-LIMIT, LIMIT))
    return {case: torch.stack(of_targets, dim=1) for case, of_targets in levels.items()}


def _by_patient(headers: Sequence[CaseHeader], name: str) -> dict[str, float]:
    """The level of each patient in a modality."""
    shown = (header for header in headers if name in header.visible)
    values = ((each.patient, each.statistics[name].foreground.at(TISSUE)) for each in shown)
    return {patient: median(several) for patient, several in grouped(values).items()}


def to_one_level(target: Tensor, levels: Tensor) -> Tensor:
    """Targets [B, T, D, H, W] whose levels [B, 2, T] are moved to the common one, linearly on both sides of it."""
    own, common = levels[..., None, None, None].unbind(1)
    below = (target + 1) * ((common + 1) / (own + 1)) - 1
    above = 1 - (1 - target) * ((1 - common) / (1 - own))
    return torch.where(target < own, below, above)
