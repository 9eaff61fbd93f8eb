"""Registration of two scans of a patient: rigid, then free-form, as far as each stage makes them more similar.

SimpleITK's transforms take points of the fixed scan (LPS, mm) to points of the moving one.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage

from voxlate.base.errors import BadInput
from voxlate.base.files import sha256_of, whole_file
from voxlate.base.optional import Package
from voxlate.base.records import Name, Number, Record
from voxlate.base.similarity import bin_range, mutual_information
from voxlate.scans.images.grid import LPS_TO_RAS, Grid, Order, Volume, resample, with_spacing
from voxlate.scans.images.mask import foreground

itk = Package(
    "SimpleITK",
    "registration",
    "registration",
    "SimpleITK",
    ", or register the scans by another tool and prepare them with --resample",
)

Transform = Any  # takes points of the fixed scan to points of the moving one

LEAST_VOLUME = 0.1  # of a voxel, after a transform; less is a fold
CHECKSUM = "# sha256 "  # of what is before it in the file of a transform


def to_image(data: np.ndarray, grid: Grid) -> Any:
    """A SimpleITK image of [D, H, W] at the place that the grid states."""
    image = itk.GetImageFromArray(data)
    lps = LPS_TO_RAS @ grid.affine
    spacing = voxel_sizes(lps)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_transform(path: Path, transform: Transform) -> None:
    """Write an ITK transform as text (.tfm), with its checksum as a comment at the end."""
    with whole_file(path) as temporary:
        itk.WriteTransform(transform, str(temporary))
        checksum = sha256_of(temporary)
        with temporary.open("a") as file:
            file.write(f"{CHECKSUM}{checksum}\n")


def read_transform(path: Path) -> Transform:
    """A transform that `write_transform` wrote; raises BadInput for any other: of a damaged one ITK ends the process."""
    again = "Remove the prepared case and prepare again."
    record = Record(path, "a transform between two scans", again)
    content, _, stated = path.read_bytes().rpartition(CHECKSUM.encode())
    record.check_checksum(stated.decode(errors="replace").strip(), sha256(content).hexdigest())
    return itk.ReadTransform(str(path))


def folds(transform: Transform) -> bool:
    """Whether a transform turns space inside out, or changes volumes more than tenfold, as splines within bounds do nowhere."""
    points = np.array([transform.TransformPoint(point) for point in np.eye(4, 3, -1).tolist()])
    volume = float(np.linalg.det(points[1:] - points[0]))
    return not LEAST_VOLUME <= volume <= 1 / LEAST_VOLUME


RegistrationMethod = Literal["rigid", "bspline"]

COARSE_VOXELS = 500_000  # a head at about 2.5 mm: finer takes longer and changes the result by less than a voxel
FINE_VOXELS = 1_500_000  # for splines, whose error is a part of a voxel
# A quarter of the voxels, at which mutual information is estimated, at least and at most. On four pairs of 64×64×16 voxels,
# turned or bent by a formula, all voxels took four times as long and left 2.4 to 4.1 mm, a quarter of them 1.3 to 3.3 mm;
# on a larger turned pair 15,000 points left 0.2 mm more than 60,000.
FEWEST_SAMPLES, SAMPLES = 15_000, 60_000
BINS = 32
# Between the knots of splines: softer than any organ's border. Splines with knots every 30 mm after these raised the error
# of each of the 4 of 9 bent phantoms in which they raised mutual information.
KNOTS_MM = 60.0
# Of a knot, along each axis: below 0.4 of their distance no spline folds space (Choi and Lee 2000). Without the bound, knots
# beside the body folded it in both of two heads whose T1 was bent by 4 mm against their CT, so that the spline was lost.
MOST_MM = 8.0
LEAST_SLICES = 4
PYRAMID_VOXELS = 16  # along an axis; with a coarser image the first steps go wrong
LEAST_SHARED = 0.25  # of the smaller scan's box; with less in common, similarity says nothing
SEED = 1


@dataclass(frozen=True)
class Registered:
    """How a scan was registered to another: the method asked for, and the last step that made the two more similar.

    kept: "none" where no step did; before, after: normalised mutual information, from 1 (unrelated) to 2 (the same
    picture), (H(a) + H(b)) / H(a, b) on 32 bins (Studholme et al. 1999, eq. 4).
    """

    to: Name
    asked: RegistrationMethod
    kept: RegistrationMethod | Literal["none"]
    before: Number
    after: Number


def register(
    moving: Volume, fixed: Volume, method: RegistrationMethod
) -> tuple[Registered, Transform]:
    """Register `moving` to `fixed` by mutual information on coarse copies of both; the same call gives the same result.

    Each stage (rigid, then splines) is kept only if it makes the two more similar and does not fold space; the
    transform is the identity where none is.
    Raises BadInput where a scan has too few slices, a library is missing, or nothing makes the two overlap.
    """
    for scan in (moving, fixed):
        if min(scan.grid.shape) < LEAST_SLICES:
            raise BadInput(
                f"{scan.origin}: expected at least {LEAST_SLICES} voxels along each axis to register, found {scan.grid}. Prepare without --register."
            )
    with _one_thread():
        pair = CoarsePair(coarse(moving), coarse(fixed))
        transform: Transform = itk.Euler3DTransform(pair.centre.tolist())
        kept: RegistrationMethod | Literal["none"] = "none"
        before = after = pair.similarity(transform)
        stages: list[RegistrationMethod] = ["rigid"] if method == "rigid" else ["rigid", method]
        for name in stages:
            if name == "bspline":
                pair = CoarsePair(coarse(moving, FINE_VOXELS), coarse(fixed, FINE_VOXELS))
                after = pair.similarity(transform)
            new = _rigid(pair) if name == "rigid" else _bspline(pair, transform)
            similarity = 0.0 if new is None or folds(new) else pair.similarity(new)
            if similarity > after:
                kept = name
                transform = new
                after = similarity
        overlaps = kept != "none" or pair.shared(transform).any()
    if not overlaps:
        raise BadInput(
            f"{moving.origin}: expected a scan of the same part of the body as {fixed.origin}, found no transform that makes them overlap. Look at the two, or leave the case out by a manifest."
        )
    return Registered(fixed.modality, method, kept, before, after), transform


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over threads would differ in the last digit from run to run; cases run in parallel anyway."""
    process = itk.ProcessObject
    threads = process.GetGlobalDefaultNumberOfThreads()
    process.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        process.SetGlobalDefaultNumberOfThreads(threads)


