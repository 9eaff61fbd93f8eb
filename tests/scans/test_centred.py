"""Pieces cut, or filled, evenly on both sides, for methods that compare left with right."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from voxlate.checks.prepare import prepare
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.intensity import Window
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.batches import Batches, validation_batches
from voxlate.training.batches.patches import DataSettings, note_on_cut

INTENSITY = {"t1": Window(low=0, high=100), "t2": Window(low=0, high=100)}


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory, save) -> Callable[[int], Cohort]:
    """A cohort of heads of one width that are their own mirror images."""

    @cache
    def make(width):
        folder = tmp_path_factory.mktemp(f"width{width}")
        for k in range(3):
            half = np.random.default_rng(k).uniform(10, 100, (3, 12, (width + 1) // 2))
            head = np.concatenate([half, half[..., ::-1][..., width % 2 :]], axis=-1)
            for name in ("t1", "t2"):
                save(folder / "cohort" / f"case{k}" / f"{name}.nii.gz", head)
            save(folder / "cohort" / f"case{k}" / "mask.nii.gz", head > 30)
        return prepare(folder / "cohort", folder / "prepared", workers=1, audit=False)

    return make


def settings(centred: bool = True, **augment: float) -> DataSettings:
    augmented = AugmentSettings(**augment)
    return DataSettings(
        source=["t1"], target=["t2"], patch=(1, 8, 10), centred=centred, augment=augmented
    )


@pytest.mark.parametrize("width", [6, 14])
def test_a_symmetric_head_is_learned_from_symmetric_pieces_whatever_its_width(symmetric, width):
    cohort = symmetric(width)
    still = Batches(cohort, settings(), INTENSITY, batch=4, steps=4)
    resized = Batches(
        cohort, settings(scale=0.2, stretch=0.1, flip_lr=0.5), INTENSITY, batch=4, steps=4
    )
    validation = list(validation_batches(cohort, settings(), INTENSITY))
    for batch in [*(still[k] for k in range(4)), *validation]:
        for part in (batch.source, batch.target, batch.mask):
            assert torch.equal(part, part.flip(-1))
            assert part.std() > 0.1
    for k in range(4):
        torch.testing.assert_close(resized[k].source, resized[k].source.flip(-1))
    if width == 14:
        anywhere = Batches(cohort, settings(centred=False), INTENSITY, batch=12, steps=1)[0]
        assert not torch.equal(anywhere.source, anywhere.source.flip(-1))


@pytest.mark.parametrize(("width", "middle"), [(7, 5), (13, 5)])
def test_the_middle_of_an_odd_width_lies_right_of_the_middle_of_an_even_patch(
    symmetric, width, middle
):
    batch = Batches(symmetric(width), settings(), INTENSITY, batch=4, steps=1)[0]
    around = (
        [batch.source[..., middle - k] for k in (1, 2, 3, 4)],
        [batch.source[..., middle + k] for k in (1, 2, 3, 4)],
    )
    assert all(torch.equal(left, right) for left, right in zip(*around))


def test_rows_are_still_cut_anywhere(symmetric):
    cohort = symmetric(14)
    batches = Batches(cohort, settings(), INTENSITY, batch=6, steps=6)
    again = Batches(cohort, settings(), INTENSITY, batch=6, steps=6)
    items = torch.cat([batches[k].item for k in range(6)])
    assert len(items.unique()) > len(batches.items)  # a slice is cut at more than one height
    assert all(torch.equal(batches[k].source, again[k].source) for k in range(6))


def test_what_a_patch_of_fixed_size_leaves_of_the_mask_is_said(symmetric):
    cohort = symmetric(14)
    (top, bottom), (first, end) = cohort.header("case0").mask_box[1:]
    height, width = bottom - top, end - first
    held = min(8, height) / height * min(10, width) / width
    every = note_on_cut(cohort, settings(centred=False))
    assert f"({height}×{width})" in every
    assert f" {held:.0%} " in every
    assert "no patch reaches" not in every
    missed = f" {1 - 10 / width:.0%} of it is in columns that no patch reaches"
    assert missed in note_on_cut(cohort, settings())
    assert note_on_cut(cohort, replace(settings(), patch=(1, 12, 14))) == ""
