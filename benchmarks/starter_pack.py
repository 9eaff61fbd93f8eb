"""Packs finished runs into starters: weights, recipe, anatomy and card."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import tomli_w
import torch

from voxlate.base.errors import BadInput
from voxlate.base.files import file_hash, write_text
from voxlate.training.recipe import to_dict
from voxlate.training.run import Run, weights_of
from voxlate.training.starters.card import MOST_BYTES, Card, Intervals, Measured, read_card
from voxlate.training.starters.names import CARD, PREFIX
from voxlate.training.weights import load_method, read_header, write_weights


def pack(
    run: Path,
    out: Path,
    *,
    trained_on: str,
    accepts: Mapping[str, Sequence[str]],
    stripped: bool,
    spacing_mm: tuple[float, float],
    limits: Sequence[str] = (),
    target_limits: Mapping[str, str] | None = None,
    measured: Sequence[Measured] = (),
) -> Card:
    """Write the starter `out` from a finished run: its weights in float16, recipe, anatomy and card.

    accepts: for each modality, names of scans in cohorts that it stands for. Raises BadInput if the run is not
    finished, has stages whose weights are needed, or is too large to ship.
    """
    method, recipe, header = load_method(run)
    names = [*recipe.data.source, *recipe.data.target]
    if recipe.stages or not recipe.method.makes_targets:
        raise BadInput(
            f"{run}: expected a run of one stage that synthesises images, found '{recipe.title}'. Pack a regression or a completion."
        )
    if unknown := sorted(set(accepts) - set(names)):
        raise BadInput(
            f"accepts: expected modalities of the run ({', '.join(names)}), found '{unknown[0]}'. Change it."
        )
    accepted = {name: [*accepts.get(name, (name,))] for name in dict.fromkeys(names)}
    starter = {"name": out.name, "trained_on": trained_on, "accepts": accepted}
    tensors = {
        name: tensor.half() if tensor.dtype == torch.float32 else tensor
        for name, tensor in method.state_dict().items()
    }
    # The voxels of synthetic heads are no patient's, and their digests would be most of a small header.
    plain = {
        key: value
        for key, value in header.items()
        if key not in ("sha256", "training_voxels", "training_signatures")
    }
    out.mkdir(parents=True, exist_ok=True)
    packed = Run(out)
    write_weights(packed.weights(), tensors, {**plain, "starter": starter})
    write_text(
        packed.recipe, f"# The recipe of {PREFIX}{out.name}.\n{tomli_w.dumps(to_dict(recipe))}"
    )
    for outdated in packed.calibrations:
        outdated.unlink()
    if Run(run).anatomy.is_file():
        shutil.copyfile(Run(run).anatomy, packed.anatomy)
    packed_header = read_header(packed.weights())
    card = Card(
        title=recipe.title,
        trained_on=trained_on,
        source=list(recipe.data.source),
        target=list(recipe.data.target),
        accepts=accepted,
        stripped=stripped,
        spacing_mm=spacing_mm,
        parameters=int(header["parameters"]),
        bytes=packed.weights().stat().st_size,
        cpu_hours=round(header["seconds"] / 3600, 2),
        sha256=packed_header["sha256"],
        run=file_hash(weights_of(run)),
        limits=list(limits),
        target_limits=dict(target_limits or {}),
        measured=list(measured),
    )
    write_card(out, card)
    return card


def with_measured(folder: Path, measured: Sequence[Measured]) -> Card:
    """Write the card of a starter with measured numbers."""
    card = replace(read_card(folder), measured=list(measured))
    write_card(folder, card)
    return card


def with_intervals(folder: Path, intervals: Intervals) -> Card:
    """Write the card of a starter with its intervals, which are not measured yet."""
    card = replace(read_card(folder), intervals=intervals, measured=[])
    write_card(folder, card)
    return card


def write_card(folder: Path, card: Card) -> None:
    """Write the card of a starter; raises BadInput if its weights are too large to ship."""
    if card.bytes > MOST_BYTES:
        raise BadInput(
            f"{folder}: expected weights of at most {MOST_BYTES / 1e6:g} MB for a starter, found {card.bytes / 1e6:.1f} MB. Train a smaller network."
        )
    head = "# Card of a starter; `python benchmarks/starters.py` writes it.\n"
    table = {key: value for key, value in asdict(card).items() if value is not None}
    table["measured"] = [
        {key: value for key, value in asdict(one).items() if value is not None}
        for one in card.measured
    ]
    write_text(folder / CARD, head + tomli_w.dumps(table))
