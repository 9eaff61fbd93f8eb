"""The facts of a trained model, by its recipe and the header of its weights."""

from collections.abc import Mapping
from typing import Any

from voxlate.base.config import adapter
from voxlate.scans.cases.align import Preparation
from voxlate.synthesis.facts import DataFacts, ModelFacts, SyntheticHeads, SynthFacts
from voxlate.training.batches.patches import DataSettings
from voxlate.training.recipe import Recipe, Synthesis


def model_facts(
    recipe: Recipe,
    header: Mapping[str, Any],
    splits: Mapping[str, str] | None = None,
    of_fold: bool = False,
) -> ModelFacts:
    """What a synthesis needs to know of a model; splits: by case, of the training, which may be of a fold."""
    get, method = header.get, recipe.method
    starter = get("starter")
    accepts = {name: [name] for name in recipe.data.source}
    accepts |= {name: list(names) for name, names in (starter or {}).get("accepts", {}).items()}
    if recipe.data.any_source:
        accepts[recipe.data.source[0]] = list(recipe.data.any_source)
    spacing = get("training_spacing_mm")
    return ModelFacts(
        title=recipe.title,
        weights_hash=header["weights_hash"],
        steps=header["steps"],
        data=data_facts(recipe.data),
        intensity=dict(recipe.intensity),
        synth=synth_facts(recipe.synth),
        options=options_of(recipe.synth),
        completes=recipe.task.completes,
        is_stochastic=method.is_stochastic,
        shows_doubt=method.shows_doubt,
        makes_targets=method.makes_targets,
        trained_steps=list(method.trained_steps),
        needs_mask=recipe.needs_mask,
        ignores_outside=recipe.ignores_outside,
        multiple=recipe.multiple,
        units=dict(header["units"]),
        target_scales=_pairs(header["target_scales"]),
        target_widths=_pairs(get("target_widths", {})),
        preparation=adapter(Preparation).validate_python(get("preparation", {})),
        training_ranges=get("training_ranges", {}),
        training_spacing_mm=None if spacing is None else tuple(spacing),
        training_ml=float(get("training_ml") or 0),
        bound=get("bound", {}),
        accepts=accepts,
        starter=starter and {key: starter[key] for key in ("name", "trained_on")},
        imported="imported" in header,
        was_calibrated=bool(get("adapted", {}).get("calibrated")),
        worse=get("worse", {}),
        seen_voxels=get("training_voxels", []),
        seen_signatures=get("training_signatures", []),
        splits=dict(splits or {}),
        of_fold=of_fold,
    )


def synth_facts(synth: Synthesis) -> SynthFacts:
    """How a recipe samples patches and joins them."""
    return SynthFacts(
        synth.samples,
        synth.sharpness,
        synth.batch,
        synth.exact,
        synth.overlap,
        synth.slices,
        synth.noise,
        synth.peaks,
        dict(synth.peak_shares),
        synth.windows is not None,
        synth.keep_states,
    )


def options_of(synth: Synthesis) -> dict[str, Any]:
    """The keys that decide the images, as plain values; the batch size decides roundings alone."""
    options = adapter(Synthesis).dump_python(synth, mode="json")
    others = ("batch", "precision", "keep_states")
    return {key: value for key, value in options.items() if key not in others}


def data_facts(data: DataSettings) -> DataFacts:
    """Which scans a recipe reads, and how."""
    heads = None
    if data.physics is not None:
        heads = SyntheticHeads(data.physics.stripped, data.physics.sequences)
    return DataFacts(
        list(data.source),
        list(data.target),
        data.patch,
        data.axes,
        [plane.axes for plane in data.by_plane] if data.planes else [],
        data.stack,
        data.steps,
        data.channels,
        data.foreground,
        data.lift,
        data.centred,
        data.allow_missing,
        list(data.any_source),
        heads,
        data.frame,
    )


def _pairs(table: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {name: (low, high) for name, (low, high) in table.items()}
