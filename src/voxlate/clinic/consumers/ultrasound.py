"""Transcranial ultrasound: acoustic properties of the skull from HU, its thickness and its density ratio along a beam.

Conversions by name, each with its source below. In all of them soft tissue and air are water: only the skull is converted.
Coefficients are those of BabelBrain (k-Wave's density, Marsac, McDannold, the attenuation by porosity) and PRESTUS (k-Plan).
Skull density ratio: Chang et al. 2016 (J. Neurosurg. 124:411): the mean over rays of the least HU between the outer and the
inner table (marrow) over the largest (cortical bone).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from numpy.polynomial.polynomial import polyval

from voxlate.base.arrays import AnyArray
from voxlate.base.errors import BadInput
from voxlate.clinic.consumers.beams import before_grid, frame_of, walk
from voxlate.scans.images.grid import Grid, Volume
from voxlate.scans.images.mask import BODY_HU, close_gaps, largest

SKULL_HU = 300.0
CLOSE_MM = 2.0  # half the width of the gaps of the mask (sutures, marrow) that are closed
DIPLOE_MM = 5.0  # a wider gap below the threshold ends the skull: behind it is another bone
RAYS_MM = 2.0
VAULT_MM = 130.0  # below the vertex: the height of the brain's part of a skull
MOST_RUN_MM = 30.0  # a longer way through bone runs along it, as through the base of the skull
SCALP_MM = 20.0  # from skin to bone
WATER_DENSITY, WATER_SPEED = 1000.0, 1500.0  # kg/m3, m/s
NEPER_DB = 8.686
Property = Callable[[AnyArray, float], AnyArray]


@dataclass(frozen=True)
class Conversion:
    """Density (kg/m3), speed of sound (m/s) and attenuation (dB/(MHz cm), linear in frequency) of HU in the skull.

    Each takes HU and the largest HU of the skull. attenuation: None where the source has none.
    """

    source: str
    density: Property
    speed: Property
    attenuation: Property | None


def _porosity(hu: AnyArray, _: float) -> AnyArray:
    """Share of water in bone; Aubry et al. 2003: 1 at 0 HU, 0 at 1000 HU."""
    return np.clip(1 - hu / 1000, 0, 1)


def _share(hu: AnyArray, most: float) -> AnyArray:
    """Share of the largest HU of the skull; Marsac et al. 2017, with a least value of 0 HU."""
    return np.clip(hu / most, 0, 1)


def _schneider_density(hu: AnyArray, _: float) -> AnyArray:
    """Density by lines through the tissues of Schneider et al. 1996, with the coefficients of k-Wave's hounsfield2density."""
    raised = hu + 1000
    soft = np.where(raised < 930, 1.0257931 * raised - 5.6804040, 0.9082710 * raised + 103.61515)
    bone = np.where(raised < 1260, 0.5108369 * raised + 539.99772, 0.6625371 * raised + 348.85552)
    return np.where(raised <= 1098, soft, bone)


def _mcdannold_density(hu: AnyArray, _: float) -> AnyArray:
    """Density by a line through air (1.293) and tissue (1041 kg/m3 at 27 HU)."""
    return 1.01237293 * hu + 1013.66593


CONVERSIONS: dict[str, Conversion] = {
    "kplan": Conversion(
        "k-Plan: density by Schneider et al. 1996 (k-Wave hounsfield2density), speed 1.33 density + 167 m/s, attenuation 13.3 dB/(MHz cm)",
        _schneider_density,
        lambda hu, most: 1.33 * _schneider_density(hu, most) + 167,
        lambda hu, most: np.full_like(hu, 13.3),
    ),
    "marsac2017": Conversion(
        "Marsac et al. 2017 (Int. J. Hyperthermia 33:635): 1000 to 2700 kg/m3 and 1500 to 3000 m/s, linear from 0 HU to the largest HU of the skull; no attenuation",
        lambda hu, most: 1000 + 1700 * _share(hu, most),
        lambda hu, most: 1500 + 1500 * _share(hu, most),
        None,
    ),
    "aubry2003": Conversion(
        "Aubry et al. 2003 (J. Acoust. Soc. Am. 113:84): porosity 1 - HU/1000, 1000 to 2100 kg/m3, 1500 to 2900 m/s; attenuation 0.2 to 8 dB/(MHz cm) by the root of the porosity, as BabelBrain takes it",
        lambda hu, most: 2100 - 1100 * _porosity(hu, most),
        lambda hu, most: 2900 - 1400 * _porosity(hu, most),
        lambda hu, most: 0.2 + 7.8 * np.sqrt(_porosity(hu, most)),
    ),
    "mcdannold2020": Conversion(
        "McDannold, White and Cosgrove 2020 (IEEE Trans. Med. Imaging 39:3231): polynomials of density, attenuation measured at 0.66 MHz and taken as linear in frequency, with BabelBrain's coefficients",
        _mcdannold_density,
        lambda hu, most: (
            1
            / polyval(
                _mcdannold_density(hu, most), [1.24e-3, -7.63e-7, 1.69e-10, 5.31e-16, -2.79e-18]
            )
        ),
        lambda hu, most: (
            polyval(_mcdannold_density(hu, most), [5.71e3, -9.02, 5.40e-3, -1.41e-6, 1.36e-10])
            * (NEPER_DB / 100 / 0.66)
        ),
    ),
}


