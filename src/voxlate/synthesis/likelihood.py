"""The likelihood of a cohort's true images under a diffusion model, in bits per dimension."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from voxlate import __version__
from voxlate.config import kind_of
from voxlate.data.batches import batches_of, evenly_spaced, open_cohort, whole_cases
from voxlate.data.prepared import Cohort
from voxlate.dataframe import dataframe
from voxlate.devices import find_device
from voxlate.diffusion.noise import Noise
from voxlate.errors import BadInput
from voxlate.files import write_json
from voxlate.images.tiling import Triple
from voxlate.methods.method import Method
from voxlate.recipe import Recipe
from voxlate.scoring.provenance import is_fold, recorded_splits
from voxlate.synthesis.calls import Calls, PatchProgress, count_calls, no_report
from voxlate.synthesis.inputs import preparation_of
from voxlate.training.run import load_method


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension as a document: JSON for programs, `table` for people."""

    document: Mapping[str, Any]

    def table(self) -> Table:
        return _table(self.document)

    def to_frame(self) -> Any:
        """The cases as a pandas DataFrame."""
        return dataframe(self.document["cases"])

    def write(self, path: Path | str) -> None:
        write_json(path, self.document)


def likelihood(
    run: Path | str,
    cohort: Path | str,
    *,
    split: str = "val",
    slices: int | None = None,
    tolerance: float = 1e-5,
    batch: int | None = None,
    seed: int = 0,
    device: str = "auto",
    allow_code: bool = False,
    progress: PatchProgress = no_report,
) -> Likelihood:
    """Bits per dimension of the true targets of a prepared cohort, given their sources, in float32.

    slices: at most so many a case, evenly spaced; tolerance: of the ODE, relative and absolute; batch: patches at a
    time (memory, not results); seed: of the random probes, one stream a slice. Every modality is hidden in turn
    where the model completes. Raises BadInput where the run is no diffusion model or does not fit the cohort.
    Source: Song et al. 2021, eq. 39.
    """
    _check_options(slices, tolerance)
    method, recipe, header = load_method(Path(run), allow_code)
    if not recipe.method.has_density:
        raise BadInput(
            f"{run}: expected a diffusion model, the only kind with a density, found method.kind "
            f"'{kind_of(recipe.method)}'. Name another run; voxlate evaluate scores any."
        )
    ready = open_cohort(cohort)
    if is_fold(folders := [Path(run), Path(run).parent]):
        ready = ready.with_splits({case: one for one, cases in recorded_splits(folders).items() for case in cases})
    _check_spacing(ready, header)
    # a density is one of images that exist: cases that lack some are left out, and not averaged in
    places = whole_cases(ready, replace(recipe.data, allow_missing=False), split)
    chosen = {case: list(evenly_spaced(starts, slices or len(starts))) for case, starts in places.items()}
    model = method.to(find_device(device))
    estimator = _Estimator(model, recipe, ready, batch or recipe.synth.batch, seed, tolerance)
    stated = {
        "voxlate": __version__,
        "note": "Research software, not a medical device.",
        "run": str(run),
        "trained_steps": header["steps"],
        "cohort": str(cohort),
        "split": split,
        "of": recipe.task.state_name,
        "unit": "bits per dimension, values in network units [-1, 1]; lower is better",
        "pieces": "slices" if recipe.data.patch[0] == 1 else "patches",
        "tolerance": tolerance,
        "seed": seed,
        "divergence": "one random probe a patch (Hutchinson)",
    }
    return Likelihood({**stated, **_estimates(estimator, chosen, header, progress)})


def _estimates(
    estimator: "_Estimator", chosen: Mapping[str, list[Triple]], header: Mapping[str, Any], progress: PatchProgress
) -> dict[str, Any]:
    """The mean over cases of each density, and the cases themselves."""
    recipe = estimator.recipe
    names = recipe.data.target
    # each density by its targets' names, with the channels that are hidden for it
    wanted = {name: [k] for k, name in enumerate(names)} if recipe.task.completes else {", ".join(names): []}
    total, done = len(wanted) * sum(map(len, chosen.values())), 0
    parts: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name, hidden in wanted.items():
        begun, mine = time.monotonic(), []
        with count_calls(estimator.model.net) as calls:
            for case, starts in chosen.items():
                bits: list[float | None] = []
                for values in estimator.bits(case, starts, hidden):
                    bits, done = bits + values, done + len(values)
                    progress(done, total)
                mine.append(_row(estimator.cohort, case, name, bits))
        rows += mine
        in_unit = _in_unit([name] if hidden else names, recipe, header)
        parts[name] = _part(mine, calls, time.monotonic() - begun) | {"in_unit": in_unit}
    return {"targets": parts, "cases": rows}


