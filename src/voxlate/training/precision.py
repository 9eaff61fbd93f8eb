"""The precision of convolutions and products if a recipe states "auto": bfloat16 where the device multiplies it.

The run of a training stores the choice, so that it is the same on every machine.
"""

import os
from collections.abc import Mapping
from dataclasses import replace

import torch

from voxlate.training.recipe import Recipe, with_tables, with_trainings
from voxlate.training.recipe.training_settings import Precision
from voxlate.training.run import Run

# Limits of oneDNN's instructions below those that multiply bfloat16.
WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


def with_precision(
    recipe: Recipe, device: torch.device, stated: Mapping[str, Precision] | None = None
) -> Recipe:
    """The recipe with a precision instead of each training's "auto".

    stated: precisions by stage of a run that has begun.
    """
    trainings = []
    for stage in recipe.all_stages:
        options = stage.train
        if options.precision == "auto":
            precision = (stated or {}).get(stage.name) or choose(device)[0]
            options = replace(options, precision=precision)
        trainings.append(options)
    return with_trainings(recipe, trainings)


def stage_precisions(run: Run, recipe: Recipe) -> dict[str, Precision]:
    """The precision of each stage of a run of this recipe that has begun; empty if there is no such run."""
    if not run.has_begun or not run.provenance.is_file():
        return {}
    begun = with_tables(recipe, run.origin["recipe"], f"{run.provenance}")
    return {stage.name: stage.train.precision for stage in begun.all_stages}


def of_synthesis(recipe: Recipe, device: torch.device) -> Precision:
    """The precision of a synthesis on a device; "auto" is never less exact than the training."""
    stated = recipe.synth.precision
    if recipe.synth.exact or (stated == "auto" and recipe.train.precision == "float32"):
        return "float32"
    return choose(device)[0] if stated == "auto" else stated


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Convolutions and products in bfloat16 if the recipe states it; all other operations stay in float32.

    precision: "float32" or "bfloat16", which `with_precision` and `of_synthesis` put in place of "auto".
    """
    assert precision != "auto"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def choose(device: torch.device) -> tuple[Precision, str]:
    """The precision of "auto" on a device, and the reason for it."""
    if device.type == "cuda":
        # torch.cuda.is_bf16_supported() checks the current GPU only.
        native = torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        # autocast and kernels of other devices differ by version and were not tested.
        native = device.type == "cpu" and multiplies_bfloat16()
    if native:
        return "bfloat16", f"bfloat16: this {device.type} computes in it"
    return "float32", f"float32: this {device.type} is not known to compute in bfloat16"


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16, and oneDNN may use them.

    With them, a step of a small U-Net takes 0.5 to 0.8 of its time in float32; without them, up to nine times as long.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    has = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return has and limit not in WITHOUT_BFLOAT16
