"""From runs, inputs and options to the model and the cases that `synth` and voxlate.synthesise work on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlate import recipe
from voxlate.synthesis.ensemble import Ensemble, load_members
from voxlate.synthesis.model import Model
from voxlate.synthesis.options import SynthOptions
from voxlate.synthesis.scans import Scans, find_scans, part_of, sort_out


@dataclass(frozen=True)
class Selection:
    """A model with the options' settings, and the cases that it synthesises.

    others: the cases of the other parts, None if the cases are not split into parts. lacking: by case, why it cannot be
    synthesised. complete: cases in which no modality is missing.
    """

    model: Model | Ensemble
    scans: list[Scans]
    others: list[str] | None
    lacking: dict[str, str]
    complete: list[str]


def select(
    runs: Model | Ensemble | Sequence[Path | str], inputs: Sequence[str], options: SynthOptions
) -> Selection:
    """Open the runs, set the options of the sampling, and find the cases; raises BadInput if there are none."""
    if isinstance(runs, Model | Ensemble):
        model = runs
    else:
        model = load_members(runs, options.device, options.allow_code, options.answer)
    if not options.intervals:
        model = model.without_intervals()
    if options.like is not None:
        model = model.with_synthesis_of(recipe.read(options.like))
    model = model.with_options(**options.table)
    missing = None if options.missing is None else list(options.missing)
    scans, lacking, complete = sort_out(
        model,
        find_scans(
            list(inputs),
            model,
            split=options.split,
            missing=missing,
            series=None if options.series is None else list(options.series),
            **options.layout,
        ),
    )
    others = None
    if options.part is not None:
        scans, others = part_of(options.part)(scans)
    return Selection(model, scans, others, lacking, complete)