def centre_mm(grid: Grid, mask: np.ndarray | None = None) -> np.ndarray:
    """The middle of a grid, or of the voxels of a mask [D, H, W], in LPS millimetres."""
    if mask is None or not mask.any():
        return LPS_TO_RAS[:3, :3] @ grid.centre_mm
    index = ndimage.center_of_mass(mask)[::-1]
    return np.asarray(apply_affine(LPS_TO_RAS @ grid.affine, index))


def apply_transform(
    volume: Volume,
    grid: Grid,
    transform: Transform,
    order: Order = 1,
    fill: float | None = None,
) -> Volume:
    """The volume on `grid` through a transform, interpolated as `resample` does.

    Voxels outside the volume get `fill` (default: its lowest value).
    """
    interpolator = itk.sitkLinear if order else itk.sitkNearestNeighbor
    lowest = float(volume.data.min()) if fill is None else fill
    like = to_image(np.zeros(grid.shape, np.uint8), grid)
    channels = []
    for channel in volume.data:
        image = to_image(channel, volume.grid)
        moved = itk.Resample(image, like, transform, interpolator, lowest, itk.sitkFloat32)
        channels.append(itk.GetArrayFromImage(moved))
    return replace(volume, data=np.stack(channels), affine=grid.affine)


def cover(moving: Grid, fixed: Grid, transform: Transform) -> np.ndarray:
    """Which voxels of the fixed grid a transform takes into the moving grid's box: bool [D, H, W]."""
    box = Volume(np.ones((1, *moving.shape), np.float32), moving.affine, "", "")
    return apply_transform(box, fixed, transform, order=0, fill=0.0).data[0] > 0


def coarse(volume: Volume, voxels: int = COARSE_VOXELS) -> Volume:
    """The volume with about so many voxels, smoothed before it is thinned out."""
    grid = volume.grid
    volume_mm3 = np.prod(grid.shape) * np.prod(grid.spacing_mm)
    wide = float((volume_mm3 / voxels) ** (1 / 3))
    if wide <= min(grid.spacing_mm):
        return volume
    spacing = np.maximum(wide, grid.spacing_mm)
    blur = np.where(spacing > grid.spacing_mm, 0.5 * spacing / grid.spacing_mm, 0.0)
    smooth = ndimage.gaussian_filter(volume.data, [0.0, *blur])
    depth, height, width = spacing.tolist()
    return resample(replace(volume, data=smooth), with_spacing(grid, (depth, height, width)))


class CoarsePair:
    """Two coarse scans with their intensity ranges and the middle of the fixed body, as all stages need them."""

    def __init__(self, moving: Volume, fixed: Volume) -> None:
        self.moving = moving
        self.fixed = fixed
        self.centre = centre_mm(fixed.grid, foreground(fixed))
        self.ranges = bin_range(moving.data, moving.unit), bin_range(fixed.data, fixed.unit)
        self.images = [
            to_image(scan.data[0].clip(*ends).astype(np.float32), scan.grid)
            for scan, ends in zip((moving, fixed), self.ranges)
        ]

    def shared(self, transform: Transform) -> np.ndarray:
        """Which voxels of the fixed scan the moving one reaches: bool [D, H, W]."""
        return cover(self.moving.grid, self.fixed.grid, transform)

    def similarity(self, transform: Transform) -> float:
        """The normalised mutual information of the scans through a transform; 1 where they share too little."""
        grid = self.fixed.grid
        shared = self.shared(transform)
        boxes = [np.prod(box.shape) * np.prod(box.spacing_mm) for box in (self.moving.grid, grid)]
        if shared.mean() * boxes[1] < LEAST_SHARED * min(boxes):
            return 1.0
        moving = apply_transform(self.moving, grid, transform).data[0]
        fixed = self.fixed.data[0][shared]
        information = mutual_information(moving[shared], fixed, *self.ranges, BINS)
        return float(np.nan_to_num(information, nan=1.0))