def bone_of(ct: Volume) -> AnyArray:
    """The bone above SKULL_HU in a CT in HU, with marrow and sutures, bool [D, H, W]."""
    return close_gaps(ct.data[0] > SKULL_HU, CLOSE_MM, ct.grid.spacing_mm)


def skull_of(ct: Volume) -> AnyArray:
    """The skull in a CT in HU, bool [D, H, W]: the largest of its bones. Raises BadInput where there is none."""
    bone = bone_of(ct)
    if not bone.any():
        raise BadInput(
            f"{ct.origin or ct.modality}: expected a skull above {SKULL_HU:g} HU, found none. Check the CT and its unit."
        )
    return largest(bone)


def acoustic_maps(hu: AnyArray, skull: AnyArray, name: str, most: float) -> dict[str, AnyArray]:
    """Maps [D, H, W] by the conversion of a name: density, sound_speed, and alpha_coeff where its source has one.

    most: the largest HU of the skull, to which Marsac et al. refer. Outside the skull all is water.
    """
    conversion = CONVERSIONS[name]
    inside = hu[skull].astype(np.float64).clip(0)
    properties: dict[str, tuple[float, Property | None]] = {
        "density": (WATER_DENSITY, conversion.density),
        "sound_speed": (WATER_SPEED, conversion.speed),
        "alpha_coeff": (0.0, conversion.attenuation),
    }
    maps = {}
    for key, (outside, convert) in properties.items():
        if convert is not None:
            maps[key] = np.full(hu.shape, outside, np.float32)
            maps[key][skull] = convert(inside, most)
    return maps


def acoustic_ends(
    hu: Mapping[str, AnyArray], skull: AnyArray, name: str, most: float
) -> dict[str, dict[str, AnyArray]]:
    """Each acoustic map of a CT, and the least and the largest of its values at the CT and the ends of its interval.

    hu: the CT ("") and, if there are any, "low" and "high" [D, H, W]. Attenuation falls with HU in some conversions, so that
    the ends of HU are not those of the map.
    """
    maps = {end: acoustic_maps(values, skull, name, most) for end, values in hu.items()}
    by_key = {}
    for key, values in maps[""].items():
        by_key[key] = {"": values}
        if len(maps) > 1:
            of_ends = [of[key] for of in maps.values()]
            by_key[key] |= {"low": np.minimum.reduce(of_ends), "high": np.maximum.reduce(of_ends)}
    return by_key


def end_of_thickness(end: str, thickness_mm: AnyArray, own_mm: AnyArray) -> AnyArray:
    """The "low" or "high" thickness of rays, by that of the skull at this end of the interval and at the CT itself.

    Without bone at the low end it is 0. It is never on the other side of the CT's, which gaps that close there would give.
    Infinite where a ray runs along bone.
    """
    if end == "low":
        return np.fmin(np.where(np.isnan(thickness_mm), 0.0, thickness_mm), own_mm)
    return np.fmax(np.where(np.isnan(thickness_mm), np.inf, thickness_mm), own_mm)


@dataclass(frozen=True)
class SkullRays:
    """The skull on parallel rays: entry_mm: [R, 3] (RAS); thickness_mm and ratio: [R].

    NaN where a ray meets no skull, the ratio also where it shows no marrow; thickness is infinite where a ray runs along bone.
    """

    entry_mm: AnyArray
    thickness_mm: AnyArray
    ratio: AnyArray

    @property
    def summary(self) -> Mapping[str, float]:
        """Means over the rays that meet the skull: thickness in mm, and the density ratio of those that show its marrow.

        Raises BadInput where none meets it.
        """
        met, marrow = np.isfinite(self.thickness_mm), np.isfinite(self.ratio)
        if not met.any():
            raise BadInput(
                "--beam: expected a direction from which rays meet the skull, found none, or a scan that is cut off there. Choose another direction, or a wider --aperture."
            )
        means = {
            "rays": int(met.sum()),
            "thickness_mm": float(self.thickness_mm[met].mean()),
            "thickness_std_mm": float(self.thickness_mm[met].std()),
            "rays_with_marrow": int(marrow.sum()),
        }
        if marrow.any():
            means["skull_density_ratio"] = float(self.ratio[marrow].mean())
        return means


