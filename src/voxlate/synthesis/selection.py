"""From a model, inputs and options to the cases that `synth` and voxlate.synthesise work on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import CaseScans, find_scans
from voxlate.synthesis.synth_options import SynthOptions, part_of


@dataclass(frozen=True)
class Selection:
    """A model with the options' settings, and the cases that it synthesises.

    others: the cases of the other parts, None if the cases are not split into parts; parts: their number. lacking: by case, why it cannot be
    synthesised. complete: cases in which no modality is missing. patients: by case, those of other parts and those that
    cannot be synthesised, too.
    """

    model: Model
    scans: list[CaseScans]
    others: list[str] | None = None
    lacking: dict[str, str] = field(default_factory=dict)
    complete: list[str] = field(default_factory=list)
    patients: dict[str, str] = field(default_factory=dict)
    parts: int = 0


def select(
    model: Model, inputs: Sequence[str], options: SynthOptions, unpack_into: Path | None = None
) -> Selection:
    """Set the options of the sampling, and find the cases (see find_scans); raises BadInput if there are none."""
    if not options.intervals:
        model = model.without_intervals()
    if options.like is not None:
        model = model.like(options.like, options.allow_code)
    model = model.with_options(options.allow_code, **options.keys)
    cases = find_scans(
        list(inputs),
        model,
        split=options.split,
        missing=options.missing,
        series=options.series,
        unpack_into=unpack_into,
        **options.layout,
    )
    if options.missing is not None and model.facts.completes:
        model = model.with_only(options.missing)
    if not cases:
        in_split = "" if options.split is None else f" in the split {options.split}"
        raise BadInput(
            f"INPUT: expected cases{in_split}, found none. Choose another --split or INPUT."
        )
    selected = sort_cases(model, cases)
    if options.part is not None:
        part = part_of(options.part)
        others = [case.case for case in selected.scans]
        del others[part]
        selected = replace(selected, scans=selected.scans[part], others=others, parts=part.step)
    return selected


def sort_cases(model: Model, scans: list[CaseScans]) -> Selection:
    """The cases by what the model can do with them.

    Raises BadInput where no case can be synthesised; for a single case with its own sentence.
    """
    result = Selection(model, [], patients={case.case: case.patient for case in scans})
    for case in scans:
        try:
            model.check_names(case.files, case.case)
            result.scans.append(case)
        except BadInput as error:
            if len(scans) == 1:
                raise
            if model.facts.completes and set(model.facts.data.source) <= set(case.files):
                result.complete.append(case.case)
            else:
                result.lacking[case.case] = str(error)
    if not result.scans:
        lacking = result.lacking
        first = f" ({next(iter(lacking.values()))})" if lacking else ""
        raise BadInput(
            f"INPUT: expected cases to synthesise, found {len(lacking)} that lack scans{first} and {len(result.complete)} that lack none. Check INPUT, --split and --missing."
        )
    return result
