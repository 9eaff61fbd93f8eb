"""Checks of a recipe whose settings are valid one by one: whether its stages and tables fit one another."""

from collections.abc import Mapping, Sequence

from voxlate.base.config import kind_of
from voxlate.base.errors import BadInput
from voxlate.base.files import safe_name
from voxlate.training.batches.patches import intensity_key
from voxlate.training.recipe.settings import FullStage, Recipe
from voxlate.training.starters.names import is_starter

HOW_TO_SAMPLE = "voxlate train auto --mode both makes a model with samples"


def check_synthesis(recipe: Recipe) -> None:
    """Raise BadInput where [synth] does not fit the rest: its slices, its noise or its sampler."""
    synth = recipe.synth
    depth = recipe.data.patch[0]
    for key, plain, fits in (
        ("slices", "whole", synth.slices.for_volumes),
        ("noise", "independent", synth.noise.for_volumes),
    ):
        if depth > 1 and not fits:
            raise BadInput(
                f"synth.{key}: expected kind '{plain}' for a model of volumes (patches of {depth} slices), found '{getattr(synth, key).kind}'. Drop synth.{key}."
            )
    for stage in recipe.all_stages:
        stage.method.check_sampler(synth)
        if stage.task.whole_slices and not synth.slices.keeps_middle:
            raise BadInput(
                f"synth.slices: expected whole slices for task.asymmetry, found kind '{synth.slices.kind}', whose middle is not the mid-plane. Drop synth.slices."
            )
    if recipe.data.planes and (synth.windows is not None or synth.slices.resize_to is not None):
        found = "synth.windows" if synth.windows is not None else "synth.slices of kind 'resized'"
        raise BadInput(
            f"{found.split()[0]}: expected none for data.planes, whose slices are read as they are in each plane, found it. Drop it."
        )
    if unknown := sorted(set(synth.peak_shares) - set(recipe.data.target)):
        raise BadInput(
            f"synth.peak_shares: expected targets ({', '.join(recipe.data.target)}), found '{unknown[0]}'. Change it."
        )
    if synth.sharpness < 1 and recipe.task.mean_stage is None:
        raise BadInput(
            f"synth.sharpness: expected samples of a model with a mean prediction, found '{recipe.title}'. Drop it, or --answer mean; {HOW_TO_SAMPLE}."
        )
    if synth.gradient_ratio is not None and recipe.task.mean_stage is None:
        raise BadInput(
            f"synth.gradient_ratio: expected a model with a mean prediction and samples, found '{recipe.title}'. Drop it."
        )
    if synth.sharpness < 1 and synth.samples > 1:
        raise BadInput(
            f"synth.sharpness: expected one sample, because the mean of several is blurred, found samples = {synth.samples}. Set samples to 1, or drop sharpness."
        )
    if synth.windows is not None and (recipe.data.centred or not recipe.method.iterates):
        centred = "data.centred, whose slices are padded to keep their middle"
        at_once = f"method.kind = '{kind_of(recipe.method)}', which makes images at once"
        why = centred if recipe.method.iterates else at_once
        raise BadInput(f"synth.windows: expected none for {why}, found {synth.windows}. Drop it.")
    if synth.slices.crop is not None and (depth > 1 or not recipe.ignores_outside):
        raise BadInput(
            f"synth.slices.crop: expected a model of slices with task.inside and task.strip, in a predictor, too, found {'one without' if depth == 1 else 'one of volumes'}. Drop it."
        )


def check(recipe: Recipe, where: str) -> None:
    """Raise BadInput where the stages and tables of a recipe do not fit one another; where: its name."""
    if missing := sorted(recipe.modalities - set(recipe.intensity)):
        known = {name.lower(): name for name in recipe.intensity}
        near = [known[name.lower()] for name in missing if name.lower() in known]
        add = f"Did you mean {', '.join(near)}? Else add" if near else "Add"
        keys = " ".join(map(intensity_key, missing))
        raise BadInput(
            f"{where}: expected an intensity map for every modality, found none for {', '.join(missing)}. {add} {keys}, or [intensity] in a recipe of your own."
        )
    for stage in recipe.all_stages:
        for name in (stage.name, *stage.data.source, *stage.data.target, *stage.data.labels):
            safe_name(name, where)  # files are called so
    _check_physics(recipe, where)
    earlier: dict[str, FullStage] = {}
    for stage in recipe.all_stages:
        if stage.name in earlier:
            raise BadInput(
                f"{where}: expected stages of different names, found '{stage.name}' twice. Rename one."
            )
        if stage.start_from is not None and not is_starter(stage.start_from):
            _check_start(stage, stage.start_from, earlier, where)
        _check_training(stage, where)
        _check_planes(recipe, stage, where)
        stage.task.check(stage, earlier, where)
        stage.method.check(stage, where)
        stage.method.check_sampler(stage.validation_sampling(recipe.synth))
        earlier[stage.name] = stage
    check_synthesis(recipe)


