"""Errors of a synthesised CT in the units of its users: range in mm, attenuation in percent, thickness in mm.

All compare a CT in HU with the true one on the same grid. The ends of the intervals are carried through: all voxels of a ray are at the
same end at once, so that the interval of a range is wider than one whose voxels err independently.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from voxlate.consumers.beams import before_grid, frame_of, rays_over, read_beam, walk
from voxlate.consumers.pet import WATER_MU, mu_511
from voxlate.consumers.planning import clear_outside
from voxlate.consumers.proton import missed_body
from voxlate.consumers.tables import Table
from voxlate.consumers.ultrasound import skull_of, skull_rays
from voxlate.images.grid import Grid, Volume
from voxlate.images.mask import BODY_HU, foreground

GANTRY_STEP = 10  # degrees
RAYS_MM = 10.0
LEAST_MM = 10.0  # of water before the target; a ray that grazes the skin has no range
BONE_HU = 300.0
FROM = {"left": "90", "right": "270", "front": "0", "back": "180", "vertex": "0,0,-1"}


def range_errors(
    truth: Volume, image: Volume, table: Table, ends: Mapping[str, Volume] | None = None
) -> dict[str, Any]:
    """Errors of proton range over rays 10 mm apart from gantry angles 10 degrees apart, in mm of water.

    A range ends in the plane through the centre of the body that is perpendicular to the beam; its error is the
    difference of the water-equivalent depths there, with the skin of each CT. ends: "low" and "high".
    """
    volumes = {"truth": truth, "image": image, **(ends or {})}
    body = foreground(truth)
    own = foreground(image)
    grid = truth.grid
    stopping = {
        name: np.where(body if name == "truth" else own, table(volume.data[0]), 0).reshape(-1)
        for name, volume in volumes.items()
    }
    middle = np.argwhere(body).mean(axis=0)[::-1] if body.any() else np.zeros(3)
    target = grid.affine[:3, :3] @ middle + grid.affine[:3, 3]
    found: dict[str, list[np.ndarray]] = {name: [] for name in volumes}
    worst = dict[str, float]()
    for angle in range(0, 360, GANTRY_STEP):
        depths = _depths_of_target(stopping, body, grid, read_beam(str(angle)), target)
        met = depths["truth"] > LEAST_MM
        for name, values in depths.items():
            found[name].append(values[met])
        if met.any():
            worst[str(angle)] = float(np.abs(depths["image"] - depths["truth"])[met].mean())
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    if not len(whole["truth"]):
        missed_body()
    return {**_summary(whole), "mean_mm_by_gantry_angle": worst}


def _summary(depths: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Mean and 95th percentile of the error over rays, and coverage and width of the intervals."""
    error = depths["image"] - depths["truth"]
    found: dict[str, Any] = {
        "beams": len(error),
        "mean_range_mm": float(depths["truth"].mean()),
        "mean_error_mm": float(np.abs(error).mean()),
        "p95_error_mm": float(np.percentile(np.abs(error), 95)),
        "bias_mm": float(error.mean()),
    }
    if "low" in depths and "high" in depths:
        covered = (depths["low"] <= depths["truth"]) & (depths["truth"] <= depths["high"])
        found["coverage"] = float(covered.mean())
        found["interval_width_mm"] = float((depths["high"] - depths["low"]).mean())
    return found


def _depths_of_target(
    stopping: Mapping[str, np.ndarray],
    body: np.ndarray,
    grid: Grid,
    direction: np.ndarray,
    target_mm: np.ndarray,
) -> dict[str, np.ndarray]:
    """Water-equivalent depths of the plane of the target on parallel rays, for each map of stopping power (flat)."""
    frame = frame_of(grid, direction)
    u, v, _ = rays_over(body, grid, frame, RAYS_MM)
    across = np.stack(np.meshgrid(u, v, indexing="ij"), axis=-1).reshape(-1, 2)
    # a ray begins before the grid, because the skin of the image may lie before that of the truth
    first = before_grid(grid, frame)
    starts = frame.ras(np.column_stack([across, np.full(len(across), first)]))
    until = float(frame.place(target_mm[None])[0, 2]) - first
    found = {name: np.zeros(len(starts)) for name in stopping}
    for part in walk(grid, starts, direction):
        lengths = np.diff(np.minimum(part.depths_mm, until), axis=1)
        for name, values in stopping.items():
            found[name][part.rays] = (lengths * values[part.voxels]).sum(axis=1)
    return found


