"""Modalities of a case that are computed from its tissue-parameter maps when they are read, by `data.physics`.

A network must see them as it will see a real scan at synthesis: the scale of a drawn image comes from its whole case, by
the recipe's own intensity map. Its statistics are those of the same draw, noise and coils included, in a fixed random
sample of the case's body voxels; blur by slice thickness and resolution is left out of them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from voxlate.anatomy import scalp
from voxlate.anatomy.contrast import FULL_SCALE, Maps, Protocol, magnitude
from voxlate.anatomy.physics import (
    Effects,
    PhysicsSettings,
    Places,
    Regions,
    TissueSpread,
    draw_effects,
    draw_regions,
    draw_spread,
    in_plane,
    rician,
    voxel_places,
    within,
)
from voxlate.anatomy.scalp import Layers, Scalp
from voxlate.anatomy.tissue import INTRACRANIAL, VESSEL, Label, Rng
from voxlate.base.array_types import AnyArray
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND, stable_id
from voxlate.scans.cases.case import LABEL, MASK, PROTONS, CaseHeader, PreparedCase, Role
from voxlate.scans.cases.prepared import DRAWN_UNIT
from voxlate.scans.images.grid import slice_margin, through_plane
from voxlate.scans.images.intensity import IntensityMap, Statistics, distribution

# Sampled blocks of a case and their side in the plane: about 7000 voxels of the body count.
BLOCKS, BLOCK = 64, 24
EDGE = 4  # voxels at each side of a block that do not count, since k-space wraps around
BRIGHTEST = 99.0  # percentile of the body's signal to which noise is relative
TISSUES = LABEL + "seg"  # the phantom's label map, in which the brain is found
EVERYTHING = (slice(None), slice(None), slice(None))
CROSS = np.array(
    [[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool
)  # a pixel and its neighbours in the slice
SURFACE = (Label.CSF, Label.DURA, *VESSEL)  # what stripping removes around the brain
WATER_HU, BONE_HU, DENSEST_HU = 0.0, 150.0, 2200.0
LEAST_B1 = np.float32(
    0.2
)  # of the nominal flip angle: a draw at a strong field would turn it around

FEW_PROTONS = np.float32(
    0.6
)  # relative to water: tissue has more, a voxel that it shares with air or bone has fewer

Slab = tuple[slice, slice, slice]
Voxels = tuple[AnyArray, ...]  # indices along D, H, W, which broadcast against each other
Place = Slab | Voxels


@dataclass(frozen=True)
class _Sample:
    """The voxels of BLOCKS blocks of a case, each [BLOCK, BLOCK] of a slice, and the body in their middles."""

    voxels: Voxels
    body: AnyArray

    def inside(self, values: AnyArray) -> AnyArray:
        """The body's values of blocks [BLOCKS, BLOCK, BLOCK]."""
        return values[:, EDGE : BLOCK - EDGE, EDGE : BLOCK - EDGE][self.body]


class _Acquisition(NamedTuple):
    """The sequence of an image, the scanner's effects, and the generator of its noise.

    regions: signals of labels in place of the sequence's; None: those of the sequence.
    """

    protocol: Protocol
    effects: Effects
    rng: Rng
    regions: Regions | None = None

    @property
    def maps(self) -> Collection[str]:
        """The tissue-parameter maps that the image needs."""
        return self.protocol.maps if self.regions is None else (PROTONS,)

    @property
    def slice_mm(self) -> float:
        """The thickness of its slices; 0: as they are stored."""
        return 0.0 if self.effects.along else self.effects.thickness_mm


