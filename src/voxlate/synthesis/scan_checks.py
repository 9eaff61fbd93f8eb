"""Checks of a case's scans before synthesis: whether they fit the model's training and are complete."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from voxlate.base.errors import BadInput
from voxlate.base.messages import GRADES, Message, worst_grade
from voxlate.checks.alignment import check_together
from voxlate.checks.check_table import ask
from voxlate.checks.head_checks import black_pools_ml, check_head, sides_of
from voxlate.checks.head_pose import Kind
from voxlate.checks.header_checks import check_guesses
from voxlate.checks.intensity_checks import (
    check_brightness,
    check_floor,
    check_kind,
    check_scales,
)
from voxlate.checks.quality_checks import WholeScan, check_whole
from voxlate.checks.usual_anatomy import Anatomy, Body, body_of, check_body, check_content
from voxlate.scans.cases.case import PreparedCase
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.intervals import fills_crown

# Codes of messages that rest on the size of voxels, and what they say where no file states it.
OF_SIZE = ("body-size", "brain-alone", "crop", "whole-head")
ASSUMED = "This rests on pixels of 1 mm, which are assumed, because the file states no size."
# BodyPartExamined (PS3.16, annex L) of no head, in English; a text with a word of the head may mean one.
ELSEWHERE = re.compile(
    r"^(?!.*(head|brain|skull|neck|c.?spine|whole)).*(?<![a-z])(abdomen|ankle|(fore|upper)?.?arm|breast|chest|elbow|extremity"
    r"|foot|hand|heart|hip|knee|leg|liver|pelvis|prostate|shoulder|[tl]?.?spine|thigh|thorax|wrist)s?(?![a-z])",
    re.I,
)
FLUID_IS_BRIGHT = ("t2", "pd")
LESION = "flair"  # the sides of a healthy brain differ as much in T1 and T2 as beside some gliomas (limits.toml)


def check_scans(
    facts: ModelFacts,
    prepared: PreparedCase,
    wholes: Mapping[str, WholeScan],
    anatomy: Anatomy | None,
    targets: Sequence[str],
) -> list[Message]:
    """Messages on guesses and on scans that differ from the training data; raises BadInput for an empty scan.

    wholes: the scans before resampling, which hides noise; targets: that are synthesised.
    """
    header = prepared.header
    case = header.case
    for name, statistics in header.statistics.items():
        if statistics.blank:
            raise BadInput(
                f"{case}: expected {name} to show something, found every voxel {statistics.all.at(0):g}. Check the scan."
            )
        check_floor(name, facts.intensity[name], header, case)
    bodies = {
        name: body_of(header, prepared.volume(name), facts.intensity[name])
        for name in (header.statistics if anatomy else ())
    }
    of_kind = [
        said
        for name, whole in (wholes.items() if anatomy else ())
        for said in (ask("array", whole.content, name) if facts.data.heads else [])
        or ask("order", whole.stack, name)
    ]
    # a body in pieces has no shape, and the frame holds one of them
    if worst_grade(of_kind) != "do not trust":
        of_kind += _check_synthetic_heads(facts, prepared, targets, anatomy, bodies)
    # A whole head given to a model of stripped brains differs from its training in every orientation, so that comparing
    # the two says nothing about how the head is oriented.
    compared = None if worst_grade(of_kind) == "do not trust" else anatomy
    # a scan of some slices is as good as one of the whole body for a starter of single slices
    of_slices = facts.starter is not None and facts.data.sees_single_slices
    height: Literal["any", "whole"] = "any" if of_slices else "whole"
    of_scans = []
    for name in header.statistics:
        # a range of one or two patients is none; that of few more was not seen to be too narrow
        patients = math.inf if anatomy is None or name in anatomy.usual else 0
        of_scans += _check_scan(facts, prepared, name, patients)
        if compared:
            of_scans += check_body(compared, name, bodies[name], height)
    of_scans += [*check_together(prepared), *_check_spacing(facts, prepared)]
    warnings = [*of_scans, *of_kind]
    if anatomy and worst_grade(warnings) != "do not trust":
        for name, whole in wholes.items():
            warnings += check_whole(whole, anatomy.quality.get(name, {}), name)
    for name in targets:
        warnings += check_scales(name, facts.target_widths.get(name, ()))
    if any(fills_crown(facts, prepared, name) for name in targets):
        warnings += ask("crown", {"apart_mm": header.spacing_mm[0]})
    warnings.sort(key=lambda said: -GRADES.index(said.grade))
    if all(origin.states_spacing for origin in header.origins.values()):
        return warnings
    return [
        replace(said, text=f"{said.text} {ASSUMED}") if said.code in OF_SIZE else said
        for said in warnings
    ]


def _check_scan(
    facts: ModelFacts, prepared: PreparedCase, name: str, patients: float
) -> list[Message]:
    """Messages on the values of one scan of a prepared case."""
    header = prepared.header
    statistics = header.statistics[name]
    origin = header.origins[name]
    warnings = [*check_guesses(name, origin.guesses)]
    warnings += check_kind(name, header.units[name], statistics)
    # trainings on scans state the brightness of theirs
    if facts.data.heads is not None and ELSEWHERE.search(origin.body_part):
        warnings += ask("part", {"elsewhere": 1, "part": origin.body_part}, name)
    return warnings + check_brightness(
        name, statistics, facts.intensity[name], facts.training_ranges, patients
    )


def _check_synthetic_heads(
    facts: ModelFacts,
    prepared: PreparedCase,
    targets: Sequence[str],
    anatomy: Anatomy | None,
    bodies: Mapping[str, Body],
) -> list[Message]:
    """Messages on scans that a network of synthetic heads was not trained for; none for other networks."""
    heads = facts.data.heads
    sources = facts.visible_sources(prepared)
    if heads is None or not sources or 0 < heads.stripped < 1:
        return []
    stripped = heads.stripped == 1
    name = sources[0]
    usual = None if anatomy is None else anatomy.usual.get(name)
    may_be_heads = usual is not None and usual.size[2] < usual.size[1]  # a trunk is wider than deep
    if not stripped and facts.starter is None and not may_be_heads:
        return []
    # the ends of other content are not those of a head
    if anatomy is not None and not stripped and check_content(anatomy, name, bodies[name]):
        return []
    statistics = prepared.header.statistics
    kind: Kind = "brain" if stripped else "head"
    warnings = list[Message]()
    for name in sources:
        warnings += check_head(prepared.volume(name), kind, statistics[name].all)
    if warnings or not stripped:
        return warnings
    made = " and ".join(name for name in targets if name in FLUID_IS_BRIGHT)
    if made and facts.data.lift <= 0:  # which tells fluid from the background
        scales = [facts.intensity[name].scale(statistics[name]) for name in sources]
        volume_ml = black_pools_ml([prepared.volume(name) for name in sources], scales)
        warnings += ask("pools", {"volume_ml": volume_ml, "made": made}, " and ".join(sources))
    if LESION in sources:
        numbers = sides_of(prepared.volume(LESION))
        warnings += ask("sides", {**numbers, "made": " and ".join(targets)}, LESION)
    return warnings


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
