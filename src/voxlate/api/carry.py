"""Export of a model that runs without torch."""

from pathlib import Path
from typing import Any

from voxlate.api.entry import command
from voxlate.carry.export import export_model as write_model
from voxlate.carry.model_file import Description
from voxlate.options.check import check_options
from voxlate.options.share import ModelOptions
from voxlate.synthesis.model import load


@command
def export_model(
    run: Path | str, out: Path | str, options: ModelOptions | None = None, **changes: Any
) -> Description:
    """Write a trained model to a new folder that voxlate-run reads, and run its self-test there.

    run: run folder, weights file or starter:NAME.
    out: new folder of the model.
    """
    asked = check_options(ModelOptions, options, changes)
    model = load(run, "cpu", answer=asked.answer)
    model = model.with_options(precision="float32", steps=asked.steps, samples=asked.samples)
    return write_model(model, Path(out), asked.weights, asked.licence)