@dataclass(frozen=True)
class Drawn:
    """The contrasts of `data.physics` for the cases of a cohort; targets: the modalities that are targets."""

    physics: PhysicsSettings
    targets: tuple[str, ...]
    samples: dict[str, _Sample] = field(default_factory=dict, compare=False, repr=False)
    headers: dict[str, CaseHeader] = field(default_factory=dict, compare=False, repr=False)

    @property
    def names(self) -> Sequence[str]:
        """The modalities that are drawn."""
        return tuple(self.physics.contrasts)

    def computes(self, header: CaseHeader) -> bool:
        """Whether a stored case has the maps; raises BadInput where it lacks the labels that the settings need, too."""
        physics = self.physics
        if not physics.needs <= header.units.keys():
            return False
        has_regions = any(contrast.regions for contrast in physics.contrasts.values())
        if (has_regions or physics.stripped or physics.scalp) and "seg" not in header.labels:
            raise BadInput(
                f"case {header.case}: expected the label map seg for regions, stripped and scalp of data.physics, found {', '.join(header.labels) or 'none'}. Prepare the phantoms' folder as it was written, or set them to 0."
            )
        return True

    def add_to_header(self, case: PreparedCase) -> CaseHeader:
        """The header with the contrasts of the case's fixed draw; kept in memory."""
        header = case.header
        key = f"{header.case} {header.checksum}"
        if key not in self.headers:
            self.headers[key] = self.with_contrasts(case)
        return self.headers[key]

    def with_contrasts(self, case: PreparedCase, *number: int) -> CaseHeader:
        """The header with the contrasts of a draw by its number, by default those of the case's fixed draw."""
        header = case.header
        item = self.item(case, stable_id("physics", header.case, *number))
        statistics = {name: item.statistics(item.acquire(name))[0] for name in self.names}
        mask_ml = header.mask_ml
        if item.stripped:  # the volume of a brain, with which scans are compared
            left = case.mask([PROTONS]) & item.remainder(EVERYTHING)
            mask_ml = float(left.sum() * np.prod(header.spacing_mm) / 1000)
        return replace(
            header,
            units=header.units | dict.fromkeys(self.names, DRAWN_UNIT),
            origins=header.origins | dict.fromkeys(self.names, header.origins[PROTONS]),
            statistics=header.statistics | statistics,
            voxels=header.voxels | dict.fromkeys(self.names, header.voxels.get(PROTONS, "")),
            mask_ml=mask_ml,
        )

    def sample_of(self, case: PreparedCase) -> _Sample:
        """The sampled blocks of a case; kept in memory."""
        key = f"{case.header.case} {case.axes} {case.header.checksum}"
        if key not in self.samples:
            self.samples[key] = _draw_sample(case)
        return self.samples[key]

    def item(self, case: PreparedCase, seed: int) -> "Item":
        """A case as a seed alone decides how it is drawn."""
        rng = np.random.default_rng(seed)
        field_t = within(rng.random(), self.physics.field_t)
        spread = draw_spread(rng, self.physics.tissue_spread)
        strips, _, _, depth = rng.random(4)
        new_scalp = rng.random() < self.physics.scalp
        of_thin, of_dense = rng.spawn(2)
        thin, dense = (
            most * own.uniform((0.0, 0.3), (0.5, 1.0))
            for most, own in ((self.physics.thin, of_thin), (self.physics.dense, of_dense))
        )
        return Item(
            self,
            case,
            seed,
            field_t,
            spread,
            bool(strips < self.physics.stripped),
            self.physics.strip_mm * depth,
            scalp.draw(rng) if new_scalp else None,
            thin,
            dense,
        )

    def whole(self, case: PreparedCase, name: str) -> AnyArray:
        """The image of a whole case in its fixed draw, float32 [D, H, W]; 0 where the skull is removed."""
        item = self.item(case, stable_id("physics", case.header.case))
        image, _ = item.image(item.acquire(name), EVERYTHING)
        return np.where(item.remainder(EVERYTHING), image, np.float32(0))


