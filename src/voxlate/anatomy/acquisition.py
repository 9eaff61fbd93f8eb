"""What a scanner adds to the signal of a drawn contrast: uneven coils, slice profile, k-space, motion and noise.

All is drawn once for an item from its generator; places are shares of the whole volume, so that a slab and a sample of
voxels see the same fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlate.anatomy.contrast import FREE_WATER_T1_MS, Maps
from voxlate.anatomy.physics import PhysicsSettings
from voxlate.anatomy.tissue import Label

FREE_RATES = {
    "t1_map": 1 / FREE_WATER_T1_MS,
    "t2_map": 1 / 2000,
}  # 1 / ms, of free water, which does not vary
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
RINGING = 0.5  # share of items with Gibbs ringing; others are filtered
MOST_SEGMENTS = 6  # of k-space, between which the head moves
MOTION_MM = 1.5  # standard deviation of its displacement
FIELD_OF_B1 = 3.0  # T, at which settings state the spread of the flip angle

Array = np.ndarray
Places = tuple[Array, Array, Array]  # z, y, x of voxels in 0..1; they broadcast against each other


@dataclass(frozen=True)
class TissueSpread:
    """Random log factors on PD, 1/T1 and 1/T2, each a smooth function of a voxel's own parameters.

    Tissues of similar parameters vary together, different ones independently; no label map is needed.
    """

    sd: float
    frequencies: Array  # [3, WAVES, 3]
    phases: Array  # [3, WAVES]

    def of(self, maps: Maps) -> Maps:
        """The maps of this item: free water and voxels without protons stay."""
        if self.sd == 0:
            return maps
        t1 = np.maximum(maps["t1_map"], 1)
        t2 = np.maximum(maps.get("t2_map", t1), 1)
        features = (np.log(t1), np.log(t2), 2 * maps["pd_map"])
        factors = [self._factor(k, features) for k in range(3)]
        changed = {**maps, "pd_map": maps["pd_map"] * factors[0]}
        changed["t1_map"] = _slow(t1, factors[1], FREE_RATES["t1_map"])
        if "t2_map" in maps:
            changed["t2_map"] = _slow(t2, factors[2], FREE_RATES["t2_map"])
        if "t2star_map" in maps:
            t2star = np.maximum(maps["t2star_map"], np.float32(0.1))
            dephasing = 1 / t2star - 1 / t2
            changed["t2star_map"] = 1 / (1 / changed["t2_map"] + np.maximum(dephasing, 0))
        return changed

    def _factor(self, k: int, features: tuple[Array, Array, Array]) -> Array:
        total = np.zeros_like(features[0])
        for (a, b, c), phase in zip(self.frequencies[k], self.phases[k]):
            total += np.cos(a * features[0] + b * features[1] + c * features[2] + phase)
        return np.exp(np.float32(self.sd * (2 / WAVES) ** 0.5) * total)


def _slow(time_ms: Array, factor: Array, free: float) -> Array:
    """A relaxation time whose rate beyond that of free water is multiplied."""
    rate = 1 / time_ms
    return 1 / (rate + (factor - 1) * np.maximum(rate - np.float32(free), 0))


def draw_spread(rng: np.random.Generator, sd: float) -> TissueSpread:
    """Random factors of an item; sd: their standard deviation, as logarithms."""
    frequencies = rng.standard_normal((3, WAVES, 3)) / TISSUE_LENGTH
    phases = rng.uniform(0, 2 * np.pi, (3, WAVES))
    return TissueSpread(sd, frequencies.astype(np.float32), phases.astype(np.float32))


@dataclass(frozen=True)
class Smooth:
    """A smooth random field over the volume: a few cosines."""

    strengths: Array  # [len(ORDERS)]

    def at(self, places: Places) -> Array:
        """The field at places, broadcast."""
        total: Array = np.zeros((1,) * places[0].ndim, np.float32)
        for strength, order in zip(self.strengths, ORDERS):
            wave: Array = np.full((1,) * places[0].ndim, strength, np.float32)
            for k, place in zip(order, places):
                if k:
                    wave = wave * np.cos(np.float32(np.pi * k) * place)
            total = total + wave
        return total


def draw_smooth(rng: np.random.Generator, sd: float) -> Smooth:
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

    signals: Array  # [2, LABELS], of peaks and of troughs of the texture
    contrast: Array  # [LABELS], of the texture as a share of the signal
    frequencies: Array  # [WAVES, 3], in waves along a head
    phases: Array  # [WAVES]

    def at(self, labels: Array, places: Places) -> Array:
        """The signal of voxels with these labels at their places."""
        texture: Array = np.zeros((1,) * labels.ndim, np.float32)
        for frequency, phase in zip(self.frequencies, self.phases):
            angle = sum(f * place for f, place in zip(frequency, places))
            texture = texture + np.cos(np.float32(2 * np.pi) * angle + phase)
        number = labels.astype(np.uint8)
        signal = self.signals[(texture < 0).astype(np.uint8), number]
        return np.asarray(signal * (1 + self.contrast[number] * texture), np.float32)


def draw_regions(rng: np.random.Generator) -> Regions:
    """Random signals of labels; half of those that hold several tissues have two."""
    signals = np.repeat(rng.random((1, LABELS)), 2, 0)
    apart = np.isin(np.arange(LABELS), MIXED) & (rng.random(LABELS) < 0.5)
    signals[1] *= np.exp(apart * rng.normal(0, 0.4, LABELS))
    contrast = 0.05 * rng.random(LABELS)
    frequencies = rng.normal(0, 12, (WAVES, 3))
    phases = rng.uniform(0, 2 * np.pi, WAVES)
    return Regions(*(each.astype(np.float32) for each in (signals, contrast, frequencies, phases)))


@dataclass(frozen=True)
class Effects:
    """A scanner's effects on one image, by default none; `noise` and `black` are shares of the signal of the brightest tissue."""

    b1: Smooth | None = None  # deviation of the flip angle as a share
    gain: Smooth = Smooth(np.zeros(0, np.float32))  # logarithm
    thickness_mm: float = 0.0
    kept: tuple[float, ...] = (1.0, 1.0)  # shares of k-space along H and W
    filtered: float = 0.0  # strength of the filter against ringing: 0 none, 1 a squared cosine
    cuts: tuple[float, ...] = ()  # shares of the lines of k-space at which the head moves
    moves_mm: tuple[tuple[float, ...], ...] = ()  # along H and W, one more than cuts
    noise: float = 0.0
    black: float = 0.0  # is subtracted
    # the largest signal of the scale, as a share of that of the brightest tissue
    clip: float = np.inf
    surface: float = 0.0  # by which coils make the tissue at the skin brighter, as a share
    surface_mm: float = 1.0  # depth over which that fades
    along: int = 0  # the axis of the part along which slices are thick: 0 that of its slices


