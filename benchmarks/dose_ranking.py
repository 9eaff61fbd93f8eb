"""Whether errors of range rank synthesised CTs as errors of proton dose do: `python benchmarks/dose_ranking.py WORK` (4 minutes).

With --gamma, the share of points that fail gamma (2 %, 2 mm) of pymedphys, which must be installed, is the error of dose.

Four phantoms, the CT that head-mr-to-ct synthesises of their T1, and the true CT spoilt in ten ways. Plans on the
true CT, pencil beams onto two balls in the brain and one at the base of the skull, are computed again in each. Prints
proton.error, the mean difference of dose where a tenth of the prescribed one reaches, and Spearman's correlation.

Bragg curve: Bortfeld 1997 (Med. Phys. 24:2024), eq. 29. Weights of ranges in a spread-out peak: Bortfeld and Schlegel 1996
(Phys. Med. Biol. 41:1331). Laterally a Gaussian of the spot, widened by scattering of 2 % of the depth.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.special import pbdv
from scipy.stats import spearmanr

import voxlate
from voxlate.clinic.consumers.beams import before_grid, frame_of, read_beam, walk
from voxlate.clinic.consumers.errors import range_errors
from voxlate.clinic.consumers.tissues import default_table
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Grid, Volume, canonical
from voxlate.scans.images.mask import foreground

P, ALPHA = 1.77, 0.0022  # of the range in cm, ALPHA E^P in MeV
SPREAD, TAIL = 0.01, 0.1  # of the beam's energy; share of fluence with less
RANGES_MM, LAYER_MM, WATER_MM = np.arange(10, 200, 3), 3, np.arange(0, 260, 0.5)
GANTRY, TARGETS_MM = ("0", "90", "200", "300"), ((12, 15, 5), (-20, -10, 35), (-5, 30, -30))  # RAS
BALL_MM, RAYS_MM, STEP_MM, SPOT_MM, LEAST_DOSE = 20, 3, 2, 4, 0.1
Maps = dict[str, np.ndarray]


def bragg(range_mm: float) -> np.ndarray:
    """Dose per fluence of protons of a range at depths of WATER_MM."""
    reach, left = range_mm / 10, (range_mm - WATER_MM) / 10
    energy = (reach / ALPHA) ** (1 / P)
    sigma = np.hypot(0.012 * reach**0.935, SPREAD * energy * ALPHA * P * energy ** (P - 1))
    at, dose = left / sigma, np.zeros_like(left)
    far, near = at > 10, np.abs(at) <= 10
    dose[far] = 17.93 * left[far] ** -0.435 + (0.444 + 31.7 * TAIL / reach) * left[far] ** 0.565
    peak, tail = (pbdv(order, -at[near])[0] for order in (-0.565, -1.565))
    dose[near] = 11.26 / sigma * peak + (0.157 + 11.26 * TAIL / reach) * tail
    dose[near] *= np.exp(-(at[near] ** 2) / 4) * sigma**0.565
    return dose / (1 + 0.012 * reach)


def versions(ct: Volume, synthesised: Volume) -> dict[str, Volume]:
    """The true CT, the synthesised one, and the true one spoilt in known ways."""
    hu, body, draw = ct.data[0], foreground(ct), np.random.default_rng(0)
    bone, voxel, cube = (hu > 300) & body, np.array(ct.grid.spacing_mm), np.ones((3, 3, 3), bool)
    thick = ndimage.grey_dilation(hu, footprint=cube)
    spoilt = {
        "starter": synthesised.data[0],
        "blurred 2 mm": ndimage.gaussian_filter(hu, 2 / voxel),
        "blurred 4 mm": ndimage.gaussian_filter(hu, 4 / voxel),
        "water": np.where(body, 0, -1000),
        "three classes": np.select([~body | (hu < -300), hu > 300], [-1000, 900], 20),
        "30 HU added": np.where(body, hu + 30, hu),
        "noise of 100 HU": np.where(body, hu + draw.normal(0, 100, hu.shape), hu),
        "bone of half the HU": np.where(bone, hu / 2, hu),
        "thinner skull": np.where(bone & ~ndimage.binary_erosion(bone, cube), 40, hu),
        "thicker skull": np.where(ndimage.binary_dilation(bone, cube) & body, thick, hu),
        "2 mm to the left": ndimage.shift(hu, (0, 0, -2 / voxel[2]), order=1, mode="nearest"),
    }
    data = {name: np.array(hu[None], np.float32) for name, hu in spoilt.items()}
    return {"truth": ct} | {name: replace(ct, data=one) for name, one in data.items()}


def depths_of(stopping: Maps, grid: Grid, gantry: str, target_mm: np.ndarray) -> Maps:
    """Water-equivalent depths [U, V, Z] of points around a target, by stopping power, and their distance to the target."""
    frame = frame_of(grid, direction := read_beam(gantry))
    centre = frame.place(target_mm[None])[0]
    first = before_grid(grid, frame) - centre[2]
    across = np.arange(-BALL_MM - 15, BALL_MM + 15.1, RAYS_MM)
    along = np.arange(first, BALL_MM + 25, STEP_MM)
    u, v = (part.ravel() for part in np.meshgrid(across, across, indexing="ij"))
    starts = frame.ras(np.column_stack([u, v, 0 * u + first]) + centre)
    found = {name: np.zeros((len(u), len(along))) for name in stopping}
    for part in walk(grid, starts, direction):
        for name, values in stopping.items():
            reached = (part.lengths_mm * values[part.voxels]).cumsum(axis=1)
            for row, borders, depth in zip(found[name][part.rays], part.depths_mm, reached):
                row[:] = np.interp(along - first, borders, [0, *depth])
    found["distance"] = np.sqrt(u[:, None] ** 2 + v[:, None] ** 2 + along**2)
    return {n: values.reshape(len(across), len(across), -1) for n, values in found.items()}


def field(depths: Maps) -> Maps:
    """Doses [U, V, Z] of a field that is planned on the truth: 1 on average in the target."""
    distance, curves = depths.pop("distance"), np.array([bragg(float(one)) for one in RANGES_MM])
    inside, doses = distance <= BALL_MM + 2, {name: np.zeros(distance.shape) for name in depths}
    for at in map(tuple, np.argwhere(inside.any(axis=2))):
        target = depths["truth"][at][inside[at]]
        short = target.max() - RANGES_MM
        layers = (short > -LAYER_MM / 2) & (short < np.ptp(target))
        edges = short[layers] + LAYER_MM / 2 * np.array([[-1], [1]])
        weights = np.diff(np.maximum(edges, 0) ** (1 - 1 / P), axis=0)[0]
        for name, depth in depths.items():
            doses[name][at] = np.interp(depth[at], WATER_MM, weights @ curves[layers])
    wide = np.hypot(SPOT_MM, 0.02 * depths["truth"].mean(axis=(0, 1))) / RAYS_MM
    for dose in doses.values():
        for z, sigma in enumerate(wide):
            dose[..., z] = ndimage.gaussian_filter(dose[..., z], sigma, mode="constant")
    return {n: dose / doses["truth"][distance <= BALL_MM].mean() for n, dose in doses.items()}


def mean_difference(truth: np.ndarray, dose: np.ndarray) -> float:
    """The mean difference of dose where a tenth of the prescribed one reaches."""
    return float(np.abs(dose - truth)[np.maximum(truth, dose) >= LEAST_DOSE].mean())


def gamma_failures(truth: np.ndarray, dose: np.ndarray) -> float:
    """The share of 300 points with a tenth of the dose or more that fail gamma, 2 % of the prescription and 2 mm."""
    import pymedphys

    axes = tuple(np.arange(n) * mm for n, mm in zip(truth.shape, (RAYS_MM, RAYS_MM, STEP_MM)))
    np.random.seed(0)  # noqa: NPY002 - of the points, which pymedphys draws from this generator
    limits = {"max_gamma": 1.1, "global_normalisation": 1.0, "random_subset": 300}
    found = pymedphys.gamma(axes, truth, axes, dose, 2, 2, 100 * LEAST_DOSE, **limits)
    return float((found[np.isfinite(found)] > 1).mean())


def score(
    ct: Volume, synthesised: Volume, error_of: Callable[[np.ndarray, np.ndarray], float]
) -> dict[str, tuple[float, float]]:
    """Error of range (mm) and of dose (%) of each version of a CT."""
    images, table = versions(ct, synthesised), default_table("rsp")
    rsp = {n: np.where(foreground(v), table(v.data[0]), 0).ravel() for n, v in images.items()}
    centre = ct.affine[:3] @ [*np.argwhere(foreground(ct)).mean(axis=0)[::-1], 1]
    at = [(beam, centre + target) for beam in GANTRY for target in TARGETS_MM]
    fields = [field(depths_of(rsp, ct.grid, beam, place)) for beam, place in at]
    found = {}
    for name in [*images][1:]:
        errors = [error_of(one["truth"], one[name]) for one in fields]
        found[name] = (
            range_errors(ct, images[name], table, {})["error"],
            100 * float(np.mean(errors)),
        )
    return found


def main(work: Path, quick: bool, gamma: bool = False) -> float:
    """Print the tables, and return Spearman's correlation over all versions of all phantoms."""
    cohort, scans, out = (work / name for name in ("cohort", "scans", "out"))
    heads: dict[str, Any] = {"modalities": ["t1", "ct"], "lesion": "none", "seed": 48}
    heads |= {"cases": 2, "size": (64, 72, 56)} if quick else {"cases": 4, "size": (160, 192, 144)}
    voxlate.phantom(cohort, **heads)
    for scan in cohort.glob("*/t1.nii.gz"):
        (scans / scan.parent.name).mkdir(parents=True)
        scan.rename(scans / scan.parent.name / scan.name)
    voxlate.synthesise("starter:head-mr-to-ct", scans, out, anyway=True)
    tables = []
    for case in sorted(path.name for path in scans.iterdir()):
        cts = (read_volume(root / case / "ct.nii.gz") for root in (cohort, out))
        true, made = (replace(canonical(ct), unit="HU") for ct in cts)
        tables.append(score(true, made, gamma_failures if gamma else mean_difference))
        for name, (error, difference) in tables[-1].items():
            print(f"{case} {name:20} {error:6.2f} mm {difference:6.2f} %")
        print(f"{case} Spearman {spearmanr([*tables[-1].values()]).statistic:.2f}", flush=True)
    pooled = spearmanr([row for table in tables for row in table.values()]).statistic
    print(f"all Spearman {pooled:.2f}")
    return pooled


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--quick" in sys.argv[2:], "--gamma" in sys.argv[2:])