@dataclass(frozen=True)
class Item:
    """A case in one draw: what all its modalities share, the scanner's field, the patient's tissue, and the parts cut away.

    strip_mm: depth of CSF that stripping removes from the brain's surface; scalp: None: that of the stored maps; thin, dense:
    shares by which bone is thinner and denser, of the vault and beyond.
    """

    drawn: Drawn
    case: PreparedCase
    seed: int
    field_t: float
    spread: TissueSpread
    stripped: bool
    strip_mm: float
    scalp: Scalp | None
    thin: AnyArray
    dense: AnyArray

    def read(
        self, name: str, spec: IntensityMap, place: Slab, steps: Sequence[int], role: Role
    ) -> list[AnyArray]:
        """A part of the case in network units, [D, H, W], once for each of `steps` slices away from it."""
        depth, rows, columns = place
        last = self.case.header.shape[0] - 1
        wanted = [np.clip(np.arange(depth.start, depth.stop) + step, 0, last) for step in steps]
        first = min(int(slices[0]) for slices in wanted)
        slab = (slice(first, max(int(slices[-1]) for slices in wanted) + 1), rows, columns)
        image, statistics = self.image(self.acquire(name, role), slab)
        scaled = spec.scale(statistics).forward(image)
        scaled = np.where(self.remainder(slab), scaled, np.float32(BACKGROUND))
        return [scaled[slices - first] for slices in wanted]

    @property
    def slice_mm(self) -> float:
        """The slice thickness of the stored images; 0: as they are stored."""
        if not self.drawn.physics.same_slices:
            return 0.0
        return self.acquire(self.drawn.names[0], "source").slice_mm

    def stored(self, name: str, place: Place, values: AnyArray) -> AnyArray:
        """The values of a stored image at a part of the case, with the item's scalp and its bone in a CT."""
        if self.case.header.units[name] != "HU":
            return values
        physics = self.drawn.physics
        if physics.thin or physics.dense:
            in_vault = self.case.arrays["vault_map"][place] <= 0
            if physics.thin:
                values = _thinner(values, _by_place(self.thin, in_vault))
            if physics.dense:
                values = _denser(values, _by_place(self.dense, in_vault))
        layers = self._layers(place)
        return values if layers is None else layers.hounsfield(values)

    def body(self, place: Slab, inside: AnyArray) -> AnyArray:
        """The mask of a part of the case, `inside` as it is stored, with the item's scalp and without what is removed."""
        if self.scalp is not None:
            inside = inside | (self.case.arrays["skin_map"][place] > -self.scalp.grown_mm)
        return inside & self.remainder(place)

    def remainder(self, place: Place) -> AnyArray:
        """Where skull stripping leaves the image; broadcasts against the part.

        Without what surrounds the brain up to a depth below the surface of each slice, as strippers leave it; the border of
        the part is not a surface.
        """
        if not self.stripped:
            return np.ones((1, 1, 1), bool)
        tissues = self.case.arrays[TISSUES][place]
        inside: AnyArray = np.isin(tissues, INTRACRANIAL)
        steps = round(self.strip_mm / self.case.header.spacing_mm[1])
        if steps == 0:
            return inside
        deep = ndimage.binary_erosion(inside, CROSS, iterations=steps, border_value=1)
        return inside & (deep | ~np.isin(tissues, SURFACE))

    def _layers(self, place: Place) -> Layers | None:
        """The layers of the scalp in a part of the case, if it is a new one."""
        if self.scalp is None:
            return None
        maps = (self.case.arrays[name][place] for name in (TISSUES, *scalp.PLACES))
        return scalp.layers(self.scalp, *maps)

    def acquire(self, name: str, role: Role | None = None) -> _Acquisition:
        """The acquisition of a modality; a target has the middle of each range, and no effects.

        role: by default that of the modality.
        """
        physics = self.drawn.physics
        contrast = physics.contrasts[name]
        rng = np.random.default_rng([self.seed, stable_id(name)])
        role = role or ("target" if name in self.drawn.targets else "source")
        if role == "target":
            return _Acquisition(contrast.centre(physics.target_field_t), Effects(), rng)
        protocol = contrast.draw(rng, self.field_t)
        effects = draw_effects(rng, physics, self.field_t)
        # Drawn only where they are asked for, so that without them all other draws stay as they are.
        if contrast.regions == 0 or rng.random() >= contrast.regions:
            return _Acquisition(protocol, effects, rng)
        return _Acquisition(protocol, effects, rng, draw_regions(rng))

    def image(self, acquisition: _Acquisition, place: Slab) -> tuple[AnyArray, Statistics]:
        """The image of a part of the case, and the statistics of that of the whole case."""
        statistics, brightest = self.statistics(acquisition)
        shape = self.case.header.shape
        slices, rows, columns = (np.arange(n)[part] for n, part in zip(shape, place))
        reach = self._reach(acquisition)
        reached = np.arange(slices[0] - reach, slices[-1] + reach + 1).clip(0, shape[0] - 1)
        image = self._simulate(acquisition, np.ix_(reached, rows, columns))
        return _receive(image, acquisition, brightest), statistics

    def statistics(self, acquisition: _Acquisition) -> tuple[Statistics, float]:
        """The statistics of the body in the sampled blocks, and the signal of its brightest tissue."""
        sample = self.drawn.sample_of(self.case)
        slices, *plane = sample.voxels
        reach = self._reach(acquisition)
        profile = np.arange(-reach, reach + 1)[:, None, None, None]
        reached = (slices + profile).clip(0, self.case.header.shape[0] - 1)
        (blocks,) = self._simulate(acquisition, (reached, *plane))
        clean = sample.inside(blocks)
        brightest = float(np.percentile(clean, BRIGHTEST))
        signal = _receive(clean, acquisition, brightest)
        counted = sample.inside(np.broadcast_to(self.remainder(sample.voxels), blocks.shape))
        values = distribution(signal[counted] if counted.any() else signal)
        return Statistics(values, values, (), ()), brightest

    def _reach(self, acquisition: _Acquisition) -> int:
        """How many slices away a slice of an image reaches."""
        return slice_margin(acquisition.slice_mm, self.case.header.spacing_mm[0])

    def _simulate(self, acquisition: _Acquisition, voxels: Voxels) -> AnyArray:
        """The image at voxels of the case without noise, of each slice from whose profile others are given."""
        case = self.case
        maps = {key: case.arrays[key][voxels].astype(np.float32) for key in acquisition.maps}
        layers = self._layers(voxels)
        if layers is not None:
            maps = layers.maps(maps)
        places = voxel_places(voxels, case.header.shape)
        effects = acquisition.effects
        if acquisition.regions is None:
            signal = _signal(acquisition, self.spread, maps, places)
        else:
            labels = case.arrays[TISSUES][voxels]
            labels = labels if layers is None else layers.labels(labels)
            # voxels with few protons, such as dense bone, stay dark
            share = np.minimum(maps[PROTONS] / FEW_PROTONS, 1)
            signal = acquisition.regions.at(labels, places) * share
        image = np.float32(FULL_SCALE) * (signal * np.exp(effects.gain.at(places)))
        slice_mm, *pixel_mm = case.header.spacing_mm
        if effects.surface:
            below = np.maximum(case.arrays["skin_map"][voxels].astype(np.float32), 0)
            image *= 1 + effects.surface * np.exp(-below / np.float32(effects.surface_mm))
        if effects.along:
            axis = effects.along - 3  # of slices, and of blocks of them
            image = _along(image, axis, effects.thickness_mm, case.header.spacing_mm[axis])
        else:
            image = through_plane(image, effects.thickness_mm, slice_mm)
        return in_plane(image, effects, pixel_mm)


