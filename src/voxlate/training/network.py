"""A method of torch as the network of a synthesis."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from voxlate.base.arrays import Float32
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.method import Method, networks_in
from voxlate.synthesis.progress import Calls, count_calls
from voxlate.synthesis.sampling import Networks, NoiseOf
from voxlate.training.batches.batches import collate
from voxlate.training.batches.patches import batch_of
from voxlate.training.batches.reading import Patch
from voxlate.training.precision import of_synthesis
from voxlate.training.recipe import Recipe
from voxlate.training.recipe.training import Precision
from voxlate.training.validate import autocast


@dataclass(frozen=True)
class TorchNetwork:
    """A method with what decides one sample of a patch."""

    method: Method
    recipe: Recipe
    device: torch.device
    precision: Precision

    def sample(self, patches: Sequence[Patch], noise: NoiseOf) -> Float32:
        """One sample of each patch in network units, [B, T, D, H, W]; with synth.mirror the mean with the mirrored one."""
        recipe = self.recipe
        batch = collate([batch_of(patch, recipe.data) for patch in patches]).to(self.device)
        drawn = Noise(noise.seed, noise.items, noise.samples, tiles=noise.tiles)
        with torch.inference_mode(), autocast(self.device, self.precision):
            image = self.method.synthesise(batch, drawn, recipe.synth).float()
            axis = recipe.data.axis_lr
            # a sagittal slice is its own mirror
            if recipe.synth.mirror and batch.source.shape[axis] > 1:
                flipped = replace(batch, source=batch.source.flip(axis), mask=batch.mask.flip(axis))
                mirrored = self.method.synthesise(flipped, drawn, recipe.synth).float()
                image = (image + mirrored.flip(axis)) / 2
        array: Float32 = image.cpu().numpy()
        return array

    def count(self, report: Callable[[int], None]) -> AbstractContextManager[Calls]:
        """Counts the evaluations of the network inside the block."""
        return count_calls(*networks_in(self.method), report=report)


def networks_of(method: Method, device: torch.device) -> Networks:
    """The network of a method on a device, for any recipe of its synthesis."""
    return lambda recipe: TorchNetwork(method, recipe, device, of_synthesis(recipe, device))
