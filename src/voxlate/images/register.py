"""Bring one scan of a patient onto another: rigid, affine, then freely, as far as each step makes them more alike."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxlate.errors import BadInput
from voxlate.images.image_similarity import BINS, Pair, Similarity, coarse
from voxlate.images.itk import Transform, centre_mm, covered, simpleitk, to_image
from voxlate.images.volume import Volume

Method = Literal["rigid", "affine", "bspline", "ants"]
SAMPLES = 60_000  # points at which mutual information is estimated
KNOTS_MM = 30.0  # between the knots of the free-form stage: softer than any organ's border
LEAST_SLICES = 4
PYRAMID_VOXELS = 16  # along an axis; a coarser picture leads the first steps astray
SEED = 1
LOST = ("map outside moving image", "outside the image", "No valid points", "VirtualSampledPointSet")  # ITK's words


@dataclass(frozen=True, eq=False)
class Registration:
    """The transform that was kept (points of the fixed scan to points of the moving one, LPS mm) and what it gained.

    kept: the last stage that made the scans more alike; "none" where no stage did (the transform then is the identity).
    """

    kept: Method | Literal["none"]
    transform: Transform
    before: Similarity
    after: Similarity


def register(moving: Volume, fixed: Volume, method: Method) -> Registration:
    """Register `moving` to `fixed` by mutual information on coarse copies of both; the same call gives the same result.

    Each stage (rigid, affine, then splines or SyN) is kept only if it makes the two more alike and does not fold space.
    Raises BadInput where a scan has too few slices, a library is missing, or nothing brings the two together.
    """
    for one in (moving, fixed):
        if min(one.grid.shape) < LEAST_SLICES:
            raise BadInput(
                f"{one.origin}: expected at least {LEAST_SLICES} voxels along each axis to register, found {one.grid}. "
                "Prepare without --register."
            )
    itk = simpleitk()
    with _one_thread():
        pair = Pair(coarse(moving), coarse(fixed))
        found: Transform = itk.Transform(3, itk.sitkIdentity)
        kept: Method | Literal["none"] = "none"
        after = before = pair.compare(found)
        for stage, step in _STEPS[method]:
            new = step(pair, found)
            alike = pair.compare(new) if new is not None else before
            if new is not None and alike.mutual_information > after.mutual_information and not pair.folds(new):
                kept, found, after = stage, new, alike
    if kept == "none" and before.covered == 0:
        raise BadInput(
            f"{moving.origin}: expected a scan of the same part of the body as {fixed.origin}, found no way to bring "
            "them together. Look at the two, or leave the case out by a manifest."
        )
    return Registration(kept, found, before, after)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over threads would differ in the last digit from run to run; cases run side by side anyway."""
    process = simpleitk().ProcessObject
    threads = process.GetGlobalDefaultNumberOfThreads()
    process.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        process.SetGlobalDefaultNumberOfThreads(threads)


def _rigid(pair: Pair, start: Transform) -> Transform | None:
    """The best of several starts: the headers', the boxes' centres, the bodies' centres."""
    itk = simpleitk()
    fixed, moving = pair.fixed.grid, pair.moving.grid
    centre = centre_mm(fixed, pair.bodies[1])
    shifts = [
        np.zeros(3),
        centre_mm(moving) - centre_mm(fixed),
        centre_mm(moving, pair.bodies[0]) - centre,
    ]
    found: list[tuple[float, int, Transform]] = []
    for shift in shifts:
        begin = itk.Euler3DTransform(centre.tolist(), 0.0, 0.0, 0.0, shift.tolist())
        rough = _linear(pair, begin, (4,))
        if rough is not None:
            found.append((pair.compare(rough).mutual_information, len(found), rough))
    if not found:
        return None
    return _linear(pair, max(found)[2], (2, 1))


def _affine(pair: Pair, start: Transform) -> Transform | None:
    itk = simpleitk()
    begin = itk.AffineTransform(3)
    if start.GetName() == "Euler3DTransform":
        rigid = itk.Euler3DTransform(start)
        begin.SetCenter(rigid.GetCenter())
        begin.SetMatrix(rigid.GetMatrix())
        begin.SetTranslation(rigid.GetTranslation())
    else:
        begin.SetCenter(centre_mm(pair.fixed.grid, pair.bodies[1]).tolist())
    return _linear(pair, begin, (2, 1))


def _linear(pair: Pair, begin: Transform, levels: tuple[int, ...]) -> Transform | None:
    """Descend from `begin`, which keeps its kind (rigid or affine)."""
    descent = _descent(pair, levels)
    # a line search: steps of a fixed length stop early or walk off into another valley
    descent.SetOptimizerAsGradientDescentLineSearch(
        learningRate=1.0,
        numberOfIterations=60,
        convergenceMinimumValue=1e-6,
        convergenceWindowSize=5,
        lineSearchMaximumIterations=10,
    )
    descent.SetOptimizerScalesFromPhysicalShift()
    descent.SetInitialTransform(begin, inPlace=False)
    found = _run(descent, *pair.images)
    return None if found is None else type(begin)(_only(found))