def _check_planes(recipe: Recipe, stage: FullStage, where: str) -> None:
    """Raise BadInput where a stage cannot learn or synthesise slices of three planes."""
    if not stage.data.planes:
        return
    names = stage.data.modalities
    for wrong, found in (
        (stage.task.encodes, "a latent"),
        (not stage.method.needs_pairs, "a method without pairs"),
        (not stage.method.makes_targets, "an autoencoder"),
        (any(recipe.intensity[name].slicewise for name in names), "an intensity map a slice"),
    ):
        if wrong:
            raise BadInput(
                f"{where}: expected a stage that translates pairs slice by slice for data.planes, found {found} in the stage '{stage.name}'. Drop data.planes."
            )


def _check_training(stage: FullStage, where: str) -> None:
    """Raise BadInput where the critic, the length or the patches of a stage do not fit its method and network."""
    train = stage.train
    named = f"the stage '{stage.name}'"
    for wrong, sentence in (
        (
            stage.opponent and not stage.method.takes_opponent,
            f"expected no [opponent] for method.kind = '{kind_of(stage.method)}', found one. Drop it.",
        ),
        (
            train.steps == 0 and train.epochs is None and train.best is None,
            "expected train.steps from 1, or train.epochs, found 0. Change it.",
        ),
        (
            train.more and train.stop is not None,
            f"expected train.more or train.stop, which ends a training before its last step, found both in {named}. Drop one; a run with train.stop is not trained further.",
        ),
        (
            train.more and train.best is not None,
            f"expected train.more or train.best, which keeps the weights of an earlier step, found both in {named}. Drop one; such a run goes on with voxlate adapt.",
        ),
        (
            train.best is not None and train.stop is not None,
            f"expected train.best or train.stop, which both end a training early, found both in {named}. Drop one.",
        ),
        (
            train.keep_start and (train.best is not None or train.stop is not None),
            f"expected a training of a fixed length for train.keep_start, at whose end the weights are mixed, found train.{'stop' if train.best is None else 'best'}. Drop one of the two.",
        ),
        (
            stage.net.joins_slices and stage.data.patch[0] == 1,
            f"expected patches of several slices in {named}, whose net.volumetric joins slices, found data.patch = {list(stage.data.patch)}. Give it more, such as 16.",
        ),
    ):
        if wrong:
            raise BadInput(f"{where}: {sentence}")


def _check_physics(recipe: Recipe, where: str) -> None:
    """Raise BadInput where data.physics draws what no stage uses, what it cannot scale, or other things in a stage."""
    physics = recipe.data.physics
    for key in ("physics", "any_source"):
        if any(
            getattr(stage.data, key) != getattr(recipe.data, key) for stage in recipe.all_stages
        ):
            raise BadInput(
                f"{where}: expected the same data.{key} in every stage, found another in one. Drop it from the stage."
            )
    if physics is None:
        return
    unused = sorted(set(physics.contrasts) - recipe.modalities)
    if unused:
        raise BadInput(
            f"{where}: expected the contrasts of data.physics to be in data.source or data.target, found {unused[0]} in neither. Add it there, or drop data.physics.contrasts.{unused[0]}."
        )
    if recipe.data.slices is not None:
        raise BadInput(
            f"{where}: expected no data.slices with data.physics, whose images exist only when they are read, found a filter. Drop it."
        )
    physics.check(recipe.targets, recipe.intensity)


def _check_start(
    stage: FullStage, start: str, earlier: Mapping[str, FullStage], where: str
) -> None:
    if start not in earlier:
        raise BadInput(
            f"{where}: expected start_from to name an earlier stage ({', '.join(earlier) or 'there is none'}), found '{start}'. Change it."
        )
    first = earlier[start]
    check_order(
        stage, {"source": first.data.source, "target": first.data.target}, f"'{start}'", where
    )
    if other := set(first.task.needs) - set(stage.task.needs):
        raise BadInput(
            f"{where}: expected the stage '{stage.name}' to build on '{min(other)}' as '{start}' does, whose weights it starts from, found {', '.join(stage.task.needs) or 'none'}. Make them equal."
        )


def check_order(
    stage: FullStage, first: Mapping[str, Sequence[str]], whose: str, where: object
) -> None:
    """Raise BadInput where weights that know modalities by their places would see them in others.

    first: "source" and "target" of the training that the weights are from; whose: its name.
    """
    for key in ("source", "target"):
        ours = getattr(stage.data, key)
        theirs = first[key]
        shared = [name for name in theirs if name in ours]
        if shared != [name for name in ours if name in theirs]:
            raise BadInput(
                f"{where}: expected data.{key} of the stage '{stage.name}' in the order of {whose}, whose weights it starts from ({', '.join(theirs)}), found {', '.join(ours)}. Reorder it."
            )
