"""The settings of `data.physics`, and what they draw for an item: an MR sequence, the patient's tissue, the scanner's effects.

A scanner adds uneven coils, slice profile, k-space, motion and noise. All is drawn once for an item from its generator; places
are shares of the whole volume, so that a slab and a sample of voxels see the same fields.
"""

import math
from collections.abc import Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from voxlate.anatomy.contrast import (
    FREE_WATER_T1_MS,
    FREE_WATER_T2_MS,
    Kind,
    Maps,
    Protocol,
    null_time_ms,
)
from voxlate.anatomy.tissue import Label, Rng
from voxlate.base.array_types import AnyArray
from voxlate.base.config import setting, settings
from voxlate.base.errors import BadInput
from voxlate.scans.images.intensity import IntensityMap, MinMax, Percentile
from voxlate.scans.images.units import TISSUE_MAPS

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

# Protocols of heads at 0.5 to 7 T.
USUAL: dict[Kind, Mapping[str, Range]] = {
    "spin_echo": {"tr_ms": (400, 8000), "te_ms": (8, 180)},
    "gradient_echo": {"tr_ms": (8, 600), "te_ms": (1.5, 7.5), "flip_deg": (5, 70)},
    "inversion_recovery": {"tr_ms": (2000, 8000), "te_ms": (8, 60), "ti_ms": (150, 1200)},
    "mprage": {
        "tr_ms": (1600, 3000),
        "te_ms": (2, 5),
        "ti_ms": (700, 1100),
        "flip_deg": (7, 12),
    },
    "flair": {"tr_ms": (6000, 11000), "te_ms": (80, 160)},
    "swi": {"tr_ms": (22, 50), "te_ms": (10, 21), "flip_deg": (10, 20)},
    "tof": {"tr_ms": (18, 35), "te_ms": (2.5, 7), "flip_deg": (15, 30)},
}
# What sequence = "any" draws from: spin echoes of all weightings would rarely be as heavily T2-weighted as most scans.
ANY: tuple[Choice, ...] = (
    ("spin_echo", {"tr_ms": (400, 800), "te_ms": (8, 20)}),
    ("spin_echo", {"tr_ms": (2000, 6000), "te_ms": (8, 40)}),
    ("spin_echo", {"tr_ms": (3000, 10000), "te_ms": (80, 200)}),
    ("spin_echo", {"tr_ms": (3000, 10000), "te_ms": (80, 200)}),
    *USUAL.items(),
)

WAVES = 4  # of a random function of tissue
# Log T1 and log T2 over which tissues vary together: grey and white matter differ by 0.5.
TISSUE_LENGTH = 0.4
ORDERS = (
    *((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    *((2, 0, 0), (0, 2, 0), (0, 0, 2)),
    *((1, 1, 0), (0, 1, 1)),
)
LABELS = 256  # of a map of tissues
# Labels of several tissues: muscle and its tendons, fat with its septa, marrow of fat or blood.
MIXED = (Label.MUSCLE, Label.FAT, Label.DIPLOE, Label.MARROW, Label.SKIN)
TENDONS = 0.4  # share of draws whose muscles have dark strands: tendon and fascia are as dark as bone, and soft in CT
STRANDS = -1.2  # texture below which a muscle is tendon, in a fifth of it
RINGING = 0.5  # share of items with Gibbs ringing; others are filtered
MOST_SEGMENTS = 6  # of k-space, between which the head moves
MOTION_MM = 1.5  # standard deviation of its displacement
FIELD_OF_B1 = 3.0  # T, at which settings state the spread of the flip angle

Places = Sequence[AnyArray]  # z, y, x of voxels in 0..1; they broadcast against each other


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
        for kind, ranges in self.choices:
            least_tr = min(ranges["tr_ms"])
            least = LEAST_TI_MS if kind == "mprage" else 0.0
            ti = ranges.get("ti_ms")
            if ti is not None and not least < min(ti) <= max(ti) < least_tr - least:
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
            "share of items whose tissues have any signals, one for each label of the map seg, in place of the sequence's"
        ),
    ] = 0.0
    also: Annotated[
        list[Ranges],
        setting(
            "further sequences of the modality, with their own ranges: each item draws one of all; a target has the first"
        ),
    ] = field(default_factory=list)

    @property
    def sequences(self) -> Sequence[Choice]:
        """What an item draws from: the sequences of the modality and of `also`."""
        return [*self.choices, *chain.from_iterable(ranges.choices for ranges in self.also)]

    def draw(self, rng: Rng, field_t: float) -> Protocol:
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
    dense: Annotated[
        float,
        setting(
            "largest share by which bone of a stored CT is denser, in the vault half as much; the phantoms' bone is as light as CT shows trabecular bone",
            ge=0,
            le=2,
        ),
    ] = 0.0
    stripped: Annotated[Share, setting("share of items without skull: source, target and mask")] = (
        0.0
    )
    strip_mm: Annotated[
        Millimetres,
        setting("largest depth below the surface to which stripping removes CSF, dura and vessels"),
    ] = 0.0

    @property
    def needs(self) -> KeysView[str]:
        """The maps that a cohort must have: all, as `phantom --modalities maps` writes them."""
        return TISSUE_MAPS.keys()

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
        return min(max(USUAL_FIELD_T, min(self.field_t)), max(self.field_t))