def _draw_sample(case: PreparedCase) -> _Sample:
    """Blocks that show some of the body; evenly placed, so that each of its voxels is equally likely."""
    inside = np.ones(case.header.shape, bool)
    if MASK in case.arrays:
        inside = case.mask([PROTONS])
    _, height, width = inside.shape
    levels = np.flatnonzero(inside.any(axis=(1, 2)))
    rng = np.random.default_rng(stable_id("sample", case.header.case))
    middle = slice(EDGE, BLOCK - EDGE)
    blocks = list[tuple[int, AnyArray, AnyArray]]()
    body = list[AnyArray]()
    while len(blocks) < BLOCKS:
        z = int(levels[rng.integers(len(levels))])
        # A block may lie half outside, where it repeats the border: voxels there count as often as others.
        rows, columns = (
            rng.integers(1 - BLOCK + EDGE, n - EDGE) + np.arange(BLOCK) for n in (height, width)
        )
        exists = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        part = (inside[z][np.ix_(rows, columns)] & exists)[middle, middle]
        if part.any():
            blocks.append((z, rows, columns))
            body.append(part)
    slices, all_rows, all_columns = map(np.array, zip(*blocks))
    voxels = slices[:, None, None], all_rows[:, :, None], all_columns[:, None, :]
    return _Sample(voxels, np.stack(body))


