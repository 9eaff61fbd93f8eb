"""Checks of a case's scans before synthesis: whether they fit the model's training and are complete."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from voxlate.base.errors import BadInput
from voxlate.base.messages import Message, worst_grade
from voxlate.checks.case_checks import check_guesses, check_together
from voxlate.checks.check_table import ask, called, exact_messages, kind_messages
from voxlate.checks.fingerprint import Fingerprint, fingerprint, value_numbers
from voxlate.scans.cases.case import PreparedCase
from voxlate.scans.images.frame import BodyFrame
from voxlate.scans.images.grid import Volume, same_grid
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.intensity_checks import check_brightness, check_floor, check_scales
from voxlate.synthesis.intervals import fills_crown
from voxlate.synthesis.known_scans import KnownScans

# Codes of messages that rest on the size of voxels, and what they say where no file states it.
OF_SIZE = ("body-size", "brain-alone", "shape", "whole-head")
ASSUMED = "This rests on pixels of 1 mm, which are assumed, because the file states no size."
# BodyPartExamined (PS3.16, annex L) of no head, in English; a text with a word of the head may mean one.
ELSEWHERE = re.compile(
    r"^(?!.*(head|brain|skull|neck|c.?spine|whole)).*(?<![a-z])(abdomen|ankle|(fore|upper)?.?arm|breast|chest|elbow|extremity"
    r"|foot|hand|heart|hip|knee|leg|liver|pelvis|prostate|shoulder|[tl]?.?spine|thigh|thorax|wrist)s?(?![a-z])",
    re.I,
)


@dataclass(frozen=True, eq=False)
class WholeScan:
    """A whole scan before it is cut and resampled; frame: the box of a head in it, beside which another one may be."""

    volume: Volume
    frame: BodyFrame | None = None

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Its fingerprint."""
        return fingerprint(self.volume)

    @property
    def of_grid(self) -> dict[str, float]:
        """Numbers of its grid and its frame: see limits.toml."""
        axes = self.volume.affine[:3, :3] / self.volume.grid.spacing_mm[::-1]
        numbers = {"straight": float(abs(np.linalg.det(axes)))}
        if self.frame is not None and same_grid(self.volume.grid, self.frame.grid):
            numbers["elsewhere"] = self.frame.beside(self.volume)
        return numbers


def check_scans(
    facts: ModelFacts,
    prepared: PreparedCase,
    wholes: Mapping[str, WholeScan],
    known: KnownScans | None,
    targets: Sequence[str],
) -> list[Message]:
    """Messages on guesses and on scans that differ from the training data; raises BadInput for an empty scan.

    wholes: the scans before resampling, which hides noise; targets: that are synthesised.
    """
    header = prepared.header
    said = list[Message]()
    for name, statistics in header.statistics.items():
        if statistics.blank:
            raise BadInput(
                f"{header.case}: expected {name} to show something, found every voxel {statistics.all.at(0):g}. Check the scan."
            )
        spec = facts.intensity[name]
        check_floor(name, spec, header, header.case)
        said += check_guesses(name, header.origins[name].guesses)
        # a range of one or two patients is none
        patients = math.inf if known is None or name in known.references else 0
        said += check_brightness(name, statistics, spec, facts.training_ranges, patients)
        if name in wholes:
            said += _check_scan(facts, prepared, name, wholes[name], known)
    said += [*check_together(prepared), *_check_spacing(facts, prepared)]
    for name in targets:
        said += check_scales(name, facts.target_widths.get(name, ()))
    if any(fills_crown(facts, prepared, name) for name in targets):
        said += ask("crown", {"apart_mm": header.spacing_mm[0]})
    if all(origin.states_spacing for origin in header.origins.values()):
        return said
    return [
        replace(one, text=f"{one.text} {ASSUMED}") if one.code in OF_SIZE else one for one in said
    ]


def _check_scan(
    facts: ModelFacts,
    prepared: PreparedCase,
    name: str,
    whole: WholeScan,
    known: KnownScans | None,
) -> list[Message]:
    """What one scan says alone, for the kind of head that a model takes, and beside the scans of its training."""
    header = prepared.header
    unit = header.units[name]
    if known is None:  # of a model that does not state how its training looked, the values alone
        values = Fingerprint(value_numbers(whole.volume), Fingerprint.none().picture)
        return exact_messages(values, unit, name)
    scan = whole.fingerprint
    heads = facts.data.heads
    groups = ("scan",) if heads is None else ("array", "scan")
    said = exact_messages(scan, unit, name, groups, **whole.of_grid)
    if heads is not None:
        part = header.origins[name].body_part
        if ELSEWHERE.search(part):
            said += ask("part", {"elsewhere": 1, "part": part}, name)
        if heads.stripped in (0, 1):
            of_kind = kind_messages(scan, "brain" if heads.stripped else "head", name)
            said += of_kind
            if worst_grade(of_kind) == "do not trust":
                return said  # what else is unusual in it follows from that
    reference = known.references.get(name)
    return said if reference is None else said + reference.messages(scan, called(name))


def _check_spacing(facts: ModelFacts, prepared: PreparedCase) -> list[Message]:
    """A message where the size of voxels differs much from the training's, and nothing resamples them."""
    trained = facts.training_spacing_mm
    here = prepared.header.spacing_mm
    if not trained or facts.preparation.changes_voxels:
        return []
    ratios = [max(a / b, b / a) for a, b in zip(trained, here)]
    ratio = max(ratios[1:] if facts.data.sees_single_slices else ratios)
    sides, known = (" x ".join(f"{side:.3g}" for side in spacing) for spacing in (here, trained))
    return ask("voxels", {"ratio": ratio, "sides": sides, "trained": known})
