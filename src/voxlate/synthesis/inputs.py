"""A patient's scans as a method sees them: piece by piece, in network units."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from voxlate.batch import BACKGROUND, Batch
from voxlate.data.prepared import MASK
from voxlate.data.scale import Statistics, case_scale, intensity_statistics
from voxlate.images.intensity import Percentile, Scale, Window, ZScore
from voxlate.images.mask import brain, foreground, user_mask
from voxlate.images.tiling import Tiling
from voxlate.images.views import View, Whole, framed
from voxlate.images.volume import Volume
from voxlate.recipe import Recipe

Triple = tuple[int, int, int]


class Inputs:
    """Scans in physical units with their scales; gives batches in network units, place by place."""

    def __init__(self, recipe: Recipe, volumes: Mapping[str, Volume], brain_from: str | None = None):
        """volumes: with MASK, if the user gives one; else the brain in `brain_from` counts, or all foreground."""
        self.recipe, self.volumes = recipe, {name: volume for name, volume in volumes.items() if name != MASK}
        # resized masks overshoot and undershoot
        self.mask = user_mask(volumes[MASK], above=0.5) if MASK in volumes else None
        masked = recipe.masked and self.mask is None
        if masked and brain_from is not None:
            self.mask, masked = brain(volumes[brain_from]), False
        self.statistics: dict[str, Statistics] = {}
        for name, volume in self.volumes.items():
            spec = recipe.intensity[name]
            if isinstance(spec, Window) and not masked:
                continue  # it asks nothing of the scan
            asks = isinstance(spec, ZScore) or (isinstance(spec, Percentile) and spec.inside == "foreground")
            own = foreground(volume) if asks or masked else None
            self.statistics[name] = intensity_statistics(volume.data[0], own)
            if masked and own is not None:
                self.mask = own if self.mask is None else self.mask | own

    def frame(self, sight: View) -> View:
        """Slices with the mid-plane in the middle where the method wants that, and without what is outside the mask."""
        recipe = self.recipe
        crop = slices.crop if isinstance(slices := recipe.synth.slices, Whole) else None
        sides = [stage.net.multiple for stage in recipe.all_stages]
        mask = self.mask if recipe.keeps_inside else None
        return framed(sight, mask, max(sides), recipe.data.centred, crop, recipe.data.patch[1:])

    def batch(self, tiling: Tiling, starts: list[Triple], items: list[int]) -> Batch:
        """The tiles at `starts`; with `stack`, the modalities, then the same for the slice below, above, …"""
        channels = self.recipe.data.channels
        tiles = [np.concatenate([self._tile(name, step, tiling, start) for name, step in channels]) for start in starts]
        source = torch.from_numpy(np.stack(tiles))
        return Batch(
            source=source,
            mask=self._masks(tiling, starts),
            present=torch.tensor([[name in self.volumes for name, _ in channels]] * len(starts)),
            item=torch.tensor(items),
        )

    def _masks(self, tiling: Tiling, starts: list[Triple]) -> Tensor:
        """[B, 1, D, H, W]; found only for a method that works inside a mask."""
        if self.mask is None:
            return torch.ones(len(starts), 1, *tiling.patch)
        tiles = [tiling.cut(self.mask[None], start) for start in starts]
        return torch.from_numpy(np.stack(tiles).astype(np.float32))

    def _tile(self, name: str, step: int, tiling: Tiling, start: Triple) -> np.ndarray:
        """A modality in network units, [1, D, H, W]; beyond the first and last slice is that slice again."""
        if name not in self.volumes:
            return np.full((1, *tiling.patch), BACKGROUND, np.float32)
        values = self.volumes[name].data
        first = min(max(start[0] + step, 0), values.shape[1] - 1) if step else start[0]
        tile = tiling.cut(values, (first, *start[1:]))
        return self._scale(name, first).forward(tile)

    def _scale(self, name: str, index: int) -> Scale:
        return case_scale(self.recipe.intensity[name], self.statistics.get(name), index)
