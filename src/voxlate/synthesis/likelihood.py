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
from voxlate.batches.batches import batches_of, space_evenly, whole_cases
from voxlate.cases.prepared import Cohort, open_cohort
from voxlate.diffusion.noise import Noise
from voxlate.images.tiling import Triple
from voxlate.methods.method import Method
from voxlate.options.evaluate import LikelihoodOptions
from voxlate.options.option import merge
from voxlate.recipe import Recipe
from voxlate.scoring.provenance import is_fold, splits_of_training
from voxlate.synthesis.inputs import preparation_of
from voxlate.synthesis.progress import Calls, PatchProgress, count_calls, no_report
from voxlate.system.config import kind_of
from voxlate.system.dataframe import dataframe
from voxlate.system.devices import find_device
from voxlate.system.errors import BadInput
from voxlate.system.files import write_json
from voxlate.training.starter import run_folder
from voxlate.training.weights import load_method


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension as a document, which is written as JSON, and as a table."""

    document: Mapping[str, Any]

    def table(self) -> Table:
        """A line for each case, and the mean of each density."""
        return _table(self.document)

    def to_frame(self) -> Any:
        """The cases as a pandas DataFrame."""
        return dataframe(self.document["cases"])

    def write(self, path: Path | str) -> None:
        """Write the document as JSON."""
        write_json(path, self.document)


def likelihood(
    run: Path | str,
    cohort: Path | str,
    options: LikelihoodOptions | None = None,
    *,
    progress: PatchProgress = no_report,
    **changes: Any,
) -> Likelihood:
    """Bits per dimension of the true targets of a prepared cohort, given their sources, in float32.

    changes: fields of the options. slices: largest number in a case, evenly spaced; tolerance: of the ODE, relative and absolute; batch: patches that
    are computed together (decides memory, not results); seed: of the random probes, one stream for each slice. Where
    the model completes, every modality is hidden in turn. Raises BadInput where the run is no diffusion model or does
    not fit the cohort.
    Source: Song et al. 2021, eq. 39.
    """
    asked = merge(LikelihoodOptions, options, changes)
    _check_options(asked.slices, asked.tolerance)
    run = run_folder(run)
    method, recipe, header = load_method(run, asked.allow_code)
    if not recipe.method.has_density:
        raise BadInput(
            f"{run}: expected a diffusion model, the only kind with a density, found method.kind '{kind_of(recipe.method)}'. Name another run; voxlate evaluate scores any."
        )
    prepared = recipe.with_maps_of(open_cohort(cohort))
    folders = [run, run.parent]
    if is_fold(folders):
        splits = dict[str, str]()
        for name, cases in splits_of_training(folders).items():
            splits |= dict.fromkeys(cases, name)
        prepared = prepared.with_splits(splits)
    _check_spacing(prepared, header)
    # only existing images have a density, so that incomplete cases are excluded
    places = whole_cases(prepared, replace(recipe.data, allow_missing=False), asked.split)
    chosen = {
        case: list(space_evenly(starts, asked.slices or len(starts)))
        for case, starts in places.items()
    }
    model = method.to(find_device(asked.device))
    estimator = _Estimator(model, recipe, prepared, asked)
    stated = {
        "voxlate": __version__,
        "note": "Research software, not a medical device.",
        "run": str(run),
        "trained_steps": header["steps"],
        "cohort": str(cohort),
        "split": asked.split,
        "of": recipe.task.state_name,
        "unit": "bits per dimension, values in network units [-1, 1]; lower is better",
        "pieces": "slices" if recipe.data.patch[0] == 1 else "patches",
        "tolerance": asked.tolerance,
        "seed": asked.seed,
        "divergence": "one random probe a patch (Hutchinson)",
    }
    return Likelihood({**stated, **_estimates(estimator, chosen, header, progress)})


def _estimates(
    estimator: "_Estimator",
    chosen: Mapping[str, list[Triple]],
    header: Mapping[str, Any],
    progress: PatchProgress,
) -> dict[str, Any]:
    """The mean of each density over cases, and a row for each case."""
    recipe = estimator.recipe
    names = recipe.data.target
    # the hidden channels of each density, by the names of its targets
    hidden_channels: dict[str, list[int]] = {", ".join(names): []}
    if recipe.task.completes:
        hidden_channels = {name: [k] for k, name in enumerate(names)}
    total = len(hidden_channels) * sum(map(len, chosen.values()))
    done = 0
    means: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name, hidden in hidden_channels.items():
        begun = time.monotonic()
        own = []
        with count_calls(estimator.model.net) as calls:
            for case, starts in chosen.items():
                bits: list[float | None] = []
                for values in estimator.bits(case, starts, hidden):
                    bits += values
                    done += len(values)
                    progress(done, total)
                own.append(_row(estimator.cohort, case, name, bits))
        rows += own
        in_unit = _in_unit([name] if hidden else names, recipe, header)
        means[name] = _mean(own, calls, time.monotonic() - begun) | {"in_unit": in_unit}
    return {"targets": means, "cases": rows}


@dataclass(frozen=True)
class _Estimator:
    """A model, a cohort and the options that decide the estimates."""

    model: Method
    recipe: Recipe
    cohort: Cohort
    asked: LikelihoodOptions

    def bits(
        self,
        case: str,
        starts: list[Triple],
        hidden: list[int],
    ) -> Iterator[list[float | None]]:
        """Bits per dimension of the patches of a case, batch by batch; None for patches without a voxel to synthesise."""
        device = next(self.model.parameters()).device
        places = [(case, start) for start in starts]
        size = self.asked.batch or self.recipe.synth.batch
        for batch in batches_of(self.cohort, self.recipe.data, self.recipe.intensity, places, size):
            present = batch.present.clone()
            present[:, hidden] = False
            patches = replace(batch, present=present).to(device)
            with torch.no_grad():
                bits = self.model.without_opponent.bits_per_dim(
                    patches, Noise(self.asked.seed, patches.item), self.asked.tolerance
                ).tolist()
            if self.recipe.task.inside:
                has_voxels = patches.mask.flatten(1).any(1).tolist()
                bits = [value if inside else None for value, inside in zip(bits, has_voxels)]
            yield bits


def _row(
    cohort: Cohort,
    case: str,
    name: str,
    bits: list[float | None],
) -> dict[str, Any]:
    """The mean over the patches with voxels to synthesise."""
    values = [value for value in bits if value is not None]
    own = {"case": case, "patient": cohort.header(case).patient, "target": name}
    return {**own, **_mean_and_sd("bits_per_dim", values), "pieces": len(values)}


def _mean(
    rows: list[dict[str, Any]],
    calls: Calls,
    seconds: float,
) -> dict[str, Any]:
    """The mean over cases, and the cost of each patch."""
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
    """Mean and standard deviation by name; None for too few values, or an infinite one."""
    known = all(map(math.isfinite, values))
    return {
        name: float(np.mean(values)) if known and values else None,
        "sd": float(np.std(values, ddof=1)) if known and len(values) > 1 else None,
    }


def _in_unit(
    names: Sequence[str],
    recipe: Recipe,
    header: Mapping[str, Any],
) -> dict[str, Any] | None:
    """The bits to add for images in physical units; None for a latent, whose density is not that of the image."""
    scale = recipe.task.state_scale
    if scale is None:
        return None
    ends = [header["target_scales"][name] for name in names]
    halves = [(high - low) / 2 for low, high in ends]
    units = dict.fromkeys(header["units"][name] for name in names)
    bits = [math.log2(half / scale) for half in halves]
    return {"unit": ", ".join(units), "adds": float(np.mean(bits))}


def _check_options(slices: int | None, tolerance: float) -> None:
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise BadInput(
            f"--tolerance: expected a number above 0, found {tolerance:g}. Give 1e-5, say."
        )
    if slices is not None and slices < 1:
        raise BadInput(f"--slices: expected at least 1, found {slices}. Leave it out to take all.")


def _check_spacing(cohort: Cohort, header: Mapping[str, Any]) -> None:
    trained = preparation_of(header)
    here = cohort.preparation
    if trained.matrix != here.matrix:
        raise BadInput(
            f"{cohort.folder}: expected the matrix of the training (rows and columns {trained.matrix or 'as scanned'}), found {here.matrix or 'as scanned'}. Prepare it with the training's --matrix."
        )
    if trained.spacing_mm != here.spacing_mm:
        raise BadInput(
            f"{cohort.folder}: expected the spacing of the training (z y x {trained.spacing_mm or 'as scanned'}), found {here.spacing_mm or 'as scanned'}. Prepare it with the training's --spacing."
        )


def _table(document: Mapping[str, Any]) -> Table:
    patches = document["pieces"]
    lines = [
        f"−log2 of the density of {document['of']}, over its voxels; values in network units [-1, 1]."
    ]
    result = Table(title="Bits per dimension (lower is better)", caption_justify="left")
    for heading in ("target", "case", patches, "bits per dimension", f"sd of {patches}"):
        result.add_column(heading, justify="left" if heading in ("target", "case") else "right")
    for name, part in document["targets"].items():
        for row in document["cases"]:
            if row["target"] == name:
                result.add_row(
                    name,
                    row["case"],
                    f"{row['pieces']}",
                    _number(row["bits_per_dim"]),
                    _number(row["sd"]),
                )
        mean = f"{_number(part['mean'])} ± {_number(part['sd'])}"
        result.add_row(
            name, f"mean ± sd of {part['cases']} cases", f"{part['pieces']}", mean, "", style="bold"
        )
        result.add_section()
        if part["in_unit"]:
            lines.append(
                f"{name}: the image's density in {part['in_unit']['unit']} has {part['in_unit']['adds']:+.3f} bits a voxel on top (log2 of the factor between the units; that of a typical scan where each has its own)."
            )
        lines.append(
            f"{name}: {part['network_calls']:.0f} network evaluations and {part['seconds_per_piece']:.2g} s each of the {patches}, without those for gradients; tolerance {document['tolerance']:g}; {document['divergence']}, seed {document['seed']}."
        )
    result.caption = "\n".join(lines)
    return result


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
