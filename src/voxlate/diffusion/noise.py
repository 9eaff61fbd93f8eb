"""Random numbers that belong to items, not to batches; and which of them the slices of a volume share."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from voxlate.config import settings


class Noise:
    """One CPU stream an item, keyed by (seed, item, sample): the same whatever the batch, its order or the device.

    items: [B] stable ids; or, of an item whose normal draws are a sum over several streams, {id: weight}: squared
    weights that add up to 1 keep it standard normal, and items with ids in common are correlated.
    Successive draws go on along each stream; `sample(k)` starts the streams of the k-th sample of the same items.
    torch keeps 32 bits of a seed: of n streams two coincide with probability n²/2³³.
    """

    def __init__(
        self, seed: int, items: Tensor | Sequence[int | Mapping[int, float]], samples: int | Sequence[int] = 0
    ) -> None:
        self.seed = seed
        self.items = [item if isinstance(item, Mapping) else {int(item): 1.0} for item in items]
        self.samples = [samples] * len(self.items) if isinstance(samples, int) else list(samples)
        keys = {(stream, sample) for item, sample in zip(self.items, self.samples) for stream in item}
        # sorted, so that an item's sum is rounded alike in every batch
        self._streams = {key: torch.Generator().manual_seed(_key(seed, *key)) for key in sorted(keys)}

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, k: int) -> "Noise":
        """Fresh streams for the k-th sample of each item; sample(0) are those that Noise(seed, items) starts."""
        return Noise(self.seed, self.items, k)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal draws, float32 [B, *shape] on the CPU."""
        out, draw = torch.zeros(len(self), *shape), torch.empty(tuple(shape))
        for (stream, sample), generator in self._streams.items():
            draw.normal_(generator=generator)
            for row, item, own in zip(out, self.items, self.samples):
                if own == sample and stream in item:
                    row.add_(draw, alpha=item[stream])
        return out

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal draws in the shape, type and place of x: [B, ...]."""
        return self.normal(x.shape[1:]).to(x.device, x.dtype, non_blocking=True)

    __call__ = normal_like

    def uniform(self) -> Tensor:
        """One draw from (0, 1) an item, float64 [B] on the CPU; never 0 or 1, so every inverse exists."""
        return self._each(lambda stream: torch.rand((), generator=stream, dtype=torch.float64)).double() + 2.0**-54

    def integers(self, high: int) -> Tensor:
        """One of 0 … high − 1 an item, int64 [B] on the CPU."""
        return self._each(lambda stream: torch.randint(high, (), generator=stream)).long()

    def _each(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """A number an item, from the stream that weighs most in it; all streams go on by one."""
        drawn = {key: draw(stream) for key, stream in self._streams.items()}
        own = [(max(item, key=item.__getitem__), sample) for item, sample in zip(self.items, self.samples)]
        return torch.stack([drawn[key] for key in own]) if own else torch.empty(0)


def _key(seed: int, item: int, sample: int) -> int:
    text = f"{seed} {item} {sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


@settings
class Independent:
    """Each slice of a volume has noise of its own, as in training."""

    kind: Literal["independent"] = "independent"

    def streams(self, z: int, spacing_mm: float) -> dict[int, float]:
        """The slices whose streams slice z draws from, with weights whose squares add up to 1."""
        return {z: 1.0}


@settings
class Shared:
    """All slices of a volume have the same noise."""

    kind: Literal["shared"] = "shared"

    def streams(self, z: int, spacing_mm: float) -> dict[int, float]:
        """The stream of slice 0, for all."""
        return {0: 1.0}


@settings
class Correlated:
    """The noise of slices is alike the more the nearer they lie: a moving sum over the streams of all slices.

    Its weights are half a wave of a cosine, which of all sums over as many slices makes neighbours most alike: over n
    slices (length n + 1 spacings, n odd) their correlation is cos(π/(n + 1)). At half the length it is about 1/π.
    """

    kind: Literal["correlated"] = "correlated"
    length_mm: Annotated[
        float, Field(gt=0, le=1000, description="distance from which on slices have independent noise")
    ] = 20.0

    def streams(self, z: int, spacing_mm: float) -> dict[int, float]:
        """The slices nearer than half the length."""
        reach = max(math.ceil(self.length_mm / spacing_mm / 2) - 1, 0)
        weights = {k: math.cos(math.pi * k * spacing_mm / self.length_mm) for k in range(-reach, reach + 1)}
        norm = math.hypot(*weights.values())
        return {z + k: weight / norm for k, weight in weights.items()}


SliceNoise = Annotated[Independent | Shared | Correlated, Field(discriminator="kind")]
