"""A model on its way to a worker: its weights leave the device, and arrive on the worker's own."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from voxlate.base.devices import find_device
from voxlate.science.methods.method import Method
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.model import Model
from voxlate.training.recipe import from_dict


@dataclass(frozen=True)
class SentModel:
    """A model that a worker receives on the device of this name there (such as auto); here it is the model itself."""

    model: Model
    device: str

    def __reduce__(self) -> tuple[Callable[[bytes, str], "SentModel"], tuple[bytes, str]]:
        """How pickle sends the model: with the precision of this machine, because "auto" may differ elsewhere."""
        members = self.model.members
        written = io.BytesIO()
        torch.save(
            [(member.method.state_dict(), _without_method(member)) for member in members], written
        )
        return _receive, (written.getvalue(), self.device)


def _without_method(model: Model) -> dict[str, Any]:
    """The other fields of a model, with the precision that it has on this machine."""
    synth = replace(model.recipe.synth, precision=model.precision)
    kept = {**vars(model), "recipe": replace(model.recipe, synth=synth)}
    return {name: value for name, value in kept.items() if name not in ("method", "device")}


def _receive(written: bytes, name: str) -> SentModel:
    """The model on a device of this machine."""
    device = find_device(name)
    # The bytes come from the command itself, which has loaded the run with its checks.
    opened = torch.load(io.BytesIO(written), map_location=device, weights_only=False)
    members = tuple(
        Model(method=_build(weights, fields).to(device), device=device, **fields)
        for weights, fields in opened
    )
    return SentModel(members[0] if len(members) == 1 else Ensemble(members), name)


def _build(weights: Mapping[str, Tensor], fields: Mapping[str, Any]) -> Method:
    """The method with these weights; the command was allowed the code outside voxlate that the model names, if any."""
    header = fields["header"]
    method = from_dict(header["recipe"], f"{fields['origin']}", allow_code=True).build()
    method.load_state_dict(weights)
    return method.eval().requires_grad_(False)
