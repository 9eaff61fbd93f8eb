"""The fit of a calibration from the data of all cases: the intervals of each target, and the reference patches."""

from collections.abc import Mapping
from dataclasses import dataclass

from voxlate.trust.calibration import Target
from voxlate.trust.calibration_cases import CaseData
from voxlate.trust.collect import Progress, Rules
from voxlate.trust.conformal import Bound
from voxlate.trust.fit import fit
from voxlate.trust.out_of_distribution import Patches, ReferencePatches, fit_references
from voxlate.trust.widths import Widths


@dataclass(frozen=True)
class Goal:
    """The coverage of the intervals, the confidence in it as `bound` counts, and the seed of the fit."""

    coverage: float
    confidence: float
    bound: Bound
    seed: int


@dataclass(frozen=True)
class FittedTargets:
    """The intervals of each target, the networks of those with a learned method, and the reference patches."""

    targets: dict[str, Target]
    widths: dict[str, Widths]
    references: ReferencePatches


def fit_targets(
    data: Mapping[str, CaseData],
    rules: Rules,
    ends: Mapping[str, tuple[float, float]],
    goal: Goal,
    progress: Progress,
) -> FittedTargets:
    """The fit to the data of cases; ends: the limits of intervals by target, in network units."""
    targets = dict[str, Target]()
    widths = dict[str, Widths]()
    for number, name in enumerate(rules):
        progress("fits", number + 1, len(rules))
        voxels = [case.voxels[name] for case in data.values()]
        targets[name], network = fit(
            voxels, rules[name], goal.coverage, goal.confidence, goal.bound, goal.seed, ends[name]
        )
        if network is not None:
            widths[name] = network
    patches = list[Patches]()
    owners = list[str]()
    for case in data.values():
        patches += case.patches
        owners += [case.patient] * len(case.patches)
    return FittedTargets(targets, widths, fit_references(patches, owners, goal.seed))
