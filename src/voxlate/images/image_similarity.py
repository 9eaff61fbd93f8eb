"""How alike two scans of a patient are that were not made to look alike."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from voxlate.images.grid import resample, with_spacing
from voxlate.images.itk import LPS, Transform, covered, move, simpleitk, to_image
from voxlate.images.mask import foreground
from voxlate.images.volume import Volume

COARSE_VOXELS = 500_000  # a head at about 2.5 mm: finer takes longer and changes the result by less than a voxel
BINS = 32
RANGE_HU = (-150.0, 600.0)  # fat to bone: air below and metal above would take most of the histogram's bins
PERCENTILES = (0.5, 99.5)
LEAST_VOLUME = 0.1  # of a voxel, after a transform; less is a fold
LEAST_SHARED = 0.25  # of the smaller scan's box; with less in common, similarity says nothing


@dataclass(frozen=True)
class Similarity:
    """How alike two scans are where both are: mutual_information from 1 (unrelated) to 2 (the same picture).

    mutual_information: normalised, (H(a) + H(b)) / H(a, b) on 32 bins (Studholme et al. 1999, eq. 4); bodies: Dice
    overlap of the two outlines; covered: share of the fixed scan's voxels that the moving one reaches.
    """

    mutual_information: float
    bodies: float
    covered: float


def coarse(volume: Volume) -> Volume:
    """The volume with about COARSE_VOXELS voxels, smoothed before it is thinned out."""
    grid = volume.grid
    wide = float((np.prod(grid.shape) * np.prod(grid.spacing_mm) / COARSE_VOXELS) ** (1 / 3))
    if wide <= min(grid.spacing_mm):
        return volume
    spacing = tuple(max(wide, one) for one in grid.spacing_mm)
    sigma = [0.5 * new / old if new > old else 0.0 for new, old in zip(spacing, grid.spacing_mm)]
    soft = scipy.ndimage.gaussian_filter(volume.data, [0.0, *sigma])
    whole = Volume(soft, volume.affine, volume.unit, volume.modality, volume.origin)
    return resample(whole, with_spacing(grid, (spacing[0], spacing[1], spacing[2])))


class Pair:
    """Two coarse scans with what all stages need of them."""

    def __init__(self, moving: Volume, fixed: Volume) -> None:
        self.moving, self.fixed = moving, fixed
        self.bodies = foreground(moving), foreground(fixed)
        self.ranges = _range(moving), _range(fixed)
        self.images = tuple(
            to_image(one.data[0].clip(*bounds).astype(np.float32), one.grid)
            for one, bounds in zip((moving, fixed), self.ranges)
        )

    def compare(self, transform: Transform) -> Similarity:
        grid = self.fixed.grid
        there = covered(self.moving.grid, grid, transform)
        boxes = [float(np.prod(one.grid.shape) * np.prod(one.grid.spacing_mm)) for one in (self.moving, self.fixed)]
        if there.mean() * boxes[1] < LEAST_SHARED * min(boxes):
            return Similarity(1.0, 0.0, float(there.mean()))
        moved = move(self.moving, grid, transform).data[0][there]
        body = Volume(self.bodies[0][None].astype(np.float32), self.moving.affine, "", "")
        moved_body = move(body, grid, transform, order=0).data[0] > 0
        share = mutual_information(moved, self.fixed.data[0][there], *self.ranges)
        return Similarity(share, dice(moved_body, self.bodies[1]), float(there.mean()))

    def folds(self, transform: Transform) -> bool:
        """Whether a transform turns some voxel inside out, or blows it up or down beyond what bodies do."""
        itk = simpleitk()
        image = self.images[1]
        geometry = image.GetOrigin(), image.GetSpacing(), image.GetDirection()
        field = itk.TransformToDisplacementField(transform, itk.sitkVectorFloat64, image.GetSize(), *geometry)
        # ITK's own determinant takes the image's axes for the patient's
        steps = np.stack(np.gradient(itk.GetArrayViewFromImage(field), axis=(0, 1, 2)), axis=-1)
        across = (LPS @ self.fixed.affine)[:3, :3][:, ::-1]  # the same steps without the transform: along D, H, W
        volumes = np.linalg.det(steps + across) / np.linalg.det(across)
        return bool(volumes.min() < LEAST_VOLUME or volumes.max() > 1 / LEAST_VOLUME)


def _range(volume: Volume) -> tuple[float, float]:
    if volume.unit == "HU":
        return RANGE_HU
    low, high = (float(value) for value in np.percentile(volume.data, PERCENTILES))
    return (low, high) if low < high else (float(volume.data.min()), float(volume.data.max()))


def mutual_information(
    a: np.ndarray, b: np.ndarray, range_a: tuple[float, float], range_b: tuple[float, float]
) -> float:
    """Normalised mutual information of paired values, 1 to 2, on BINS² bins; beyond a range the end bin counts."""
    joint, _, _ = np.histogram2d(a.clip(*range_a).ravel(), b.clip(*range_b).ravel(), BINS, (range_a, range_b))
    whole, parts = _entropy(joint), _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))
    return parts / whole if whole > 0 else 1.0


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Twice the common part of two masks over the sum of both; 0 where both are empty."""
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
