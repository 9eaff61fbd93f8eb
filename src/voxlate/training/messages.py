"""What is worth knowing of a recipe and a cohort before the first step: sentences, none of which stops a training."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from voxlate.data.audit import distances, not_examined
from voxlate.data.case import LABEL, PreparedCase
from voxlate.data.intensity_checks import varied_level
from voxlate.data.patches import NO_LABEL, DataSettings, cut_note, padding_note, teaching_cases, usable_cases
from voxlate.data.prepared import SPLITS, Cohort
from voxlate.data.split import FOLDS
from voxlate.errors import first_of
from voxlate.recipe import FullStage, Recipe, Synthesis
from voxlate.training.latents import why_not_kept
from voxlate.training.validate import validation_split


def notes_on(recipe: Recipe, cohort: Cohort) -> list[str]:
    """Sentences on what the stages see that is not as usual, and on how they are validated, each once."""
    said = (one for stage in recipe.all_stages for one in _of_stage(stage, recipe, cohort))
    return [one for one in dict.fromkeys(said) if one]


def fold_note(cohort: Cohort, fold: int) -> str:
    """Which cases a fold holds out."""
    train, val, test = (cohort.splits[name] for name in SPLITS)
    return f"fold {fold} of {FOLDS}: {len(train)} cases train, {len(val)} validate ({first_of(val)}); the test split ({len(test)}) is left alone."


def _of_stage(stage: FullStage, recipe: Recipe, cohort: Cohort) -> Iterator[str]:
    _, lacking = usable_cases(cohort, stage.data, "train")
    if stage.data.apart:
        yield _sides(stage, cohort)
    elif lacking:
        cases = ", ".join(f"{case} (no {', no '.join(names)})" for case, names in lacking.items())
        yield f"left out of training: {cases}."
    yield _misaligned(stage, cohort)
    if validation_split(cohort) == "train":
        yield "no validation cases: training items are looked at instead, and called so in the log."
    teaching = teaching_cases(cohort, stage.data)
    for name in stage.data.target:
        yield varied_level(name, cohort.target_widths(recipe.intensity[name], name, teaching))
    if stage.task.encodes and (reason := why_not_kept(stage, cohort)):
        yield f"latents of stage '{stage.name}' are encoded anew at every step, since there is {reason}."
    of = f"stage '{stage.name}': " if recipe.stages else ""
    yield from (f"{of}{one}" for one in (cut_note(cohort, stage.data), padding_note(cohort, stage.data)) if one)
    yield _start_note(stage, recipe)
    yield _weights_note(stage, cohort, teaching)
    yield _validation_plan(stage, recipe.synth)


def _weights_note(stage: FullStage, cohort: Cohort, teaching: Sequence[str]) -> str:
    """How many training cases have voxels that count more than once; "" where none are asked for."""
    if not stage.data.weigh:
        return ""
    marked = sum(_is_marked(cohort.case(case), stage.data) for case in teaching)
    weights = ", ".join(f"{key} {times:g} times" for key, times in stage.data.weigh.items())
    nothing = ": data.weigh CHANGES NOTHING" if not marked else ""
    loss = " (method.ssim is not weighed)" if getattr(stage.method, "ssim", 0) else ""
    cases = f"{marked} of {len(teaching)} training cases"
    return f"{cases} have voxels that count more in the loss ({weights}){nothing}{loss}."


def _is_marked(case: PreparedCase, data: DataSettings) -> bool:
    nothing = np.full(case.header.shape, NO_LABEL, np.float32)
    maps = [case.arrays[LABEL + name][:] if name in case.header.labels else nothing for name in data.labels]
    weight = data.weight(torch.from_numpy(np.stack(maps).astype(np.float32))[None])
    return weight is not None and bool((weight != 1).any())


def _sides(stage: FullStage, cohort: Cohort) -> str:
    """How many cases have the sources, and how many the targets, where they are taken apart."""
    training = [set(one.present) for one in cohort.cases if one.split == "train"]
    given, made = (sum(set(side) <= there for there in training) for side in (stage.data.source, stage.data.target))
    return f"without pairs: {given} training cases have {', '.join(stage.data.source)}, {made} have {', '.join(stage.data.target)}; validation needs cases with both."


def _misaligned(stage: FullStage, cohort: Cohort) -> str:
    """The pairs that data.most_misaligned_mm leaves out, by name; "" where there are none."""
    most = stage.data.most_misaligned_mm
    if most is None:
        return ""
    every, _ = usable_cases(cohort, replace(stage.data, most_misaligned_mm=None), "train")
    apart = distances(cohort, [*stage.data.source, *stage.data.target])
    far = [f"{case} ({apart[case]:.1f} mm)" for case in every if apart.get(case, 0.0) > most]
    entries = {one.case: one for one in cohort.cases}
    unknown = sum(not_examined(entries[case]) for case in every)
    kept = f" {unknown} cases that prepare did not examine stay in (--audit-cases)." if unknown else ""
    if not far:
        return kept.lstrip()
    return f"left out of training, out of register by more than data.most_misaligned_mm = {most:g}: {len(far)} of {len(every)} cases, {', '.join(far)}.{kept}"


def _start_note(stage: FullStage, recipe: Recipe) -> str:
    """A sentence where a stage starts from the weights of one that sees slices of another size."""
    own = stage.data.patch[1:]
    for other in recipe.all_stages:
        if other.name == stage.start_from and other.data.patch[1:] != own:
            seen = "×".join(map(str, other.data.patch[1:]))
            return f"stage '{stage.name}' sees patches of {own[0]}×{own[1]}, '{other.name}', whose weights it starts from, of {seen}: set data.patch and stages.{other.name}.data.patch alike."
    return ""


def _validation_plan(stage: FullStage, synth: Synthesis) -> str:
    """How the stage is validated, and what share of the training that costs."""
    options = stage.train
    sampling = stage.validation_sampling(synth)
    often = f"every {options.validate_every} steps" if options.validate_every else "at the end"
    drawn = f" drawn by {sampling.sampler} in {sampling.steps} steps" if stage.method.iterates else ""
    share = stage.validation_share(sampling)
    return f"validation of stage '{stage.name}' {often}: {options.validation_items} items{drawn}, {share:.1%} of the network evaluations."
