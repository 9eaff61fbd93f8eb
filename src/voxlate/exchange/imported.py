"""Runs of imported weights: their files and header, which do not depend on the format of the import."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from voxlate.base.config import kind_of
from voxlate.base.errors import BadInput
from voxlate.base.files import sha256_of
from voxlate.scans.cases.align import Preparation
from voxlate.scans.images.units import unit_of
from voxlate.training.recipe import Recipe, ranges_of, to_dict
from voxlate.training.run import Run, begin_run, software
from voxlate.training.weights import save_weights


def wrong_weights(sentence: str) -> BadInput:
    """The error of a file that is not as it was published."""
    return BadInput(f"{sentence}. Use the file as it was published.")


def write_imported(
    out: Path,
    weights: Path,
    form: str,
    recipe: Recipe,
    method: nn.Module,
    steps: int,
) -> Run:
    """Write the run of a method whose weights are from a file; form: the file's format."""
    header = _header(recipe, method, steps)
    digest = sha256_of(weights)
    imported = {"imported": {"file": weights.name, "sha256": digest, "format": form}}
    run = begin_run(out, recipe, f"# Imported from {weights.name} (sha256 {digest}).\n", imported)
    save_weights(run.weights(), method, header | imported)
    return run


def _header(recipe: Recipe, method: nn.Module, steps: int) -> dict[str, Any]:
    """The header as of weights.make_header; unknown entries (seconds, training cases) are 0."""
    scales = ranges_of(recipe)
    for name in recipe.data.target:
        if name not in scales:
            raise BadInput(
                f"intensity.{name}: expected a window, found {kind_of(recipe.intensity[name])}: without training cases, only a window defines the meaning of the network's numbers. Set one."
            )
    return {
        "recipe": to_dict(recipe),
        "units": {name: unit_of(name) for name in (*recipe.data.source, *recipe.data.target)},
        "target_scales": {name: scales[name] for name in recipe.data.target},
        "preparation": asdict(Preparation()),
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "steps": steps,
        "seconds": 0.0,
        "training_cases": 0,
        "made_by": software(),
    }