def _receive(signal: AnyArray, acquisition: _Acquisition, brightest: float) -> AnyArray:
    """The magnitude with noise, without what is subtracted from it."""
    effects = acquisition.effects
    noisy = rician(signal, effects.noise * brightest, acquisition.rng)
    if effects.clip < 1:
        noisy = np.minimum(noisy, np.float32(effects.clip * brightest))
    if effects.black == 0:
        return noisy
    return np.maximum(noisy - np.float32(effects.black * brightest), 0)


def _by_place(shares: AnyArray, in_vault: AnyArray) -> AnyArray:
    """The share at each voxel, of those of the vault and beyond."""
    of_vault, beyond = shares.astype(np.float32)
    return np.where(in_vault, of_vault, beyond)


def _thinner(hu: AnyArray, share: AnyArray) -> AnyArray:
    """HU [..., H, W] with bone that is thinner by shares of a pixel."""
    least = ndimage.grey_erosion(hu, size=(*(1,) * (hu.ndim - 2), 3, 3))
    soft = np.maximum(least, np.float32(WATER_HU))
    return np.where(hu > BONE_HU, hu + share * (soft - hu), hu)


def _denser(hu: AnyArray, share: AnyArray) -> AnyArray:
    """HU [..., H, W] with bone that is denser by shares; what is denser than bone stays."""
    densest = np.maximum(hu, np.float32(DENSEST_HU))
    return np.where(hu > BONE_HU, np.minimum(hu + share * (hu - BONE_HU), densest), hu)


def _along(image: AnyArray, axis: int, thickness_mm: float, spacing_mm: float) -> AnyArray:
    """Means over slices that are thick along an axis of the image."""
    reach = slice_margin(thickness_mm, spacing_mm)
    first = np.moveaxis(image, axis, 0)
    around = np.pad(first, [(reach, reach), *[(0, 0)] * (first.ndim - 1)], mode="edge")
    return np.moveaxis(through_plane(around, thickness_mm, spacing_mm), 0, axis)


def _signal(
    acquisition: _Acquisition, spread: TissueSpread, maps: Maps, places: Places
) -> AnyArray:
    """The signal of voxels at their places as a share of that of water; float32, shaped as the maps."""
    out = np.zeros(maps[PROTONS].shape, np.float32)
    there = maps[PROTONS] > 0  # half of a slice is air
    tissue = spread.of({name: values[there] for name, values in maps.items()})
    reached: AnyArray | float = 1.0
    b1 = acquisition.effects.b1
    if b1 is not None:
        deviation = np.broadcast_to(b1.at(places), out.shape)[there]
        reached = np.maximum(1 + deviation, LEAST_B1)
    out[there] = magnitude(acquisition.protocol, tissue, reached)
    return out