@dataclass(frozen=True)
class _Estimator:
    """A model with all that its estimates depend on."""

    model: Method
    recipe: Recipe
    cohort: Cohort
    batch: int
    seed: int
    tolerance: float

    def bits(self, case: str, starts: list[Triple], hidden: list[int]) -> Iterator[list[float | None]]:
        """Bits per dimension of the patches of a case, batch by batch; None where no voxel is to be made."""
        device = next(self.model.parameters()).device
        places = [(case, start) for start in starts]
        for batch in batches_of(self.cohort, self.recipe.data, self.recipe.intensity, places, self.batch):
            present = batch.present.clone()
            present[:, hidden] = False
            patches = replace(batch, present=present).to(device)
            with torch.no_grad():
                bits = self.model.bits_per_dim(patches, Noise(self.seed, patches.item), self.tolerance).tolist()
            some = patches.mask.flatten(1).any(1).tolist()
            yield [value if there or not self.recipe.task.inside else None for value, there in zip(bits, some)]


def _row(cohort: Cohort, case: str, name: str, bits: list[float | None]) -> dict[str, Any]:
    """Mean over the patches that have voxels to make."""
    values = [value for value in bits if value is not None]
    own = {"case": case, "patient": cohort.header(case).patient, "target": name}
    return {**own, **_mean_and_sd("bits_per_dim", values), "pieces": len(values)}


def _part(rows: list[dict[str, Any]], calls: Calls, seconds: float) -> dict[str, Any]:
    values = [row["bits_per_dim"] for row in rows if row["bits_per_dim"] is not None]
    patches = sum(row["pieces"] for row in rows)
    return {
        **_mean_and_sd("mean", values),
        "cases": len(values),
        "pieces": patches,
        "network_calls": calls.count / max(patches, 1),
        "seconds_per_piece": seconds / max(patches, 1),
    }


def _mean_and_sd(name: str, values: list[float]) -> dict[str, float | None]:
    """None where there are too few values, or one is infinite."""
    known = all(map(math.isfinite, values))
    return {
        name: float(np.mean(values)) if known and values else None,
        "sd": float(np.std(values, ddof=1)) if known and len(values) > 1 else None,
    }


def _in_unit(names: Sequence[str], recipe: Recipe, header: Mapping[str, Any]) -> dict[str, Any] | None:
    """The bits to add for images in physical units; None for a latent, whose density is not that of the image."""
    if (scale := recipe.task.state_scale) is None:
        return None
    halves = [(high - low) / 2 for low, high in (header["target_scales"][one] for one in names)]
    units = dict.fromkeys(header["units"][one] for one in names)
    return {"unit": ", ".join(units), "adds": float(np.mean([math.log2(half / scale) for half in halves]))}


def _check_options(slices: int | None, tolerance: float) -> None:
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise BadInput(f"--tolerance: expected a number above 0, found {tolerance:g}. Give 1e-5, say.")
    if slices is not None and slices < 1:
        raise BadInput(f"--slices: expected at least 1, found {slices}. Leave it out to take all.")


def _check_spacing(cohort: Cohort, header: Mapping[str, Any]) -> None:
    known, here = preparation_of(header), cohort.preparation
    if known.matrix != here.matrix:
        raise BadInput(
            f"{cohort.folder}: expected the matrix of the training (rows and columns {known.matrix or 'as scanned'}), "
            f"found {here.matrix or 'as scanned'}. Prepare it with the training's --matrix."
        )
    trained, found = known.spacing_mm, here.spacing_mm
    if trained != found:
        raise BadInput(
            f"{cohort.folder}: expected the spacing of the training (z y x {trained or 'as scanned'}), found "
            f"{found or 'as scanned'}. Prepare it with the training's --spacing."
        )


def _table(document: Mapping[str, Any]) -> Table:
    patches = document["pieces"]
    lines = [f"−log2 of the density of {document['of']}, over its voxels; values in network units [-1, 1]."]
    result = Table(title="Bits per dimension (lower is better)", caption_justify="left")
    for heading in ("target", "case", patches, "bits per dimension", f"sd of {patches}"):
        result.add_column(heading, justify="left" if heading in ("target", "case") else "right")
    for name, part in document["targets"].items():
        for row in document["cases"]:
            if row["target"] == name:
                result.add_row(name, row["case"], f"{row['pieces']}", _number(row["bits_per_dim"]), _number(row["sd"]))
        mean = f"{_number(part['mean'])} ± {_number(part['sd'])}"
        result.add_row(name, f"mean ± sd of {part['cases']} cases", f"{part['pieces']}", mean, "", style="bold")
        result.add_section()
        if part["in_unit"]:
            lines.append(
                f"{name}: the image's density in {part['in_unit']['unit']} has {part['in_unit']['adds']:+.3f} bits "
                "a voxel on top (log2 of the factor between the units; that of a typical scan where each has its own)."
            )
        lines.append(
            f"{name}: {part['network_calls']:.0f} network evaluations and {part['seconds_per_piece']:.2g} s each of "
            f"the {patches}, without those for gradients; tolerance {document['tolerance']:g}; "
            f"{document['divergence']}, seed {document['seed']}."
        )
    result.caption = "\n".join(lines)
    return result


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
