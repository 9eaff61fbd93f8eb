"""Scalps in layers, drawn when an item is read: skin, a dark septum, fat, and a dark galea on the vault of the skull.

Every reading of a head has another scalp; half of them lie further out, which CT and mask follow. Muscle stays where it is thick.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxlate.anatomy.shapes import Triple
from voxlate.anatomy.tissue import INTRACRANIAL, SKULL, Label, Rng
from voxlate.base.array_types import AnyArray

PLACES = ("skin_map", "vault_map")
SEPTUM, GALEA = 250, 251  # labels of layers that label maps do not have
LAYERS = np.array([Label.SKIN, SEPTUM, Label.FAT, GALEA, Label.AIR])
_VAULT_MM = 15.0  # bone closer to the content of the skull is its vault or base
_NEAREST_MM, _FARTHEST_MM = -8.0, 60.0  # between which depths and distances are stored
_SOFT_MM = 0.6  # by which distances of voxels are smoothed, so that thin layers have no steps
_AIR_HU = -1000.0
_GROWN_MM = 5.0
_MEANS = ("fat_map", "gd_map")
_TIMES = ("t1_map", "t2_map", "t2star_map")
_SCALP = np.isin(np.arange(256), (Label.AIR, Label.SKIN, Label.FAT, Label.MUSCLE))


def skin_map(labels: AnyArray, spacing_mm: Triple) -> AnyArray:
    """Depth in mm below the skin of a head with these labels [D, H, W], negative outside."""
    body = labels != Label.AIR
    return _stored(np.where(body, _away(~body, spacing_mm), -_away(body, spacing_mm)), spacing_mm)


def vault_map(labels: AnyArray, spacing_mm: Triple) -> AnyArray:
    """Distance in mm from the vault and base of the skull, whose inside is at 0."""
    vault = np.isin(labels, INTRACRANIAL)
    if not vault.any():
        return np.full(labels.shape, _FARTHEST_MM, np.float32)
    vault |= np.isin(labels, SKULL) & (_away(vault, spacing_mm) < _VAULT_MM)
    return _stored(_away(vault, spacing_mm), spacing_mm)


def _away(mask: AnyArray, spacing_mm: Triple) -> AnyArray:
    """Distance in mm from the surface of a mask, which is half a voxel beyond the middles of its voxels."""
    middles = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.maximum(middles - min(spacing_mm) / 2, 0).astype(np.float32)


def _stored(place: AnyArray, spacing_mm: Triple) -> AnyArray:
    near = np.clip(place, _NEAREST_MM, _FARTHEST_MM)
    return np.asarray(ndimage.gaussian_filter(near, np.divide(_SOFT_MM, spacing_mm)))


@dataclass(frozen=True)
class Scalp:
    """The random numbers of one scalp; constants: of skin, septum, fat and galea, by the names of maps and "hu"."""

    grown_mm: float
    skin_mm: float
    septum_mm: float
    galea_mm: float
    constants: Mapping[str, AnyArray]


def draw(rng: Rng) -> Scalp:
    """Draw a scalp."""
    grown = rng.uniform(0, _GROWN_MM) if rng.random() < 0.5 else 0.0
    skin, septum, galea = rng.uniform((1.0, 0.0, 0.3), (3.0, 2.4, 2.5)).tolist()
    pd = rng.uniform((0.5, 0.12, 0.6, 0.15), (0.9, 0.5, 1.0, 0.6))
    t1 = np.exp(rng.uniform(np.log((350, 700, 240, 700)), np.log((1300, 1300, 520, 1400))))
    t2 = np.exp(rng.uniform(np.log((28, 14, 45, 16)), np.log((60, 28, 150, 45))))
    hu = rng.uniform((10, -40, -115, 10), (60, 40, -75, 60))
    constants = {
        "pd_map": pd,
        "t1_map": t1,
        "t2_map": t2,
        "t2star_map": t2 * rng.uniform(0.25, 0.6, 4),
        "fat_map": np.array([0.05, 0.1, 0.92, 0.05]),
        "gd_map": np.array([0.15, 0.05, 0.0, 0.05]),
        "chi_map": np.array([0.0, 0.0, 0.65, 0.0]),
        "hu": hu,
    }
    return Scalp(
        grown, skin, septum, galea, {k: v.astype(np.float32) for k, v in constants.items()}
    )


@dataclass(frozen=True)
class Layers:
    """The layers of a scalp at voxels of a case.

    there: bool, the voxels that it decides; shares: [5, n], of skin, septum, fat, galea and of what was there, such as muscle,
    in each of these; the rest is air.
    """

    scalp: Scalp
    there: AnyArray
    shares: AnyArray

    def maps(self, maps: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Tissue-parameter maps with the scalp in place; some of `maps`, float32, pd_map among them."""
        constants, own = self.scalp.constants, {k: v[self.there] for k, v in maps.items()}
        protons = self.shares[:4] * constants["pd_map"][:, None]
        kept = self.shares[4] * own["pd_map"]
        total = protons.sum(0) + kept
        weight = np.float32(1) / np.maximum(total, np.float32(1e-6))
        out = {}
        for name, values in maps.items():
            new = np.zeros_like(total)
            if name == "pd_map":
                new = total
            elif name == "chi_map":
                new = constants[name] @ self.shares[:4] + self.shares[4] * own[name]
            elif name in _MEANS:
                new = (constants[name] @ protons + kept * own[name]) * weight
            elif name in _TIMES:
                rate = (1 / constants[name]) @ protons + kept / np.maximum(own[name], 0.1)
                new = np.where(total > 0, 1 / np.maximum(rate * weight, 1e-6), 0)
            out[name] = _replaced(values, self.there, new)
        return out

    def labels(self, labels: AnyArray) -> AnyArray:
        """Labels with those of the layers."""
        named = LAYERS[np.vstack([self.shares[:4], 1 - self.shares.sum(0)]).argmax(0)]
        kept = self.shares[4] >= 0.5
        return _replaced(labels, self.there, np.where(kept, labels[self.there], named))

    def hounsfield(self, values: AnyArray) -> AnyArray:
        """HU with the scalp in place."""
        new = self.scalp.constants["hu"] @ self.shares[:4] + self.shares[4] * values[self.there]
        new += (1 - self.shares.sum(0)) * np.float32(_AIR_HU)
        return _replaced(values.astype(np.float32), self.there, new)


def _replaced(values: AnyArray, there: AnyArray, new: AnyArray) -> AnyArray:
    """A copy of an array with other values at some voxels."""
    out = values.copy()
    out[there] = new
    return out


def layers(scalp: Scalp, labels: AnyArray, depth_mm: AnyArray, vault_mm: AnyArray) -> Layers:
    """The layers of a scalp at voxels with these labels, depths below the skin and distances from the vault."""
    there = _SCALP[labels.astype(np.uint8)] & (depth_mm > -1 - scalp.grown_mm)
    depth = depth_mm[there].astype(np.float32) + np.float32(scalp.grown_mm)
    muscle = labels[there] == Label.MUSCLE
    body, below_skin, below_septum = (
        np.clip(depth - np.float32(end) + np.float32(0.5), 0, 1)
        for end in (0, scalp.skin_mm, scalp.skin_mm + scalp.septum_mm)
    )
    above = np.clip(vault_mm[there].astype(np.float32) - np.float32(scalp.galea_mm - 0.5), 0, 1)
    inner = below_septum * above
    galea = below_septum - inner
    shares = [body - below_skin, below_skin - below_septum, inner * ~muscle, galea, inner * muscle]
    return Layers(scalp, there, np.stack(shares).astype(np.float32))
