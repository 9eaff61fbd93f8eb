"""Reading the ITK transforms of registered scans, whose files have no checksum."""

import math
import re
from pathlib import Path

import numpy as np

from voxlate.base.records import Record
from voxlate.scans.images.register import LEAST_VOLUME, Transform
from voxlate.scans.images.simpleitk import itk

FARTHEST_MM = 1e5  # of any number of a transform: no scanner's frame is wider than some metres
LINEAR = {  # parameters, and fixed ones: the centre
    "Euler3DTransform": (6, (3, 4)),
    "AffineTransform": (12, (3,)),
    "TranslationTransform": (3, (0,)),
}
SPLINE_FIXED = 18  # of a spline: knots, origin, spacing and direction
# ITK reads no other spelling
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
KIND = re.compile(r"Transform: (\w+)_double_3_3")


def read_transform(path: Path) -> Transform:
    """A transform that `write_transform` wrote; raises BadInput where it is damaged, or none of two scans."""
    again = "Remove the prepared case and prepare again."
    record = Record(path, "a transform between two scans", again)
    _check_text(record, path.read_text(encoding="utf-8", errors="replace"))
    try:
        transform = itk.ReadTransform(str(path))
    except RuntimeError as error:
        raise record.wrong("a file that ITK cannot read") from error
    record.check(transform.GetDimension() == 3, f"one of {transform.GetDimension()} dimensions")
    numbers = np.array([*transform.GetParameters(), *transform.GetFixedParameters()])
    far = not (np.abs(numbers) <= FARTHEST_MM).all()
    record.check(not far, "numbers that are not finite, or far too large")
    if transform.IsLinear():
        points = np.array([transform.TransformPoint(point) for point in np.eye(4, 3, -1).tolist()])
        volume = float(np.linalg.det(points[1:] - points[0]))
        record.check(
            LEAST_VOLUME <= volume <= 1 / LEAST_VOLUME, f"one that changes volumes by {volume:g}"
        )
    return transform


def _check_text(record: Record, text: str) -> None:
    """Raise BadInput unless each transform has as many numbers as its kind: ITK reads beyond its memory for fewer."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    if lines and lines[0] == "Transform: CompositeTransform_double_3_3":
        del lines[0]
    record.check(len(lines) > 0 and len(lines) % 3 == 0, "a text of another form")
    for first in range(0, len(lines), 3):
        kind = KIND.fullmatch(lines[first])
        record.check(kind is not None, f"'{lines[first]:.80}'")
        assert kind is not None
        own = _numbers(record, lines[first + 1], "Parameters:")
        fixed = _numbers(record, lines[first + 2], "FixedParameters:")
        record.check(
            _fit(kind[1], own, fixed), f"{len(own)} and {len(fixed)} numbers of a {kind[1]:.80}"
        )


def _numbers(record: Record, line: str, name: str) -> list[float]:
    words = line.split()
    record.check(words[:1] == [name], f"no {name}")
    record.check(all(NUMBER.fullmatch(word) for word in words[1:]), f"no numbers in its {name}")
    return [float(word) for word in words[1:]]


def _fit(kind: str, own: list[float], fixed: list[float]) -> bool:
    """Whether so many numbers make a transform of a kind."""
    if kind in LINEAR:
        wanted, centres = LINEAR[kind]
        return len(own) == wanted and len(fixed) in centres
    if kind != "BSplineTransform" or len(fixed) != SPLINE_FIXED:
        return False
    knots = fixed[:3]
    return all(count.is_integer() and count > 0 for count in knots) and len(own) == 3 * math.prod(
        knots
    )
