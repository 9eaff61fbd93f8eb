"""The settings of `data.physics`: MR contrasts that are drawn from tissue-parameter maps, and the drawing of one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from itertools import chain
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from voxlate.anatomy.contrast import (
    FREE_WATER_T1_MS,
    Kind,
    Protocol,
    maps_for,
    null_time_ms,
)
from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.scans.images.intensity import IntensityMap, MinMax, Percentile

# Bounds that no scanner of heads exceeds, so that a slip of the unit or of a digit is refused.
Tr = Annotated[float, Field(ge=1, le=30000)]
Te = Annotated[float, Field(ge=0.01, le=1000)]
Ti = Annotated[float, Field(ge=1, le=10000)]
Flip = Annotated[float, Field(ge=0.1, le=180)]
Tesla = Annotated[float, Field(ge=0.05, le=12)]
Range = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, lt=1)]
Millimetres = Annotated[float, Field(ge=0, le=20)]

USUAL_FIELD_T = 3.0
PARAMETERS = ("tr_ms", "te_ms", "ti_ms", "flip_deg")  # of a sequence
DOSES = (0.6, 1.4)  # of the contrast agent: tissue differs in uptake, scans in delay
FAT_REMOVED = (0.5, 1.0)  # by fat saturation, which is never even
NULLED = (0.94, 1.06)  # inversion times of FLAIR as shares of the time that nulls free water
# Half the pulse train of `sequences.mprage` and a little: shorter inversion times are impossible.
LEAST_TI_MS = 490.0
Choice = tuple[Kind, Mapping[str, Range]]  # a sequence and the ranges of the parameters that it has


def _choice(kind: Kind, tr_ms: Range, te_ms: Range, **others: Range) -> Choice:
    return kind, {"tr_ms": tr_ms, "te_ms": te_ms, **others}


# Protocols of heads at 0.5 to 7 T.
USUAL: dict[Kind, Mapping[str, Range]] = dict(
    [
        _choice("spin_echo", (400, 8000), (8, 180)),
        _choice("gradient_echo", (8, 600), (1.5, 7.5), flip_deg=(5, 70)),
        _choice("inversion_recovery", (2000, 8000), (8, 60), ti_ms=(150, 1200)),
        _choice("mprage", (1600, 3000), (2, 5), ti_ms=(700, 1100), flip_deg=(7, 12)),
        _choice("flair", (6000, 11000), (80, 160)),
        _choice("swi", (22, 50), (10, 21), flip_deg=(10, 20)),
        _choice("tof", (18, 35), (2.5, 7), flip_deg=(15, 30)),
    ]
)
# What sequence = "any" draws from: spin echoes of all weightings would rarely be as heavily T2-weighted as most scans.
ANY: tuple[Choice, ...] = (
    _choice("spin_echo", (400, 800), (8, 20)),
    _choice("spin_echo", (2000, 6000), (8, 40)),
    _choice("spin_echo", (3000, 10000), (80, 200)),
    _choice("spin_echo", (3000, 10000), (80, 200)),
    *USUAL.items(),
)


@settings
class Ranges:
    """A sequence and ranges of its parameters, each drawn evenly in its logarithm."""

    sequence: Annotated[
        Literal[Kind, "any"],
        setting("sequence, or any: each item draws one of them"),
    ]
    tr_ms: Annotated[
        tuple[Tr, Tr] | None,
        setting("repetition time; unset: usual ones of the sequence"),
    ] = None
    te_ms: Annotated[
        tuple[Te, Te] | None, setting("echo time; unset: usual ones of the sequence")
    ] = None
    ti_ms: Annotated[
        tuple[Ti, Ti] | None,
        setting(
            "inversion time; unset: usual ones of the sequence, in FLAIR those that null CSF to 6 %"
        ),
    ] = None
    flip_deg: Annotated[
        tuple[Flip, Flip] | None, setting("flip angle; unset: usual ones of the sequence")
    ] = None

    def __post_init__(self) -> None:
        has = {} if self.sequence == "any" else USUAL[self.sequence]
        for name, ends in self.given.items():
            if name not in has and (self.sequence, name) != ("flair", "ti_ms"):
                raise BadInput(
                    f"data.physics.contrasts: expected no {name} for the sequence {self.sequence}, which has none of its own, found {list(ends)}. Drop it."
                )
            _check_rising(f"contrasts: expected {name}", ends)
        for kind, ranges in self.choices:
            least_tr, te = ranges["tr_ms"][0], ranges["te_ms"]
            if te[1] >= least_tr:
                raise BadInput(
                    f"data.physics.contrasts: expected echo times of {kind} below every repetition time, found te_ms up to {te[1]:g} with tr_ms from {least_tr:g}. Change the ranges."
                )
            least = LEAST_TI_MS if kind == "mprage" else 0.0
            ti = ranges.get("ti_ms")
            if ti is not None and not (least < ti[0] and ti[1] + least < least_tr):
                raise BadInput(
                    f"data.physics.contrasts: expected every ti_ms of {kind} to be above {least:g} and more than {least:g} below every tr_ms (the pulse train lies around it), found ti_ms {ti[0]:g} to {ti[1]:g} with tr_ms from {least_tr:g}. Change the ranges."
                )

    @property
    def given(self) -> dict[str, Range]:
        """The ranges that are stated."""
        return {name: ends for name in PARAMETERS if (ends := getattr(self, name))}

    @property
    def choices(self) -> Sequence[Choice]:
        """The sequences that are drawn, with their ranges."""
        if self.sequence == "any":
            return ANY
        return [(self.sequence, {**USUAL[self.sequence], **self.given})]


@settings
class Contrast(Ranges):
    """One MR modality: its sequence, other sequences that scanners use for it, contrast agent and fat saturation."""

    agent: Annotated[Share, setting("share of items with contrast agent")] = 0.0
    fat_saturation: Annotated[Share, setting("share of items with fat saturation")] = 0.0
    regions: Annotated[
        Share,
        setting(
            "share of items whose tissues have any signals, one for each label of the map seg, in place of the sequence's; of sequence 'any' only"
        ),
    ] = 0.0
    also: Annotated[
        list[Ranges],
        setting(
            "further sequences of the modality, with their own ranges: each item draws one of all; a target has the first"
        ),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regions and self.sequence != "any":
            raise BadInput(
                f"data.physics.contrasts: expected no regions for the sequence {self.sequence}, whose tissues have its signals, found {self.regions:g}. Drop it, or take sequence = 'any'."
            )

    @property
    def sequences(self) -> Sequence[Choice]:
        """What an item draws from: the sequences of the modality and of `also`."""
        return [*self.choices, *chain.from_iterable(ranges.choices for ranges in self.also)]

    @property
    def needs(self) -> set[str]:
        """The maps that a draw may need."""
        agent, saturation = self.agent > 0, self.fat_saturation > 0
        return set(
            chain.from_iterable(maps_for(kind, agent, saturation) for kind, _ in self.sequences)
        )

    def draw(self, rng: np.random.Generator, field_t: float) -> Protocol:
        """A sequence with its parameters."""
        choice = self.sequences[int(rng.integers(len(self.sequences)))]
        shares = rng.random(4)
        dose = within(rng.random(), DOSES)
        removed = within(rng.random(), FAT_REMOVED)
        has_agent, has_saturation, nulled = rng.random(3)
        dose = dose if has_agent < self.agent else 0.0
        removed = removed if has_saturation < self.fat_saturation else 0.0
        return _protocol(choice, shares, within(nulled, NULLED), field_t, dose, removed)

    def centre(self, field_t: float) -> Protocol:
        """The sequence with the median of each parameter, for a target."""
        dose = float(self.agent >= 0.5)
        removed = within(0.5, FAT_REMOVED) if self.fat_saturation >= 0.5 else 0.0
        return _protocol(self.choices[0], [0.5] * 4, 1.0, field_t, dose, removed)


def _protocol(
    choice: Choice,
    shares: Iterable[float],
    null_share: float,
    field_t: float,
    dose: float,
    removed: float,
) -> Protocol:
    """A sequence with its parameters at shares of their ranges; null_share: of the time that nulls fluid in FLAIR."""
    kind, ranges = choice
    pairs = zip(shares, PARAMETERS)
    tr, te, ti, flip = (within(share, ranges.get(name)) for share, name in pairs)
    if kind == "flair" and "ti_ms" not in ranges:
        ti = null_share * null_time_ms(FREE_WATER_T1_MS, tr)
    return Protocol(kind, tr, te, ti, flip, field_t, dose, removed)


@settings
class PhysicsSettings:
    """MR modalities that are drawn for each item from a phantom's tissue-parameter maps, and the scanner's effects.

    Effects change sources alone. A target has none of them, and the median of each range at 3 T.
    """

    contrasts: Annotated[
        dict[str, Contrast],
        setting("modalities that are drawn, by name", min_length=1),
    ]
    field_t: Annotated[tuple[Tesla, Tesla], setting("field strength")] = (0.5, 7.0)
    tissue_spread: Annotated[
        Amount,
        setting(
            "standard deviation of the log factor on PD and relaxation rates of each tissue, beyond physics"
        ),
    ] = 0.1
    b1: Annotated[
        float,
        setting("standard deviation of the flip angle over the head at 3 T", ge=0, le=0.5),
    ] = 0.08
    bias: Annotated[Amount, setting("largest standard deviation of the log coil gain")] = 0.3
    slice_mm: Annotated[Millimetres, setting("largest slice thickness; 0: the cohort's")] = 6.0
    same_slices: Annotated[
        bool,
        setting(
            "whether stored images such as a CT have the slice thickness that is drawn for the first contrast"
        ),
    ] = False
    resolution: Annotated[
        float,
        setting("least share of the cohort's resolution in the plane", ge=0.05, le=1),
    ] = 0.5
    motion: Annotated[Share, setting("share of items with motion")] = 0.15
    noise: Annotated[
        float,
        setting(
            "largest standard deviation of noise, as a share of the brightest tissue", ge=0, le=0.5
        ),
    ] = 0.06
    black: Annotated[
        Amount,
        setting(
            "largest signal that is subtracted, as a share of the brightest tissue, so that dark tissue becomes black; half of the items lose none"
        ),
    ] = 0.0
    clipped: Annotated[
        Share, setting("share of items whose scale ends below the signal of the brightest tissue")
    ] = 0.0
    surface: Annotated[
        Share,
        setting(
            "share of items whose coils make the tissue below the skin up to 4 times as bright"
        ),
    ] = 0.0
    across: Annotated[
        Share,
        setting(
            "share of items that are cut across the slices that were scanned, whose thickness, of half as much at most, then lies along rows or columns"
        ),
    ] = 0.0
    scalp: Annotated[
        Share,
        setting(
            "share of items with a new scalp of skin, septum, fat and galea, half of them up to 5 mm thicker: source, target and mask"
        ),
    ] = 0.0
    thin: Annotated[
        Share,
        setting(
            "share by which bone of a stored CT is thinned by a pixel at most, in the vault half as much; label maps show the skull's base about twice as thick as CT does"
        ),
    ] = 0.0
    stripped: Annotated[Share, setting("share of items without skull: source, target and mask")] = (
        0.0
    )
    strip_mm: Annotated[
        Millimetres,
        setting("largest depth below the surface to which stripping removes CSF, dura and vessels"),
    ] = 0.0

    def __post_init__(self) -> None:
        _check_rising("field_t: expected a range", self.field_t)

    @property
    def needs(self) -> set[str]:
        """The maps that a cohort must have."""
        from voxlate.anatomy.scalp import PLACES

        places = PLACES if max(self.scalp, self.surface, self.thin) > 0 else ()
        return {*places, *chain.from_iterable(own.needs for own in self.contrasts.values())}

    def check(self, targets: Sequence[str], intensity: Mapping[str, IntensityMap]) -> None:
        """Raise BadInput where a target has no sequence of its own, or a scale needs other voxels than a sample of the body."""
        for name, contrast in self.contrasts.items():
            if name in targets and contrast.sequence == "any":
                raise BadInput(
                    f"data.physics.contrasts.{name}: expected one sequence for a target, found 'any'. Name one."
                )
            spec = intensity.get(name)
            of_all = isinstance(spec, Percentile) and spec.inside == "all"
            if of_all or isinstance(spec, MinMax) or (spec is not None and spec.slicewise):
                raise BadInput(
                    f"intensity.{name}: expected a map that is computed in the body (percentile with inside = 'foreground', or window) for a modality of data.physics, found one of all voxels. Change it."
                )

    @property
    def target_field_t(self) -> float:
        """3 T, or the nearest field in range."""
        low, high = self.field_t
        return min(max(USUAL_FIELD_T, low), high)


def _check_rising(expected: str, ends: Range) -> None:
    """Raise BadInput unless a range goes from low to high."""
    low, high = ends
    if low > high:
        raise BadInput(
            f"data.physics.{expected} from low to high, found {low:g} to {high:g}. Swap them."
        )


def within(share: float, ends: Range | None) -> float:
    """The value at a share of a range, evenly in its logarithm; 0 for a parameter that a sequence does not have."""
    if ends is None:
        return 0.0
    low, high = ends
    return float(low * math.exp(share * math.log(high / low)))
