"""From runs, inputs and options to the model and the cases that `synth` and voxlate.synthesise work on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from voxlate import recipe
from voxlate.cohorts.pseudonyms import Pseudonyms, read_key, without_names
from voxlate.options.synthesise import SynthOptions
from voxlate.synthesis.ensemble import load_members
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import Scans, find_scans, part_of, sort_out


@dataclass(frozen=True)
class Selection:
    """A model with the options' settings, and the cases that it synthesises.

    others: the cases of the other parts, None if the cases are not split into parts; parts: their number. lacking: by case, why it cannot be
    synthesised. complete: cases in which no modality is missing. patients: by case, those of other parts and those that
    cannot be synthesised, too. hidden: where cases have pseudonyms, what stands for each name and path.
    """

    model: Model
    scans: list[Scans]
    others: list[str] | None = None
    lacking: dict[str, str] = field(default_factory=dict)
    complete: list[str] = field(default_factory=list)
    patients: dict[str, str] = field(default_factory=dict)
    parts: int = 0
    hidden: dict[str, str] | None = None


def select(
    runs: Model | Sequence[Path | str], inputs: Sequence[str], options: SynthOptions
) -> Selection:
    """Open the runs, set the options of the sampling, and find the cases; raises BadInput if there are none."""
    if isinstance(runs, Model):
        model = runs
    else:
        model = load_members(runs, options.device, options.allow_code, options.answer)
    if not options.intervals:
        model = model.without_intervals()
    if options.like is not None:
        model = model.with_synthesis_of(recipe.read(options.like, allow_code=options.allow_code))
    model = model.with_options(options.allow_code, **options.keys)
    found = find_scans(
        list(inputs),
        model,
        split=options.split,
        missing=options.missing,
        series=options.series,
        **options.layout,
    )
    if options.missing is not None and model.recipe.task.completes:
        model = model.with_only(options.missing)
    cases = sort_out(model, found)
    patients = {case.case: case.patient for case in found}
    selected = Selection(model, cases.fitting, None, cases.lacking, cases.complete, patients)
    if options.part is not None:
        part = part_of(options.part)
        own = part.choose(selected.scans)
        names = {case.case for case in own}
        others = [case.case for case in selected.scans if case.case not in names]
        selected = replace(selected, scans=own, others=others, parts=part.of)
    if options.pseudonymise is None:
        return selected
    return _use_pseudonyms(selected, read_key(options.pseudonymise))


def _use_pseudonyms(selected: Selection, pseudonyms: Pseudonyms) -> Selection:
    """The same cases under pseudonyms, which their folders and provenance have instead of names and paths."""
    patients = selected.patients
    names = {case: pseudonyms.case(case, patient) for case, patient in patients.items()}
    hidden = dict[str, str]()
    for case, patient in patients.items():
        hidden[case] = names[case]
        if patient:
            hidden[patient] = names[case].partition("_")[0]
    scans = list[Scans]()
    for scan in selected.scans:
        for modality, path in scan.files.items():
            places = (str(path), str(path.absolute()), str(path.resolve()), path.name)
            hidden |= dict.fromkeys(places, modality)
        own = names[scan.case]
        scans.append(replace(scan, case=own, known_as=scan.case, patient=own.partition("_")[0]))
    hidden |= {str(origin): "RUN" for origin in selected.model.origins}
    return replace(
        selected,
        scans=scans,
        others=None if selected.others is None else [names[case] for case in selected.others],
        lacking={names[case]: without_names(why, hidden) for case, why in selected.lacking.items()},
        complete=[names[case] for case in selected.complete],
        hidden=hidden,
    )