def within(share: float, ends: Range | None) -> float:
    """The value at a share of a range, evenly in its logarithm; 0 for a parameter that a sequence does not have."""
    if ends is None:
        return 0.0
    low, high = ends
    return float(low * math.exp(share * math.log(high / low)))


def voxel_places(voxels: Iterable[AnyArray], shape: Iterable[int]) -> Places:
    """The places of voxels, by their indices along D, H, W of a volume."""
    return [((at + 0.5) / length).astype(np.float32) for at, length in zip(voxels, shape)]


@dataclass(frozen=True)
class TissueSpread:
    """Random log factors on PD, 1/T1 and 1/T2, each a smooth function of a voxel's own parameters.

    Tissues of similar parameters vary together, different ones independently; no label map is needed.
    """

    sd: float
    frequencies: AnyArray  # [3, WAVES, 3]
    phases: AnyArray  # [3, WAVES]

    def of(self, maps: Maps) -> Maps:
        """The maps of this item: free water and voxels without protons stay."""
        if self.sd == 0:
            return maps
        t1, t2 = (np.maximum(maps[name], 1) for name in ("t1_map", "t2_map"))
        features = (np.log(t1), np.log(t2), 2 * maps["pd_map"])
        of_pd, of_r1, of_r2 = (self._factor(k, features) for k in range(3))
        changed = {**maps, "pd_map": maps["pd_map"] * of_pd}
        changed["t1_map"] = _slow(t1, of_r1, FREE_WATER_T1_MS)
        changed["t2_map"] = _slow(t2, of_r2, FREE_WATER_T2_MS)
        if "t2star_map" in maps:
            t2star = np.maximum(maps["t2star_map"], np.float32(0.1))
            dephasing = 1 / t2star - 1 / t2
            changed["t2star_map"] = 1 / (1 / changed["t2_map"] + np.maximum(dephasing, 0))
        return changed

    def _factor(self, k: int, features: tuple[AnyArray, AnyArray, AnyArray]) -> AnyArray:
        total = np.zeros_like(features[0])
        for (a, b, c), phase in zip(self.frequencies[k], self.phases[k]):
            total += np.cos(a * features[0] + b * features[1] + c * features[2] + phase)
        return np.exp(np.float32(self.sd * (2 / WAVES) ** 0.5) * total)


def _slow(time_ms: AnyArray, factor: AnyArray, free_ms: float) -> AnyArray:
    """A relaxation time whose rate beyond that of free water, which does not vary, is multiplied."""
    rate = 1 / time_ms
    return 1 / (rate + (factor - 1) * np.maximum(rate - np.float32(1 / free_ms), 0))


def draw_spread(rng: Rng, sd: float) -> TissueSpread:
    """Random factors of an item; sd: their standard deviation, as logarithms."""
    frequencies = rng.standard_normal((3, WAVES, 3)) / TISSUE_LENGTH
    phases = rng.uniform(0, 2 * np.pi, (3, WAVES))
    return TissueSpread(sd, frequencies.astype(np.float32), phases.astype(np.float32))


