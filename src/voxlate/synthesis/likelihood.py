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
from voxlate.recipe.provenance import is_fold, splits_of_training
from voxlate.synthesis.inputs import preparation_of
from voxlate.synthesis.progress import PatchProgress, count_calls, no_report
from voxlate.system.config import kind_of
from voxlate.system.dataframe import dataframe
from voxlate.system.devices import find_device
from voxlate.system.errors import BadInput
from voxlate.system.files import write_json
from voxlate.system.statistics import mean_and_sd
from voxlate.training.starter import run_folder
from voxlate.training.weights import load_method


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension as a document, which is written as JSON, and as a table."""

    document: Mapping[str, Any]

    def table(self) -> Table:
        """A line for each case, and the mean of each density."""
        document = self.document
        patches = document["pieces"]
        lines = [
            f"−log2 of the density of {document['of']}, over its voxels; values in network units [-1, 1]."
        ]
        result = Table(title="Bits per dimension (lower is better)", caption_justify="left")
        for heading in ("target", "case", patches, "bits per dimension", f"sd of {patches}"):
            left = heading in ("target", "case")
            result.add_column(heading, justify="left" if left else "right")
        for name, part in document["targets"].items():
            for row in document["cases"]:
                if row["target"] == name:
                    numbers = map(_number, (row["bits_per_dim"], row["sd"]))
                    result.add_row(name, row["case"], f"{row['pieces']}", *numbers)
            mean = f"{_number(part['mean'])} ± {_number(part['sd'])}"
            label = f"mean ± sd of {part['cases']} cases"
            result.add_row(name, label, f"{part['pieces']}", mean, "", style="bold")
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

    changes: fields of the options. slices: largest number in a case, evenly spaced; tolerance: of the ODE, relative and
    absolute; batch: patches that are computed together (decides memory, not results); seed: of the random probes, one
    stream for each slice. Where the model completes, every modality is hidden in turn. Raises BadInput where the run is
    no diffusion model or does not fit the cohort.
    Source: Song et al. 2021, eq. 39.
    """
    asked = merge(LikelihoodOptions, options, changes)
    if not (asked.tolerance > 0 and math.isfinite(asked.tolerance)):
        raise BadInput(
            f"--tolerance: expected a number above 0, found {asked.tolerance:g}. Give 1e-5, say."
        )
    run = run_folder(run)
    method, recipe, header = load_method(run, asked.allow_code)
    if not recipe.method.has_density:
        raise BadInput(
            f"{run}: expected a diffusion model, the only kind with a density, found method.kind '{kind_of(recipe.method)}'. Name another run; voxlate evaluate scores any."
        )
    prepared = open_cohort(cohort)
    if is_fold(folders := [run, run.parent]):
        splits = dict[str, str]()
        for name, cases in splits_of_training(folders).items():
            splits |= dict.fromkeys(cases, name)
        prepared = prepared.with_splits(splits)
    prepared = recipe.with_maps_of(prepared)
    _check_preparation(prepared, header)
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
    model = method.to(find_device(asked.device))
    return Likelihood(stated | _Estimator(model, recipe, header, prepared, asked).run(progress))


@dataclass(frozen=True)
class _Estimator:
    """A model, a cohort and the options that decide the estimates; header: of the weights file."""

    model: Method
    recipe: Recipe
    header: Mapping[str, Any]
    cohort: Cohort
    asked: LikelihoodOptions

    def run(self, progress: PatchProgress) -> dict[str, Any]:
        """The mean of each density over cases, and a row for each case."""
        names = self.recipe.data.target
        # only existing images have a density, so that incomplete cases are excluded
        data = replace(self.recipe.data, allow_missing=False)
        chosen = dict[str, list[Triple]]()
        for case, starts in whole_cases(self.cohort, data, self.asked.split).items():
            chosen[case] = list(space_evenly(starts, self.asked.slices or len(starts)))
        # the hidden channels of each density, by the names of its targets
        hidden_channels: dict[str, list[int]] = {", ".join(names): []}
        if self.recipe.task.completes:
            hidden_channels = {name: [k] for k, name in enumerate(names)}
        total = len(hidden_channels) * sum(map(len, chosen.values()))
        done = 0
        means: dict[str, Any] = {}
        rows = list[dict[str, Any]]()
        for name, hidden in hidden_channels.items():
            begun = time.monotonic()
            known, patches = [], 0
            with count_calls(self.model.net) as calls:
                for case, starts in chosen.items():
                    bits = list[float | None]()
                    for values in self._bits(case, starts, hidden):
                        bits += values
                        done += len(values)
                        progress(done, total)
                    inside = [value for value in bits if value is not None]
                    patient, own = self.cohort.header(case).patient, _mean_and_sd(inside)
                    row: dict[str, Any] = {"case": case, "patient": patient, "target": name}
                    row |= {"bits_per_dim": own["mean"], "sd": own["sd"], "pieces": len(inside)}
                    rows.append(row)
                    patches += len(inside)
                    known += [] if own["mean"] is None else [own["mean"]]
            each = max(patches, 1)
            means[name] = {
                **_mean_and_sd(known),
                "cases": len(known),
                "pieces": patches,
                "network_calls": calls.count / each,
                "seconds_per_piece": (time.monotonic() - begun) / each,
                "in_unit": self._in_unit([name] if hidden else names),
            }
        return {"targets": means, "cases": rows}

    def _bits(
        self, case: str, starts: list[Triple], hidden: list[int]
    ) -> Iterator[list[float | None]]:
        """Bits per dimension of the patches of a case, batch by batch; None for patches without a voxel to synthesise."""
        device = next(self.model.parameters()).device
        places = [(case, start) for start in starts]
        data, asked = self.recipe.data, self.asked
        size = asked.batch or self.recipe.synth.batch
        for batch in batches_of(self.cohort, data, self.recipe.intensity, places, size):
            present = batch.present.clone()
            present[:, hidden] = False
            patches = replace(batch, present=present).to(device)
            noise = Noise(asked.seed, patches.item)
            with torch.no_grad():
                bits = self.model.without_opponent.bits_per_dim(
                    patches, noise, asked.tolerance
                ).tolist()
            if self.recipe.task.inside:
                has_voxels = patches.mask.flatten(1).any(1).tolist()
                bits = [value if inside else None for value, inside in zip(bits, has_voxels)]
            yield bits

    def _in_unit(self, names: Sequence[str]) -> dict[str, Any] | None:
        """The bits to add for images in physical units; None for a latent, whose density is not that of the image."""
        scale = self.recipe.task.state_scale
        if scale is None:
            return None
        ends = [self.header["target_scales"][name] for name in names]
        bits = [math.log2((high - low) / 2 / scale) for low, high in ends]
        units = dict.fromkeys(self.header["units"][name] for name in names)
        return {"unit": ", ".join(units), "adds": float(np.mean(bits))}


def _mean_and_sd(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation; None for too few values, or an infinite one."""
    return mean_and_sd(np.array(values if all(map(math.isfinite, values)) else []))


def _check_preparation(cohort: Cohort, header: Mapping[str, Any]) -> None:
    """Raise BadInput where a cohort has another matrix or spacing than the training."""
    for key, of in (("matrix", "rows and columns"), ("spacing_mm", "z y x")):
        trained, here = (getattr(own, key) for own in (preparation_of(header), cohort.preparation))
        if trained != here:
            what = key.removesuffix("_mm")
            raise BadInput(
                f"{cohort.folder}: expected the {what} of the training ({of} {trained or 'as scanned'}), found {here or 'as scanned'}. Prepare it with the training's --{what}."
            )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
