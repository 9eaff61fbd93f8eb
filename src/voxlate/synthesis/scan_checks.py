"""Checks of a case's scans before synthesis: whether they fit the model's training and are complete."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

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


def check_scans(
    facts: ModelFacts,
    prepared: PreparedCase,
    wholes: Mapping[str, Volume],
    frame: BodyFrame | None,
    known: KnownScans | None,
    targets: Sequence[str],
) -> list[Message]:
    """Messages on guesses and on scans that differ from the training data; raises BadInput for an empty scan.

    wholes: the scans before they were cut to the frame and resampled, which hides noise; targets: that are synthesised.
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
            part = header.origins[name].body_part
            said += _check_scan(facts, wholes[name], name, part, frame, known)
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
    whole: Volume,
    name: str,
    part: str,
    frame: BodyFrame | None,
    known: KnownScans | None,
) -> list[Message]:
    """What one scan says alone, for the kind of head that a model takes, and beside the scans of its training.

    part: of the body, as the header states it.
    """
    unit = whole.unit
    if known is None:  # of a model that does not state how its training looked, the values alone
        values = Fingerprint(value_numbers(whole), Fingerprint.none().picture)
        return exact_messages(values, unit, name)
    scan = fingerprint(whole)
    axes = whole.affine[:3, :3] / whole.grid.spacing_mm[::-1]
    of_grid = {"straight": float(abs(np.linalg.det(axes)))}
    heads = facts.data.heads
    if heads is not None and frame is not None and same_grid(whole.grid, frame.grid):
        of_grid["elsewhere"] = frame.beside(whole)  # where another head may be
    groups = ("scan",) if heads is None else ("array", "scan")
    said = exact_messages(scan, unit, name, groups, **of_grid)
    if heads is not None:
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