def attenuation_errors(
    truth: Volume, image: Volume, kvp: float = 120, ends: Mapping[str, Volume] | None = None
) -> dict[str, Any]:
    """Errors of attenuation at 511 keV by tissue, in percent: air, soft tissue and bone by the HU of the truth.

    Inside the body. The error of soft tissue and bone is relative to the true attenuation, that of air, which has none,
    to that of water.
    """
    hu, inside = truth.data[0], foreground(truth)
    true, mu = mu_511(hu, kvp), mu_511(image.data[0], kvp)
    bounds = {name: mu_511(volume.data[0], kvp) for name, volume in (ends or {}).items()}
    tissues = {
        "air": inside & (hu < BODY_HU),
        "soft": inside & (hu >= BODY_HU) & (hu < BONE_HU),
        "bone": inside & (hu >= BONE_HU),
    }
    found = dict[str, Any]()
    for name, voxels in tissues.items():
        if not voxels.any():
            continue
        scale = WATER_MU if name == "air" else true[voxels]
        error = 100 * (mu[voxels] - true[voxels]) / scale
        row = {
            "voxels": int(voxels.sum()),
            "mean_percent": float(error.mean()),
            "mean_absolute_percent": float(np.abs(error).mean()),
        }
        if {"low", "high"} <= bounds.keys():
            covered = (bounds["low"] <= true) & (true <= bounds["high"])
            row["coverage"] = float(covered[voxels].mean())
        found[name] = row
    return found


def skull_errors(truth: Volume, image: Volume, aperture_mm: float = 60.0) -> dict[str, Any]:
    """Errors of the skull's thickness (mm) and density ratio on the same rays, from five sides.

    Rays that meet the skull in one CT alone are counted, and have no thickness.
    """
    found = dict[str, Any]()
    cts = {
        name: clear_outside(ct, foreground(ct)) for name, ct in (("truth", truth), ("image", image))
    }
    skulls = {name: skull_of(ct) for name, ct in cts.items()}
    for side, beam in FROM.items():
        direction = read_beam(beam)
        # the rays of both are placed by the true skull
        rays = {
            name: skull_rays(
                ct.data[0], skulls[name], truth.grid, direction, aperture_mm, skulls["truth"]
            )
            for name, ct in cts.items()
        }
        met = {name: np.isfinite(one.thickness_mm) for name, one in rays.items()}
        both = met["truth"] & met["image"]
        if not both.any():
            continue
        thickness = rays["image"].thickness_mm[both] - rays["truth"].thickness_mm[both]
        ratio = rays["image"].ratio[both].mean() - rays["truth"].ratio[both].mean()
        found[side] = {
            "rays": int(both.sum()),
            "rays_in_one": int((met["truth"] ^ met["image"]).sum()),
            "true_thickness_mm": float(rays["truth"].thickness_mm[both].mean()),
            "thickness_error_mm": float(np.abs(thickness).mean()),
            "thickness_bias_mm": float(thickness.mean()),
            "true_ratio": float(rays["truth"].ratio[both].mean()),
            "ratio_error": float(ratio),
        }
    return found


def _of_ranges(found: Mapping[str, Any]) -> list[str]:
    """A sentence on ranges."""
    line = f"range error {found['mean_error_mm']:.2f} mm on average, 95th percentile {found['p95_error_mm']:.2f} mm, bias {found['bias_mm']:+.2f} mm, over {found['beams']} beams of {found['mean_range_mm']:.0f} mm"
    if "coverage" in found:
        line += f"; intervals of {found['interval_width_mm']:.1f} mm cover {found['coverage']:.0%} of true ranges"
    return [f"{line}."]


def _of_attenuation(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each tissue."""
    lines = []
    for name, row in found.items():
        line = f"mu of {name}: mean error {row['mean_percent']:+.1f} %, mean absolute error {row['mean_absolute_percent']:.1f} %"
        if "coverage" in row:
            line += f"; intervals cover {row['coverage']:.0%}"
        lines.append(f"{line}.")
    return lines


def _of_skulls(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each side."""
    return [
        f"skull from the {side}: thickness error {row['thickness_error_mm']:.2f} mm of {row['true_thickness_mm']:.1f} mm, bias {row['thickness_bias_mm']:+.2f} mm; density ratio error {row['ratio_error']:+.2f} of {row['true_ratio']:.2f}; {row['rays']} rays."
        for side, row in found.items()
    ]


DESCRIBE: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "proton": _of_ranges,
    "pet": _of_attenuation,
    "ultrasound": _of_skulls,
}