def _rigid(pair: CoarsePair) -> Transform | None:
    """The best of several starts: the headers', the boxes' centres, the bodies' centres."""
    moving = pair.moving.grid
    by_boxes = centre_mm(moving) - centre_mm(pair.fixed.grid)
    by_bodies = centre_mm(moving, foreground(pair.moving)) - pair.centre
    roughly = []
    for shift in np.unique((np.zeros(3), by_boxes, by_bodies), axis=0):
        begin = itk.Euler3DTransform(pair.centre.tolist(), 0.0, 0.0, 0.0, shift.tolist())
        roughly.append(_linear(pair, begin, (4,)))
    found = [transform for transform in roughly if transform is not None]
    return _linear(pair, max(found, key=pair.similarity), (2, 1)) if found else None


def _linear(pair: CoarsePair, begin: Transform, levels: tuple[int, ...]) -> Transform | None:
    """Optimise a rigid transform."""
    registration = _registration(pair, levels)
    # a line search: steps of a fixed length stop early or leave for another optimum
    registration.SetOptimizerAsGradientDescentLineSearch(
        1.0,
        60,
        convergenceMinimumValue=1e-6,
        convergenceWindowSize=5,
        lineSearchMaximumIterations=10,
    )
    registration.SetOptimizerScalesFromPhysicalShift()
    return _optimise(registration, begin, *pair.images)


def _bspline(pair: CoarsePair, start: Transform) -> Transform | None:
    """A free-form deformation by cubic splines, applied before the transform so far. Source: Rueckert et al. 1999.

    The moving scan is resampled by `start` first, because ITK gives no derivative through an earlier spline. Optimising
    a spline before a moving initial transform deforms more where scans end, until it folds, and is then lost.
    """
    moving, fixed = pair.images
    grid = pair.fixed.grid
    lengths_mm = np.multiply(grid.shape, grid.spacing_mm)[::-1]
    cells = [max(1, round(length / KNOTS_MM)) for length in lengths_mm]
    registration = _registration(pair, (4, 2))
    registration.SetMetricMovingMask(to_image(pair.shared(start).astype(np.uint8), grid))
    registration.SetOptimizerAsLBFGSB(
        numberOfIterations=20,
        maximumNumberOfFunctionEvaluations=30,
        lowerBound=-MOST_MM,
        upperBound=MOST_MM,
    )
    moved = itk.Resample(moving, fixed, start, itk.sitkLinear, pair.ranges[0][0])
    begin = itk.BSplineTransformInitializer(fixed, cells, order=3)
    spline = _optimise(registration, begin, moved, fixed)
    return None if spline is None else itk.CompositeTransform([start, spline])


def _registration(pair: CoarsePair, levels: tuple[int, ...]) -> Any:
    """A registration by Mattes' mutual information at SAMPLES points of each level.

    Shrinking leaves PYRAMID_VOXELS along each axis.
    """
    registration = itk.ImageRegistrationMethod()
    registration.SetMetricAsMattesMutualInformation(BINS)
    shortest = min(*pair.fixed.grid.shape, *pair.moving.grid.shape)
    shrink = [min(level, max(1, shortest // PYRAMID_VOXELS)) for level in levels]
    voxels = float(np.prod(pair.fixed.grid.shape))
    points = min(SAMPLES, max(FEWEST_SAMPLES, voxels / 4))
    registration.SetMetricSamplingStrategy(registration.RANDOM)
    registration.SetMetricSamplingPercentagePerLevel(
        [min(1.0, points * k**3 / voxels) for k in shrink], SEED
    )
    registration.SetInterpolator(itk.sitkLinear)
    registration.SetShrinkFactorsPerLevel(shrink)
    registration.SetSmoothingSigmasPerLevel([k / 2 if k > 1 else 0.0 for k in shrink])
    registration.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return registration


def _optimise(registration: Any, transform: Transform, moving: Any, fixed: Any) -> Transform | None:
    """The transform after its optimisation, in place; None where ITK fails, as where the two no longer overlap."""
    registration.SetInitialTransform(transform)
    try:
        registration.Execute(fixed, moving)
    except RuntimeError:
        return None
    return transform