@dataclass(frozen=True)
class Smooth:
    """A smooth random field over the volume: a few cosines."""

    strengths: AnyArray  # [len(ORDERS)]

    def at(self, places: Places) -> AnyArray:
        """The field at places, broadcast."""
        total: AnyArray = np.zeros((), np.float32)
        for wave, order in zip(self.strengths, ORDERS):
            for k, place in zip(order, places):
                if k:
                    wave = wave * np.cos(np.float32(np.pi * k) * place)
            total = total + wave
        return total


def draw_smooth(rng: Rng, sd: float) -> Smooth:
    """A field of mean 0 whose standard deviation over the volume is about `sd`."""
    strengths = rng.standard_normal(len(ORDERS)) / [sum(order) for order in ORDERS]
    # Cosines of one axis have the mean square 1/2, products of two 1/4.
    variance = sum(s**2 / 2 ** np.count_nonzero(order) for s, order in zip(strengths, ORDERS))
    return Smooth((sd * strengths / max(variance, 1e-6) ** 0.5).astype(np.float32))


@dataclass(frozen=True)
class Regions:
    """Signals of labels that no sequence decides, with a texture; some labels have two, in patches of about a centimetre.

    Source of the idea: Billot et al. 2023, Med Image Anal 86:102789.
    """

    signals: AnyArray  # [2, LABELS], of peaks and of troughs of the texture
    below: AnyArray  # [LABELS], the texture below which a label has its second signal
    contrast: AnyArray  # [LABELS], of the texture as a share of the signal
    frequencies: AnyArray  # [WAVES, 3], in waves along a head
    phases: AnyArray  # [WAVES]

    def at(self, labels: AnyArray, places: Places) -> AnyArray:
        """The signal of voxels with these labels at their places."""
        texture: AnyArray = np.zeros((), np.float32)
        for frequency, phase in zip(self.frequencies, self.phases):
            angle = sum(f * place for f, place in zip(frequency, places))
            texture = texture + np.cos(np.float32(2 * np.pi) * angle + phase)
        number = labels.astype(np.uint8)
        signal = self.signals[(texture < self.below[number]).astype(np.uint8), number]
        return np.asarray(signal * (1 + self.contrast[number] * texture), np.float32)


def draw_regions(rng: Rng) -> Regions:
    """Random signals of labels; half of those that hold several tissues have two."""
    signals = np.repeat(rng.random((1, LABELS)), 2, 0)
    apart = np.isin(np.arange(LABELS), MIXED) & (rng.random(LABELS) < 0.5)
    signals[1] *= np.exp(apart * rng.normal(0, 0.4, LABELS))
    contrast = 0.05 * rng.random(LABELS)
    frequencies = rng.normal(0, 12, (WAVES, 3))
    phases = rng.uniform(0, 2 * np.pi, WAVES)
    below = np.zeros(LABELS)
    # of a generator of its own, so that all other draws stay as they are
    (extra,) = rng.spawn(1)
    if extra.random() < TENDONS:
        below[Label.MUSCLE] = STRANDS
        signals[1, Label.MUSCLE] *= extra.uniform(0.1, 0.6)
    drawn = (signals, below, contrast, frequencies, phases)
    return Regions(*(each.astype(np.float32) for each in drawn))


@dataclass(frozen=True)
class Effects:
    """A scanner's effects on one image, by default none; `noise` and `black` are shares of the signal of the brightest tissue."""

    b1: Smooth | None = None  # deviation of the flip angle as a share
    gain: Smooth = Smooth(np.zeros(0, np.float32))  # logarithm
    thickness_mm: float = 0.0
    kept: Sequence[float] = (1.0, 1.0)  # shares of k-space along H and W
    filtered: float = 0.0  # strength of the filter against ringing: 0 none, 1 a squared cosine
    cuts: Sequence[float] = ()  # shares of the lines of k-space at which the head moves
    moves_mm: Sequence[Sequence[float]] = ()  # along H and W, one more than cuts
    noise: float = 0.0
    black: float = 0.0  # is subtracted
    # the largest signal of the scale, as a share of that of the brightest tissue
    clip: float = np.inf
    surface: float = 0.0  # by which coils make the tissue at the skin brighter, as a share
    surface_mm: float = 1.0  # depth over which that fades
    along: int = 0  # the axis of the part along which slices are thick: 0 that of its slices


