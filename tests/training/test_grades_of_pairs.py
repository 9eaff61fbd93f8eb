"""The table of docs/guides/trust.md: what is wrong with a scan, and the grade and code that a starter gives it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, rotate

from rows import slow
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.errors import BadInput
from voxlate.base.messages import worst_grade
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.training.load import load

PAGE = Path(__file__).parents[2] / "docs/guides/trust.md"


def _with(change):
    return lambda scan: replace(scan, data=change(scan.data[0])[None].astype(np.float32))


def _sized(*factors):
    return lambda scan: replace(scan, affine=scan.affine @ np.diag([*factors, 1.0]))


def _turned(*axes):
    def turn(scan):
        spacing_mm = [scan.grid.spacing_mm[axis] for axis in axes]
        data = scan.data[0].transpose(axes).copy()
        return replace(scan, data=data[None], affine=np.diag([*spacing_mm[::-1], 1.0]))

    return turn


def _stripes(image):
    return np.broadcast_to(100.0 * (np.arange(image.shape[-1]) % 2), image.shape)


def _noisy(image):
    draw = np.random.default_rng(0)
    sd = 0.2 * np.percentile(image, 98)
    return np.hypot(image + draw.normal(0, sd, image.shape), draw.normal(0, sd, image.shape))


def _void(image):
    """A disc without signal of 25 mm radius in all slices, in the middle of a half of the head."""
    _, height, width = image.shape
    rows = (np.arange(height)[:, None] - 0.5 * height) * SIDE_MM
    columns = (np.arange(width) - 0.5 * width) * SIDE_MM
    return np.where((rows - 30) ** 2 + (columns - 20) ** 2 < 25**2, 0, image)


def _ellipsoid(image):
    places = [np.linspace(-1.2, 1.2, length) ** 2 for length in image.shape]
    texture = gaussian_filter(np.random.default_rng(0).normal(0, 1, image.shape), 1.5)
    inside = places[0][:, None, None] + places[1][:, None] + places[2] < 1
    return np.where(inside, 500 + 2000 * texture, 0)


def _positions(image):
    """The positions of slices, [D, 1, 1]."""
    return np.arange(len(image))[:, None, None]


SIDE_MM = 2.5
CHANGES: dict[str, Callable[[Volume], Volume]] = {
    "nothing": lambda scan: scan,
    "noise alone": _with(lambda image: np.random.default_rng(0).normal(0, 0.01, image.shape)),
    "stripes alone": _with(_stripes),
    "voxels three times as large": _sized(3, 3, 3),
    "voxels a quarter as large": _sized(0.25, 0.25, 0.25),
    "feet-head and left-right exchanged": _turned(2, 1, 0),
    "quarter turn in the plane": _turned(0, 2, 1),
    "upper half missing": _with(lambda image: image[: len(image) // 2]),
    "ghosts of half the signal": _with(lambda i: i + 0.5 * np.roll(i, i.shape[1] // 2, axis=1)),
    "noise of a fifth of the signal": _with(_noisy),
    "region without signal, 25 mm radius": _with(_void),
    "even slices, then odd ones": _with(lambda i: i[np.r_[0 : len(i) : 2, 1 : len(i) : 2]]),
    "four slices of 20 zero": _with(lambda i: i * (_positions(i) // 4 % 5 != 2)),
    "every second slice half as bright": _with(lambda i: i / (1 + _positions(i) % 2)),
    "some slices mirrored": _with(lambda i: np.where(_positions(i) % 5 == 2, i[..., ::-1], i)),
    "30 mm of slices missing": _with(lambda i: np.delete(i, np.s_[20:30], 0)),
    "one slice with an offset": _with(lambda i: i + i.max() * (_positions(i) == 24)),
    "each slice scaled by itself": _with(lambda i: i / np.maximum(i.max((1, 2), keepdims=True), 1)),
    "turned by 40° in the plane": _with(lambda i: rotate(i, 40, (1, 2), reshape=False, order=1)),
    "back half zero": _with(lambda i: i * (np.arange(i.shape[1])[:, None] > i.shape[1] // 2)),
    "a textured ellipsoid": _with(_ellipsoid),
    "a label map": _with(lambda i: np.digitize(i, np.percentile(i, [20, 40, 50, 60, 70, 80, 90]))),
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    write_cohort(folder, cases=1, size=(80, 96, 48), lesion="none", modalities=["t1", "ct"], seed=6)
    (case,) = (path for path in folder.iterdir() if path.is_dir())
    return {
        name: replace(canonical(read_volume(case / f"{name}.nii.gz", name)), modality="mr")
        for name in ("t1", "ct")
    }


def _table():
    """The grade and the code of each change on the page."""
    rows = re.findall(r"^\| ([^|]+) \| `([^|]*)` \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    return {change: (grade, code) for grade, code, named in rows for change in named.split("; ")}


CT = {"CT in place of the MR": 0, "the same, 1024 added": 1024}


def test_the_page_names_every_pair():
    assert _table().keys() == {*CHANGES, *CT}


@slow
@pytest.mark.parametrize("change", [*CHANGES, *CT])
def test_a_starter_gives_the_grade_and_the_code_of_the_page(change, scans, shipped_starters):
    if change in CHANGES:
        scan = CHANGES[change](scans["t1"])
    else:
        values = np.maximum(scans["ct"].data + CT[change], CT[change] - 1024)
        scan = replace(scans["ct"], unit="a.u.", data=values)
    try:
        warnings = (
            load(shipped_starters / "head-mr-to-ct", device="cpu").check({"mr": scan}).messages
        )
        grade = worst_grade(warnings)
        codes = {one.code for one in warnings if one.grade == grade}
    except BadInput:
        grade, codes = "refused", {"–"}
    if grade in (None, "note"):
        grade, codes = "none", {"–"}
    stated, code = _table()[change]
    assert grade == stated
    assert code in codes
