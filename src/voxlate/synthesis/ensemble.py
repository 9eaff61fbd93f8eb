"""Several runs as one model: the mean of their images, and the standard deviation over all of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Progress, report_part
from voxlate.base.messages import Message, message
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.inputs import Checked, Scan, was_in_training
from voxlate.synthesis.model import COST, Model
from voxlate.synthesis.provenance import Synthesised
from voxlate.synthesis.sampling import Moments

# Entries of the ensemble if all members agree.
SHARED_IF_EQUAL = "network_units", "bound"
# Of the narrower range: those of folds of one cohort, and upper ends that are planned for them, differ by a few percent.
MOST_SHIFT = 0.1
OPTIONS_OF_MEMBERS = ("synth", "axes", "range")


class Ensemble(Model):
    """Models of the same task, whose images are averaged; the spread is over members and samples.

    All members have the same noise. Raises BadInput where they differ in targets, sources or units; they may differ in
    all else, which an ensemble has of its first member. There are no intervals, because calibrations do not hold for
    the mean.
    """

    def __init__(self, members: Sequence[Model]):
        first, *others = members
        for member in others:
            if _task(member) != _task(first):
                raise BadInput(
                    f"{member.origin}: expected a model that makes {_task(first)}, as {first.origin} does, found one that makes {_task(member)}. Leave it out, or run synth for each."
                )
            _check_intensity(member, first)
        super().__init__(**{**vars(first), "models": (*members,), "calibrations": None})

    def with_options(self, *options: Any, **changes: Any) -> "Ensemble":
        """The ensemble with other synthesis options (see Model.with_options)."""
        return Ensemble([member.with_options(*options, **changes) for member in self.members])

    def check(self, scans: Mapping[str, Scan] | Scan, case: str = "case") -> Checked:
        """The scans of a case as the first member would use them, with the messages of all (see Model.check)."""
        checks = tuple(member.check(scans, case) for member in self.members)
        said = dict.fromkeys(message for checked in checks for message in checked.messages)
        return replace(checks[0], messages=tuple(said), members=checks)

    def synthesise_checked(self, checked: Checked, seed: int, progress: Progress) -> Synthesised:
        """The mean of the members' images of a case; the spread is over members and samples.

        Members that trained on the case are left out, unless all of them did (cross-validation).
        """
        pairs = [*zip(self.members, checked.members)]
        kept = [
            number
            for number, (member, own) in enumerate(pairs)
            if not was_in_training(member.facts, own)
        ] or [*range(len(pairs))]
        warnings = dict[Message, None]()
        if len(kept) < len(pairs):
            text = f"Synthesised by {len(kept)} of {len(pairs)} runs: the others trained on it."
            warnings[message("held-out", text, runs=len(kept))] = None
        pools = dict[str, Moments]()
        shown = dict[str, Volume]()
        stated = list[dict[str, Any]]()
        depth, *_ = checked.prepared.header.shape
        for place, number in enumerate(kept):
            member, own = pairs[number]
            report = partial(report_part, progress, place, len(kept), depth)
            made = member.synthesise_checked(own, seed, report)
            for name, image in made.volumes.items():
                known = shown.setdefault(name, image).grid
                if known != image.grid:
                    raise BadInput(
                        f"{checked.prepared.header.case}: expected {name} on the same grid from every member, found {known} and {image.grid}: they were prepared in other ways. Leave one out, or run synth for each."
                    )
                sd = made.std[name].data if name in made.std else None
                pools.setdefault(name, Moments()).add(image.data, sd, member.facts.synth.samples)
            stated.append(made.provenance)
            warnings |= dict.fromkeys(made.warnings)
        first = stated[0]
        provenance = {**first, **self.plan({}, seed), "inputs": first["inputs"]}
        for key in SHARED_IF_EQUAL:
            if any(entry.get(key) != first.get(key) for entry in stated):
                provenance.pop(key, None)
        for key in COST:
            provenance[key] = sum(entry[key] for entry in stated)
        if warnings:
            provenance["warnings"] = [entry.table for entry in warnings]
        for key in "in_training", "anyway":
            if any(entry.get(key) for entry in stated):
                provenance[key] = True
        if len(kept) < len(pairs):
            provenance["held_out_by"] = kept
        volumes, std = {}, {}
        for name, pool in pools.items():
            volumes[name] = replace(shown[name], data=pool.mean)
            if pool.has_spread:
                std[name] = replace(shown[name], data=pool.sd())
        return Synthesised(volumes, std, provenance, self.mark, states=made.states)

    def plan(self, files: Mapping[str, Path | str], seed: int) -> dict[str, Any]:
        """All that decides a case's images; `members` has the entries in which the models may differ."""
        first, *others = self.members
        plans = [first.plan(files, seed), *(member.plan({}, seed) for member in others)]
        joined = "".join(plan["model"]["weights"] for plan in plans)
        weights = hashlib.sha256(joined.encode()).hexdigest()[:16]
        title = f"{plans[0]['model']['title']} (ensemble of {len(plans)})"
        members = [plan["model"] | {key: plan[key] for key in OPTIONS_OF_MEMBERS} for plan in plans]
        return {**plans[0], "model": {"title": title, "weights": weights}, "members": members}


def _task(model: Model) -> str:
    """The targets and sources of a model with their units, in words."""
    data = model.facts.data
    target, source = (
        " + ".join(f"{name} [{model.facts.units.get(name, 'a.u.')}]" for name in names)
        for names in (data.target, data.source)
    )
    return f"what is missing of {target}" if model.facts.completes else f"{target} of {source}"


def _check_intensity(member: Model, first: Model) -> None:
    """Raise BadInput where the windows or ranges of targets differ, because a mean would have neither of them."""
    for name, (low, high) in member.facts.target_scales.items():
        least, most = first.facts.target_scales.get(name, (low, high))
        narrower = min(high - low, most - least)
        if max(abs(low - least), abs(high - most)) > MOST_SHIFT * narrower:
            raise BadInput(
                f"{member.origin}: expected the range of {name} that {first.origin} has ({least:.4g} to {most:.4g}, in the median training case or by its window), found {low:.4g} to {high:.4g}: a mean would be of neither. Leave it out, or run synth for each."
            )