def draw_effects(rng: np.random.Generator, settings: PhysicsSettings, field_t: float) -> Effects:
    """Random effects of a scanner of this field strength (T)."""
    # The wavelength shortens with the field, and with it the evenness of excitation.
    b1 = draw_smooth(rng, settings.b1 * field_t / FIELD_OF_B1)
    gain = draw_smooth(rng, settings.bias * rng.random())
    thickness_mm = settings.slice_mm * rng.random()
    # Squared, so that most scans are nearly as sharp as the cohort and have little noise.
    kept = 1 - (1 - settings.resolution) * rng.random(2) ** 2
    rings, strength = rng.random(2)
    filtered = 0.0 if rings < RINGING else 0.3 + 0.7 * strength
    moves = rng.random() < settings.motion
    segments = int(rng.integers(2, MOST_SEGMENTS + 1))
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
        tuple(kept.tolist()),
        float(filtered),
        tuple(cuts.tolist()) if moves else (),
        tuple(map(tuple, moves_mm.tolist())) if moves else (),
        float(noise),
        float(black),
        0.5 + 0.5 * clip if clips < settings.clipped else np.inf,
        3 * bright if surface < settings.surface else 0.0,
        10 + 30 * deep,
        along,
    )


def in_plane(image: Array, effects: Effects, spacing_mm: Sequence[float]) -> Array:
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


def _window(share: Array, filtered: float) -> Array:
    """1 in the part of k-space that is kept, 0 beyond; filtered: how far it falls towards the ends."""
    fall = np.cos(np.pi / 2 * np.minimum(share, 1)) ** 2
    inside: Array = (share <= 1) * (1 - filtered + filtered * fall)
    return inside.astype(np.float32)


def rician(signal: Array, sd: float, rng: np.random.Generator) -> Array:
    """The magnitude of a signal with complex noise. Source: Gudbjartsson and Patz 1995, Magn Reson Med 34:910."""
    if sd == 0:
        return np.abs(signal)
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    noise *= np.float32(sd)
    return np.hypot(signal + noise[0], noise[1])
