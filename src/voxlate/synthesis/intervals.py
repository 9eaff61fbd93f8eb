"""What a calibration says of the images of a case, on the voxels that they are written on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxlate.batch import BACKGROUND
from voxlate.data.case import PreparedCase
from voxlate.images.grid import Grid, Volume, oriented, return_to
from voxlate.images.mask import foreground
from voxlate.recipe import Recipe
from voxlate.synthesis.result import SynthesisedImage
from voxlate.trust.calibration import Calibration
from voxlate.trust.out_of_distribution import Patches, Verdict, patches_of, verdict_on
from voxlate.trust.regions import parts_of


@dataclass(frozen=True)
class OutputGrid:
    """The voxels of the file that images of a case are written like: of the first source, or of the fixed scan.

    affine: of the network's grid; axes: how slices are laid out for the network; units: of modalities. Where nothing
    was resampled both grids have the same voxels, and all moves are exact.
    """

    affine: np.ndarray
    file: Grid
    axes: str
    units: Mapping[str, str]

    def written(self, values: np.ndarray, modality: str, unit: str, order: Literal[0, 1] = 1) -> Volume:
        """Values [D, H, W] of the network's grid as they are written."""
        return return_to(
            Volume(values[None].astype(np.float32, copy=False), self.affine, unit, modality), self.file, order
        )

    def images(self, values: Mapping[str, np.ndarray | None]) -> dict[str, Volume]:
        """Those of modalities that there are, as they are written."""
        return {name: self.written(one, name, self.units[name]) for name, one in values.items() if one is not None}

    def laid(self, volume: Volume) -> Volume:
        """A written volume with slices as they are laid out for the network."""
        return oriented(volume, self.axes[::-1])

    def seen(self, values: np.ndarray) -> np.ndarray:
        """Values [D, H, W] of the network's grid on the file's voxels, laid out for the network."""
        return self.laid(self.written(values, "", "")).data[0]


def output_grid_of(prepared: PreparedCase, axes: str, units: Mapping[str, str]) -> OutputGrid:
    """Where the images of a prepared case are written."""
    origins = prepared.header.origins
    # where scans were registered, the image lies in the frame of the one that they were registered to
    fixed = [one.to for one in prepared.header.registered.values() if one.kept != "none"]
    first = origins[fixed[0]] if fixed else next(iter(origins.values()))
    return OutputGrid(np.array(prepared.header.affine), first.grid, axes, units)


def sources_of(recipe: Recipe, prepared: PreparedCase) -> list[np.ndarray]:
    """The sources [D, H, W] of a case in network units; one that it lacks is background."""
    found = []
    for name in recipe.data.source:
        if name in prepared.header.shown:
            scale = recipe.intensity[name].scale(prepared.header.statistics[name])
            found.append(scale.forward(prepared.arrays[name][:].astype(np.float32)))
        else:
            found.append(np.full(prepared.header.shape, BACKGROUND, np.float32))
    return found


def patches_in(recipe: Recipe, prepared: PreparedCase, sources: Sequence[np.ndarray]) -> Patches:
    """What a case's scans show, to be compared with those that a calibration knows; sources: in network units."""
    shown = [name for name in recipe.data.source if name in prepared.header.shown]
    body = np.logical_or.reduce([foreground(prepared.volume(name)) for name in shown])
    return patches_of(sources, body, prepared.header.spacing_mm)


@dataclass(frozen=True)
class Trusted:
    """Of each image, in physical units: between which values the truth lies, and what a case's errors are at most.

    verdict: how unlike known cases this one is; all empty where nothing is calibrated.
    """

    low: dict[str, Volume]
    high: dict[str, Volume]
    bounds: dict[str, dict[str, float]]
    verdict: Verdict | None = None


def trusted(
    calibration: Calibration | None,
    recipe: Recipe,
    prepared: PreparedCase,
    images: Mapping[str, SynthesisedImage],
    output_grid: OutputGrid,
) -> Trusted:
    """The intervals and bounds of the images of a case, and whether its scans are like those known."""
    low, high, bounds = dict[str, Volume](), dict[str, Volume](), dict[str, dict[str, float]]()
    if calibration is None:
        return Trusted(low, high, bounds)
    sources = sources_of(recipe, prepared)
    given = [output_grid.seen(one) for one in sources]
    for name, one in images.items():
        ends = calibration.interval(name, one.image.each(output_grid.seen), given)
        laid = output_grid.laid(output_grid.written(one.values, name, output_grid.units[name]))
        for maps, values in zip((low, high), ends):
            physical = Volume(one.scale.inverse(values)[None], laid.affine, laid.unit, name)
            maps[name] = return_to(physical, output_grid.file)
        parts = parts_of(calibration.header.targets[name].regions, laid)
        stated = calibration.bounds(name, *ends, parts)
        bounds[name] = {key: round(value * one.half, 4) for key, value in stated.items()}
    return Trusted(low, high, bounds, verdict_on(calibration.memory, patches_in(recipe, prepared, sources)))
