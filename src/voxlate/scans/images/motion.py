"""The displacement field that the shifts of windows follow: a rigid motion, with a smooth spline where it bends.

Points and displacements are (D, H, W) in millimetres; a displacement leads from the fixed scan's point to the moving's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxlate.base.array_types import Bool, Float64

Mask = Bool
Floats = Float64
Field = Callable[[Floats], Floats]  # displacements at points, [N, 3]

NOISE_MM = 0.2  # of a window's shift at best; residuals below it get full weight
FOLDS = 4
STEPS = 8  # of a robust fit, at most
SETTLED_MM = 1e-3  # a step that moves windows by less ends a fit
ARM_MM = 100.0  # of a rotation: about the size of a head
# smoothing of the spline that follows a warp, from soft to nearly affine
STIFFNESS: tuple[float, ...] = (10.0, 100.0)
RIGID: tuple[float, ...] = ()  # no spline
SPLINE_MM = 100.0  # a unit of the spline's, so that its system of equations is well scaled
SOFTER = 0.8  # a spline is kept below this share of the rigid motion's error; edges of two contrasts gain less


@dataclass(frozen=True, eq=False)
class Shifts:
    """Centres and displacements of windows, [N, 3] each, and how many windows were left out."""

    centres: Floats
    displacements: Floats
    left_out: int = 0


@dataclass(frozen=True, eq=False)
class Rigid:
    """A rotation about `middle` and a translation, along the resolved axes (those with enough thin slices).

    turn: rotation vector in radians; weights: of the windows that the motion was fitted to.
    """

    middle: Floats
    translation: Floats
    turn: Floats
    resolved: Mask
    weights: Floats

    def __call__(self, points: Floats) -> Floats:
        from scipy.spatial.transform import Rotation  # slow to import, here and below

        around = points - self.middle
        return (
            around @ (Rotation.from_rotvec(self.turn).as_matrix() - np.eye(3)).T + self.translation
        ) * self.resolved


def fit_field(shifts: Shifts, resolved: Mask, stiffnesses: tuple[float, ...]) -> Field:
    """The field that predicts left-out windows best: a rigid motion alone, or with a spline of some stiffness."""
    centres = shifts.centres
    displacements = shifts.displacements
    rigid = rigid_motion(centres, displacements, resolved)
    if not stiffnesses or len(centres) < 4 * FOLDS:
        return rigid
    fold = np.arange(len(centres)) % FOLDS
    apart = np.zeros((1 + len(stiffnesses), len(centres)))
    for number in range(FOLDS):
        out = fold == number
        part = rigid_motion(centres[~out], displacements[~out], resolved)
        fields: list[Field] = [part]
        fields += [
            _bend(part, centres[~out], displacements[~out], stiffness) for stiffness in stiffnesses
        ]
        for k, field in enumerate(fields):
            apart[k, out] = np.linalg.norm(displacements[out] - field(centres[out]), axis=1)
    errors = np.median(apart, axis=1)
    best = int(errors.argmin())
    if errors[best] < SOFTER * errors[0]:
        return _bend(rigid, centres, displacements, stiffnesses[best - 1])
    return rigid


def _bend(rigid: Rigid, centres: Floats, displacements: Floats, stiffness: float) -> Field:
    """A rigid motion with a smoothing spline of its residuals; the kernel is biharmonic in 2 or 3 dimensions."""
    from scipy.interpolate import RBFInterpolator

    axes = np.flatnonzero(np.ptp(centres, axis=0))
    spline = RBFInterpolator(
        centres[:, axes] / SPLINE_MM,
        (displacements - rigid(centres)) * rigid.resolved,
        kernel="linear" if len(axes) == 3 else "thin_plate_spline",
        degree=1,
        smoothing=stiffness / SPLINE_MM / rigid.weights,
    )
    return lambda points: rigid(points) + spline(points[:, axes] / SPLINE_MM)


def rigid_motion(centres: Floats, displacements: Floats, resolved: Mask) -> Rigid:
    """The rigid motion about the centres' middle that fits displacements.

    By Gauss-Newton steps with Cauchy's weights: displacements far from the motion hardly count, and displacements
    along axes that are not resolved do not count.
    """
    from scipy.spatial.transform import Rotation

    middle = centres.mean(axis=0)
    around = centres - middle
    translation = np.zeros(3)
    turn = np.zeros(3)
    weights = np.ones(len(around))
    axes = np.flatnonzero(resolved)
    kept = [*axes, *((3, 4, 5) if np.ptp(around[:, 0]) > 0 else (3,))]
    # derivative of the displacement by translation and rotation
    table = np.zeros((len(around), 3, 6))
    table[:, :, :3] = np.eye(3)
    for _ in range(STEPS):
        turned = around @ Rotation.from_rotvec(turn).as_matrix().T
        rest = (displacements - (turned - around + translation))[:, axes]
        apart = np.sqrt((rest**2).sum(axis=1))
        deviation = 1.48 * np.median(apart)
        weights = 1 / (1 + (apart / max(deviation, NOISE_MM)) ** 2)
        table[:, :, 3:] = np.cross(np.eye(3), turned[:, None]).swapaxes(1, 2)
        flat = table[:, axes][:, :, kept].reshape(-1, len(kept))
        weighted = flat * np.repeat(weights, len(axes))[:, None]
        step = np.zeros(6)
        step[kept] = np.linalg.lstsq(weighted.T @ flat, weighted.T @ rest.ravel())[0]
        translation = translation + step[:3]
        turn = turn + step[3:]  # turns are small: their vectors add
        if np.abs(step * np.repeat([1, ARM_MM], 3)).max() < SETTLED_MM:
            break
    return Rigid(middle, translation, turn, resolved, weights)
