"""Errors of a synthesised CT in the units of its users: range in mm, attenuation in shares, thickness in mm.

All compare a CT in HU with the true one on the same grid, where voxels count (counted: None for all). The ends of its
intervals are carried through: all voxels of a ray are at the same end at once, because errors along a ray mostly have one
sign (docs/guides/consumers.md).
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from nibabel.affines import apply_affine

from voxlate.base.arrays import AnyArray, Bool
from voxlate.clinic.consumers.beams import (
    before_grid,
    frame_of,
    rays_over,
    read_beam,
    starts_of,
    walk,
)
from voxlate.clinic.consumers.pet import WATER_MU, mu_511
from voxlate.clinic.consumers.planning import clear_outside
from voxlate.clinic.consumers.proton import missed_body
from voxlate.clinic.consumers.tables import HuTable
from voxlate.clinic.consumers.ultrasound import skull_of, skull_rays
from voxlate.scans.images.grid import Grid, Volume
from voxlate.scans.images.mask import BODY_HU, foreground

GANTRY_STEP = 10  # degrees
RAYS_MM = 10.0
LEAST_MM = 10.0  # of water before the target; a ray that grazes the skin has no range
BONE_HU = 300.0
FROM = {"left": "90", "right": "270", "front": "0", "back": "180", "vertex": "0,0,-1"}


def range_errors(
    truth: Volume,
    image: Volume,
    table: HuTable,
    ends: Mapping[str, Volume],
    counted: Bool | None = None,
) -> dict[str, float]:
    """Errors of proton range over rays 10 mm apart from gantry angles 10 degrees apart, in mm of water.

    A range ends in the plane through the centre of the body that is perpendicular to the beam; its error is the
    difference of the water-equivalent depths there, with the skin of each CT. ends: "low" and "high", or none.
    """
    body, of_image = _body(truth, counted), _body(image, counted)
    if not body.any():
        missed_body()
    stopping = {
        name: np.where(of_image, table(ct.data[0]), 0).reshape(-1)
        for name, ct in {"image": image, **ends}.items()
    }
    stopping["truth"] = np.where(body, table(truth.data[0]), 0).reshape(-1)
    target = apply_affine(truth.affine, np.argwhere(body).mean(axis=0)[::-1])
    angles = [
        _depths_of_target(stopping, body, truth.grid, read_beam(str(angle)), target)
        for angle in range(0, 360, GANTRY_STEP)
    ]
    depths = {name: np.concatenate([of[name] for of in angles]) for name in stopping}
    met = depths["truth"] > LEAST_MM
    if not met.any():
        missed_body()
    depths = {name: values[met] for name, values in depths.items()}
    true, error = depths["truth"], depths["image"] - depths["truth"]
    scores = {
        "error": float(np.abs(error).mean()),
        "error_95": float(np.percentile(np.abs(error), 95)),
        "bias": float(error.mean()),
        "error_share": float(np.abs(error).sum() / true.sum()),
        "bias_share": float(error.sum() / true.sum()),
        "range": float(true.mean()),
        "beams": float(len(error)),
    }
    if "low" in depths:
        covered = (depths["low"] <= true) & (true <= depths["high"])
        scores["coverage"] = float(covered.mean())
        scores["interval"] = float((depths["high"] - depths["low"]).mean())
    return scores


def _depths_of_target(
    stopping: Mapping[str, AnyArray],
    body: AnyArray,
    grid: Grid,
    direction: AnyArray,
    target_mm: AnyArray,
) -> dict[str, AnyArray]:
    """Water-equivalent depths of the plane of the target on parallel rays, for each map of stopping power (flat)."""
    frame = frame_of(grid, direction)
    u, v, _ = rays_over(body, grid, frame, RAYS_MM)
    # a ray begins before the grid, because the skin of the image may lie before that of the truth
    first = before_grid(grid, frame)
    starts = starts_of(frame, u, v, first)
    until = float(frame.place(target_mm[None])[0, 2]) - first
    depths = {name: np.zeros(len(starts)) for name in stopping}
    for part in walk(grid, starts, direction):
        lengths = np.diff(np.minimum(part.depths_mm, until), axis=1)
        for name, values in stopping.items():
            depths[name][part.rays] = (lengths * values[part.voxels]).sum(axis=1)
    return depths


def _body(ct: Volume, counted: Bool | None) -> Bool:
    """The body in a CT, as far as its voxels count."""
    body = foreground(ct)
    return body if counted is None else body & counted


def attenuation_errors(
    truth: Volume,
    image: Volume,
    ends: Mapping[str, Volume],
    counted: Bool | None = None,
) -> dict[str, float]:
    """Errors of attenuation at 511 keV by tissue, as shares: air, soft tissue and bone by the HU of the truth.

    Inside the body. The error of soft tissue and bone is relative to the true attenuation, that of air, which has none,
    to that of water. ends: "low" and "high", or none.
    """
    hu, inside = truth.data[0], _body(truth, counted)
    true, mu = mu_511(hu), mu_511(image.data[0])
    bounds = {name: mu_511(volume.data[0]) for name, volume in ends.items()}
    tissues = {
        "air": inside & (hu < BODY_HU),
        "soft": inside & (hu >= BODY_HU) & (hu < BONE_HU),
        "bone": inside & (hu >= BONE_HU),
    }
    scores = {}
    for name, voxels in tissues.items():
        if not voxels.any():
            continue
        scale = WATER_MU if name == "air" else true[voxels]
        error = (mu[voxels] - true[voxels]) / scale
        scores[f"{name}_error"] = float(np.abs(error).mean())
        scores[f"{name}_bias"] = float(error.mean())
        if bounds:
            covered = (bounds["low"] <= true) & (true <= bounds["high"])
            scores[f"{name}_coverage"] = float(covered[voxels].mean())
    return scores


def _head(ct: Volume, counted: Bool | None) -> Volume:
    """The CT in air, with water where its body does not count: a ray that begins there begins within the head."""
    body = foreground(ct)
    head = clear_outside(ct, body)
    return head if counted is None else replace(head, data=np.where(body & ~counted, 0, head.data))


def skull_errors(
    truth: Volume, image: Volume, counted: Bool | None = None, aperture_mm: float = 60.0
) -> dict[str, float]:
    """Errors of the skull's thickness (mm) and density ratio on the same rays, by side and as means over sides.

    Rays that meet the skull in one CT alone are counted, and have no thickness. A ratio is that of the rays of each CT
    that show marrow. Sides where the scan is cut off before the skull are left out.
    """
    cts = {"truth": _head(truth, counted), "image": _head(image, counted)}
    skulls = {name: skull_of(ct) for name, ct in cts.items()}
    scores = dict[str, float]()
    for side, beam in FROM.items():
        # the rays of both are placed by the true skull
        placed = (truth.grid, read_beam(beam), aperture_mm, skulls["truth"])
        true, made = (skull_rays(ct.data[0], skulls[name], *placed) for name, ct in cts.items())
        in_true, in_made = np.isfinite(true.thickness_mm), np.isfinite(made.thickness_mm)
        both = in_true & in_made
        if both.any():
            thickness = made.thickness_mm[both] - true.thickness_mm[both]
            scores |= {
                f"thickness_{side}": float(np.abs(thickness).mean()),
                f"bias_{side}": float(thickness.mean()),
                f"true_thickness_{side}": float(true.thickness_mm[both].mean()),
                f"unmatched_{side}": float((in_true ^ in_made).sum()),
            }
            ratios = [rays.ratio[np.isfinite(rays.ratio)] for rays in (true, made)]
            if all(map(len, ratios)):
                true_ratio, ratio = (float(of_rays.mean()) for of_rays in ratios)
                scores[f"ratio_{side}"] = abs(ratio - true_ratio)
                scores[f"true_ratio_{side}"] = true_ratio
    for name in ("thickness", "ratio"):
        of_sides = [scores[f"{name}_{side}"] for side in FROM if f"{name}_{side}" in scores]
        if of_sides:
            scores[name] = float(np.mean(of_sides))
    return scores