def draw_effects(rng: Rng, settings: PhysicsSettings, field_t: float) -> Effects:
    """Random effects of a scanner of this field strength (T)."""
    # The wavelength shortens with the field, and with it the evenness of excitation.
    b1 = draw_smooth(rng, settings.b1 * field_t / FIELD_OF_B1)
    gain = draw_smooth(rng, settings.bias * rng.random())
    thickness_mm = settings.slice_mm * rng.random()
    # Squared, so that most scans are nearly as sharp as the cohort and have little noise.
    kept = 1 - (1 - settings.resolution) * rng.random(2) ** 2
    rings, strength = rng.random(2).tolist()
    filtered = 0.0 if rings < RINGING else 0.3 + 0.7 * strength
    moves = rng.random() < settings.motion
    segments = rng.integers(2, MOST_SEGMENTS + 1)
    cuts = np.sort(rng.random(segments - 1))
    moves_mm = rng.normal(0, MOTION_MM, (segments, 2))
    noise = settings.noise * rng.random() ** 2
    # Drawn only where it is asked for, so that without it all other draws stay as they are.
    black = settings.black * max(2 * rng.random() - 1, 0) if settings.black else 0.0
    # of a generator of its own, so that all other draws stay as they are
    (extra,) = rng.spawn(1)
    across, surface, clips, plane, clip, bright, deep = extra.random(7)
    along = 0 if across >= settings.across else 1 + int(plane < 0.5)
    return Effects(
        b1,
        gain,
        thickness_mm / 2 if along else thickness_mm,
        kept.tolist(),
        filtered,
        cuts.tolist() if moves else (),
        moves_mm.tolist() if moves else (),
        noise,
        black,
        0.5 + 0.5 * clip if clips < settings.clipped else np.inf,
        3 * bright if surface < settings.surface else 0.0,
        10 + 30 * deep,
        along,
    )


def in_plane(image: AnyArray, effects: Effects, spacing_mm: Sequence[float]) -> AnyArray:
    """The image from a part of its k-space, which the head's moves have put out of phase; float32 [..., H, W]."""
    if min(effects.kept) >= 1 and not effects.moves_mm:
        return image
    height, width = image.shape[-2:]
    frequencies_y = np.fft.fftfreq(height).astype(np.float32)
    frequencies_x = np.fft.rfftfreq(width).astype(np.float32)
    window_y, window_x = (
        _window(2 * np.abs(frequencies) / kept, effects.filtered)
        for frequencies, kept in zip((frequencies_y, frequencies_x), effects.kept)
    )
    from scipy.fft import irfft2, rfft2  # here, because no synthesis draws contrasts

    space = rfft2(image, workers=1)
    if effects.moves_mm:
        segment = np.searchsorted(effects.cuts, frequencies_y + 0.5)
        middle = int(np.searchsorted(effects.cuts, 0.5))
        away = np.array(effects.moves_mm) - effects.moves_mm[middle]
        y, x = ((away / spacing_mm)[segment].T).astype(np.float32)
        turns = (frequencies_y * y)[:, None] + frequencies_x[None] * x[:, None]
        space *= np.exp(np.complex64(-2j * np.pi) * turns)
    space *= window_y[:, None] * window_x[None]
    return np.asarray(irfft2(space, s=(height, width), workers=1), np.float32)


def _window(share: AnyArray, filtered: float) -> AnyArray:
    """1 in the part of k-space that is kept, 0 beyond; filtered: how far it falls towards the ends."""
    fall = np.cos(np.pi / 2 * np.minimum(share, 1)) ** 2
    inside: AnyArray = (share <= 1) * (1 - filtered + filtered * fall)
    return inside.astype(np.float32)


def rician(signal: AnyArray, sd: float, rng: Rng) -> AnyArray:
    """The magnitude of a signal with complex noise. Source: Gudbjartsson and Patz 1995, Magn Reson Med 34:910."""
    if sd == 0:
        return np.abs(signal)
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    noise *= np.float32(sd)
    return np.hypot(signal + noise[0], noise[1])
