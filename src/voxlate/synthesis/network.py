"""What a network is to a synthesis: torch, a graph of ONNX, or whatever else gives images of patches."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from voxlate.base.array_types import Float32
from voxlate.base.streams import Stream, Tile
from voxlate.synthesis.facts import ModelFacts
from voxlate.synthesis.patch import Patch


@dataclass
class Calls:
    """The number of evaluations of a network; a batch of four counts four."""

    count: int = 0


@dataclass(frozen=True)
class NoiseOf:
    """The arguments of base.streams.Streams for one sample of some patches."""

    seed: int
    items: Sequence[Sequence[Stream]]
    samples: int
    tiles: Sequence[Tile] | None

    def of(self, part: slice) -> "NoiseOf":
        """The noise of a part of the patches."""
        tiles = None if self.tiles is None else self.tiles[part]
        return replace(self, items=self.items[part], tiles=tiles)


@runtime_checkable  # as checks of options need it
class Network(Protocol):
    """What synthesises the images of patches, on which device and in which precision."""

    @property
    def device(self) -> Any: ...

    @property
    def device_name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def entry(self) -> Mapping[str, Any]:
        """What decides its images beside the weights and the options, for the model's entry in a provenance."""
        ...

    @property
    def software(self) -> Mapping[str, Any]:
        """The entries of a provenance on the software that computes, and the notice that it is no medical device."""
        ...

    def sample(self, patches: Sequence[Patch], noise: NoiseOf) -> Float32:
        """One sample of each patch in network units, [B, T, D, H, W]; the T channels of each kept state follow."""
        ...

    def count(self, report: Callable[[int], None]) -> AbstractContextManager[Calls]:
        """Counts the evaluations of the network inside the block; report: is called with their number."""
        ...

    def evaluations(self, depth: int) -> float:
        """The number of evaluations for a sample of a volume of slices that is denoised in windows."""
        ...

    def mean(self) -> "tuple[ModelFacts, Network] | None":
        """The model of the mean prediction, around which this one samples; None where there is none."""
        ...

    def with_options(
        self, facts: ModelFacts, allow_code: bool, changes: Mapping[str, Any]
    ) -> "tuple[ModelFacts, Network]":
        """The model with other keys of synth; raises BadInput for those that it does not take."""
        ...

    def like(
        self, facts: ModelFacts, recipe: str, allow_code: bool
    ) -> "tuple[ModelFacts, Network]":
        """The model with the synth table of another recipe of the same method; raises BadInput for others."""
        ...
