"""Scans unlike the known ones: heads of waves, with metal, cut off, upside down, of another contrast."""

import numpy as np
import pytest
import scipy.ndimage as ndimage

from rows import every_row, slow
from voxlate.synthesis.out_of_distribution import (
    PROVING,
    STATISTICS,
    fit_references,
    patches_of,
    verdict_on,
)

SPACING = (5.0, 3.0, 3.0)


def head(seed: int) -> np.ndarray:
    """An ellipsoid with a bright rim and an off-centre blob, in network units."""
    draw = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in (12, 48, 40)), indexing="ij")
    radius = np.sqrt(
        (x / draw.uniform(0.78, 0.82)) ** 2 + (y / draw.uniform(0.83, 0.87)) ** 2 + (z / 0.95) ** 2
    )
    image = np.where(radius < 1, 0.0, -1.0) + 0.6 * np.exp(-(((radius - 0.9) / 0.08) ** 2))
    image += 0.4 * np.exp(-((x - 0.1) ** 2 + (y - 0.3 + draw.normal(0, 0.03)) ** 2 + z**2) / 0.05)
    noise = ndimage.gaussian_filter(draw.normal(size=image.shape), (0, 1, 1)) * 0.05
    return np.where(radius < 1.1, image + noise, -1).clip(-1, 1).astype(np.float32)


def seen(image: np.ndarray):
    return patches_of([image], image > -0.9, SPACING)


@pytest.fixture(scope="module")
def references():
    return references_of(24)


def references_of(known):
    return fit_references([seen(head(k)) for k in range(known)], [f"p{k}" for k in range(known)])


@slow
def test_new_heads_of_the_same_kind_pass(references):
    assert references.patients < PROVING == 59
    flagged = [verdict_on(references, seen(head(k))).is_flagged for k in range(100, 140)]
    assert np.mean(flagged) <= 0.1  # 5 % are to be expected


def inverted(image):
    return np.where(image > -0.9, -image, -1).astype(np.float32)


def with_metal(image):
    image = image.copy()
    image[5:7, 20:25, 10:15], image[5:7, 18:20, 10:15] = -1, 1
    return image


@every_row(
    ("change", "worst"),
    [
        (with_metal, "farthest"),
        (lambda image: image[4:], None),
        (lambda image: np.ascontiguousarray(image.transpose(0, 2, 1)), None),
        (inverted, None),
    ],
)
def test_heads_of_another_kind_are_flagged(references, change, worst):
    verdicts = [verdict_on(references, seen(change(head(k)))) for k in (100, 101)]
    assert all(one.is_flagged for one in verdicts)
    if worst:
        assert max(STATISTICS, key=lambda name: verdicts[0].statistics[name]) == worst
        assert STATISTICS[worst] in verdicts[0].messages[0].text


def test_the_map_is_high_where_the_metal_is(references):
    image = with_metal(head(100))
    far = verdict_on(references, seen(image)).map(image.shape)
    assert far.shape == image.shape
    assert far[5:7, 18:25, 10:15].mean() > 2 * far[image > -0.9].mean()
    assert np.unravel_index(far.argmax(), far.shape)[0] in (4, 5, 6, 7)


def test_a_patients_own_scans_do_not_make_him_familiar():
    """The same case twice under one patient: its distance is that to the others, not 0."""
    cases = [seen(head(k)) for k in (0, 0, 1, 2)]
    alone = fit_references(cases, ["a", "a", "b", "c"])
    assert alone.usual[0] > 0.05


def test_a_single_slice_and_a_scan_that_shows_nothing_have_patches():
    plane = np.zeros((1, 20, 20), np.float32)
    assert len(patches_of([plane], plane == 0, SPACING).features)
    line = plane[:, :1, :9]
    assert len(patches_of([line], line != 0, SPACING).features) == 1


@every_row("known, grade", [(2, "note"), (4, "caution")])
@slow
def test_few_patients_say_that_they_are_few(known, grade):
    (said,) = verdict_on(references_of(known), seen(inverted(head(100)))).messages
    assert (said.numbers["patients"], said.grade) == (known, grade)