def skull_rays(
    hu: AnyArray,
    skull: AnyArray,
    grid: Grid,
    direction: AnyArray,
    aperture_mm: float,
    around: AnyArray | None = None,
) -> SkullRays:
    """Thickness and density ratio of the skull on parallel rays within a round aperture around the centre of its vault.

    around: the skull whose vault it is, by default the same. Thickness is along the ray, so that a skull that is met
    obliquely is thicker; where most rays begin inside the body, none meets a skull.
    """
    frame = frame_of(grid, direction)
    voxels = np.argwhere(skull if around is None else around)[:, ::-1]
    places = apply_affine(grid.affine, voxels)
    vault = places[:, 2] > places[:, 2].max() - VAULT_MM
    placed = frame.place(places[vault])
    u0, v0, _ = (placed.min(axis=0) + placed.max(axis=0)) / 2
    reach = int(aperture_mm / 2 / RAYS_MM + 1e-6)
    steps = np.arange(-reach, reach + 1) * RAYS_MM
    u, v = (part.ravel() for part in np.meshgrid(steps, steps, indexing="ij"))
    within = np.hypot(u, v) <= aperture_mm / 2 + 1e-6
    first = before_grid(grid, frame)
    starts = frame.ras(np.stack([u[within] + u0, v[within] + v0, 0 * u[within] + first], axis=1))
    entry, begin_inside = np.full((len(starts), 3), np.nan), 0
    thickness, ratio = np.full((2, len(starts)), np.nan)
    for part in walk(grid, starts, direction):
        values, inside = hu.reshape(-1)[part.voxels], skull.reshape(-1)[part.voxels]
        first_voxels = values[np.arange(len(values)), (part.lengths_mm > 0).argmax(axis=1)]
        begin_inside += int((first_voxels > BODY_HU).sum())
        for row, ray in enumerate(range(part.rays.start, part.rays.stop)):
            bone = _first_bone(part.depths_mm[row], values[row], inside[row])
            if bone is None:
                continue
            depth, run_mm, ratio_there = bone
            thickness[ray] = np.inf
            if run_mm <= MOST_RUN_MM:
                entry[ray] = starts[ray] + depth * direction
                thickness[ray], ratio[ray] = run_mm, ratio_there
    if 2 * begin_inside > len(starts):
        thickness[:] = np.nan  # the scan shows a part within the head, whose bone is not the vault
    return SkullRays(entry, thickness, ratio)


def _first_bone(
    depths: AnyArray, hu: AnyArray, inside: AnyArray
) -> tuple[float, float, float] | None:
    """Depth, thickness and density ratio of the first bone on a ray; None without any, or where the scan is cut off before it.

    The ratio is NaN where no voxel between the two tables is darker than both: the marrow is not resolved.
    """
    long = np.diff(depths) > 0
    start, end, hu, inside = depths[:-1][long], depths[1:][long], hu[long], inside[long]
    at = np.flatnonzero(inside)
    if not len(at):
        return None
    # where a scan is cut off, a ray enters it within the skull or behind it, and the first bone is another
    if hu[0] > BODY_HU and (at[0] == 0 or start[at[0]] - start[0] > SCALP_MM):
        return None
    gaps = start[at[1:]] - end[at[:-1]]
    wide = np.flatnonzero(gaps > DIPLOE_MM)
    last = at[wide[0]] if len(wide) else at[-1]
    run = hu[at[0] : last + 1]
    # marrow lies between the outer and the inner table, not at the edge, where a voxel is partly skin
    middle = (start[at[0]] + end[last]) / 2
    outer = int((end[at[0] : last + 1] <= middle).sum())
    ratio = float("nan")
    if 0 < outer < len(run):
        tables = int(run[:outer].argmax()), outer + int(run[outer:].argmax())
        between = run[tables[0] + 1 : tables[1]]
        if len(between) and between.min() < min(run[tables[0]], run[tables[1]]):
            ratio = float(max(between.min(), 0) / run.max())
    return float(start[at[0]]), float(end[last] - start[at[0]]), ratio
