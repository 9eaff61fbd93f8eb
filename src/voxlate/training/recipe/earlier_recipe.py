"""Recipes that earlier versions wrote into weights, runs and calibrations."""

from collections.abc import Mapping
from typing import Any

from voxlate.base.records import ANY, without_retired

# Keys that this version lacks: the value with which each changes no image (see without_retired).
RETIRED = {
    "data.augment.flip_si": 0.0,
    "data.augment.tilt_degrees": 0.0,
    "data.level": False,
    "data.physics.contrasts.*.transfer": [0.3, 0.3],
    "data.physics.defaced": 0.0,
    "data.physics.motion_mm": 1.5,
    "data.physics.ringing": 0.5,
    "data.physics.target": "centre",
    "intensity.*.clips": ANY,
    "method.lpips": None,
    "net.depth_halvings": 0,
    "net.kernel": "1x3x3",
    "start_window": {},
    "synth.contrast": {},
    "task.detach": False,
    "task.predictor_steady": False,
    "train.paced": ANY,
}


def stored_recipe(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a stored recipe without keys that this version lacks, and that change nothing."""
    kept = without_retired(tables, RETIRED)
    if isinstance(stages := kept.get("stages"), list):
        kept["stages"] = [
            without_retired(stage, RETIRED) if isinstance(stage, dict) else stage
            for stage in stages
        ]
    return kept


def stored_options(synth: Mapping[str, Any]) -> dict[str, Any]:
    """Synthesis options of a stored file, as `stored_recipe` leaves them."""
    options: dict[str, Any] = stored_recipe({"synth": dict(synth)})["synth"]
    return options