def _only(found: Transform) -> Transform:
    """SimpleITK wraps the result of a descent in a composite of one."""
    itk = simpleitk()
    return itk.CompositeTransform(found).GetNthTransform(0) if found.GetName() == "CompositeTransform" else found


def _bspline(pair: Pair, start: Transform, knots_mm: float, level: int) -> Transform | None:
    """A free-form deformation by cubic splines before what was found so far. Source: Rueckert et al. 1999.

    The moving scan is brought along first: ITK gives no derivative through a spline that came before.
    """
    itk = simpleitk()
    grid = pair.fixed.grid
    cells = [max(1, round(n * mm / knots_mm)) for n, mm in zip(reversed(grid.shape), reversed(grid.spacing_mm))]
    descent = _descent(pair, (level,))
    inside = covered(pair.moving.grid, grid, start).astype(np.uint8)
    descent.SetMetricMovingMask(to_image(inside, grid))
    descent.SetInitialTransform(itk.BSplineTransformInitializer(pair.images[1], cells, order=3), inPlace=False)
    descent.SetOptimizerAsLBFGSB(numberOfIterations=30, maximumNumberOfFunctionEvaluations=40)
    moving = itk.Resample(pair.images[0], pair.images[1], start, itk.sitkLinear, pair.ranges[0][0])
    found = _run(descent, moving, pair.images[1])
    return None if found is None else itk.CompositeTransform([start, _only(found)])


def _ants(pair: Pair, start: Transform) -> Transform | None:
    """Symmetric diffeomorphic registration of ANTs after what was found so far. Source: Avants et al. 2008."""
    try:
        import ants
    except ImportError as error:
        raise BadInput(
            "registration: expected antspyx for --register ants, found it not installed. "
            "Run pip install 'voxlate[ants]', or use --register bspline."
        ) from error
    itk = simpleitk()
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / name) for name in ("moving.nii.gz", "fixed.nii.gz", "start.tfm")]
        for image, name in zip(pair.images, names):
            itk.WriteImage(image, name)
        itk.WriteTransform(itk.AffineTransform(3) if start.GetName() == "IdentityTransform" else start, names[2])
        found = ants.registration(
            fixed=ants.image_read(names[1]),
            moving=ants.image_read(names[0]),
            type_of_transform="SyNOnly",
            initial_transform=names[2],
            syn_metric="mattes",
            random_seed=SEED,
            outprefix=f"{folder}/",
        )["fwdtransforms"]
        warp, linear = itk.ReadImage(found[0], itk.sitkVectorFloat64), itk.ReadTransform(found[1])
        return itk.CompositeTransform([linear, itk.DisplacementFieldTransform(warp)])


def _levels(pair: Pair, levels: tuple[int, ...]) -> list[int]:
    """Shrinking that leaves PYRAMID_VOXELS along each axis."""
    shortest = min(min(pair.fixed.grid.shape), min(pair.moving.grid.shape))
    return [min(level, max(1, shortest // PYRAMID_VOXELS)) for level in levels]


def _descent(pair: Pair, levels: tuple[int, ...]) -> Any:
    """A registration by Mattes' mutual information at SAMPLES points of each level."""
    descent = simpleitk().ImageRegistrationMethod()
    descent.SetMetricAsMattesMutualInformation(BINS)
    shrink = _levels(pair, levels)
    voxels = int(np.prod(pair.fixed.grid.shape))
    descent.SetMetricSamplingStrategy(descent.RANDOM)
    descent.SetMetricSamplingPercentagePerLevel([min(1.0, SAMPLES * k**3 / voxels) for k in shrink], SEED)
    descent.SetInterpolator(simpleitk().sitkLinear)
    descent.SetShrinkFactorsPerLevel(shrink)
    descent.SetSmoothingSigmasPerLevel([k / 2 if k > 1 else 0.0 for k in shrink])
    descent.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return descent


def _run(descent: Any, moving: Any, fixed: Any) -> Transform | None:
    """The result of a descent; none where it lost the overlap of the two."""
    try:
        return descent.Execute(fixed, moving)
    except RuntimeError as error:
        if any(sign in str(error) for sign in LOST):
            return None
        raise


Step = Callable[[Pair, Transform], Transform | None]
_LINEAR: tuple[tuple[Method, Step], ...] = (("rigid", _rigid), ("affine", _affine))
_STEPS: dict[Method, tuple[tuple[Method, Step], ...]] = {
    "rigid": _LINEAR[:1],
    "affine": _LINEAR,
    "bspline": (
        *_LINEAR,
        ("bspline", functools.partial(_bspline, knots_mm=2 * KNOTS_MM, level=2)),
        ("bspline", functools.partial(_bspline, knots_mm=KNOTS_MM, level=1)),
    ),
    "ants": (*_LINEAR, ("ants", _ants)),
}
