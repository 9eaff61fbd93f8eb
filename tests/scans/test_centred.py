"""Pieces cut, or filled, evenly on both sides, for methods that compare left with right."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from rows import every_row
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.intensity import Window
from voxlate.science.batch import Batch
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
            head = np.random.default_rng(k).uniform(10, 100, (3, 12, width))
            head = np.maximum(head, head[..., ::-1])
            for name, image in (("t1", head), ("t2", head), ("mask", head > 60)):
                save(folder / "cohort" / f"case{k}" / f"{name}.nii.gz", image)
        return prepare(folder / "cohort", folder / "prepared", workers=1, audit=False)

    return make


CENTRED = DataSettings(source=["t1"], target=["t2"], patch=(1, 8, 10), centred=True)
ANYWHERE = replace(CENTRED, centred=False)
RESIZED = replace(CENTRED, augment=AugmentSettings(scale=0.2, stretch=0.1, flip_lr=0.5))


def batches_of(cohort: Cohort, data: DataSettings, batch: int = 4, steps: int = 4) -> list[Batch]:
    batches = Batches(cohort, data, INTENSITY, batch=batch, steps=steps)
    return [batches[step] for step in range(steps)]


@every_row("width", [6, 14])
def test_a_symmetric_head_is_learned_from_symmetric_pieces_whatever_its_width(symmetric, width):
    cohort = symmetric(width)
    validation = validation_batches(cohort, CENTRED, INTENSITY)
    for batch in [*batches_of(cohort, CENTRED), *validation]:
        for part in (batch.source, batch.target, batch.mask):
            assert torch.equal(part, part.flip(-1))
            assert part.std() > 0.1
    for batch in batches_of(cohort, RESIZED):
        torch.testing.assert_close(batch.source, batch.source.flip(-1))


@every_row("width", [7, 13])
def test_the_middle_of_an_odd_width_lies_right_of_the_middle_of_an_even_patch(symmetric, width):
    source = batches_of(symmetric(width), CENTRED)[0].source
    assert torch.equal(source[..., 1:5], source[..., 6:].flip(-1))


def test_rows_are_still_cut_anywhere_and_columns_where_they_need_not_be_centred(symmetric):
    cohort = symmetric(14)
    first, again = (batches_of(cohort, CENTRED, batch=6, steps=6) for _ in range(2))
    items = torch.cat([batch.item for batch in first])
    slices = 3 * len(cohort.splits["train"])
    assert len(items.unique()) > slices  # a slice is cut at more than one height
    assert all(torch.equal(a.source, b.source) for a, b in zip(first, again))
    anywhere = batches_of(cohort, ANYWHERE, batch=12)[0].source
    assert not torch.equal(anywhere, anywhere.flip(-1))


def test_what_a_patch_of_fixed_size_leaves_of_the_mask_is_said(symmetric):
    cohort = symmetric(14)
    (top, bottom), (first, end) = cohort.header("case0").mask_box[1:]
    height, width = bottom - top, end - first
    held = min(8, height) / height * min(10, width) / width
    every = note_on_cut(cohort, ANYWHERE)
    assert f"({height}×{width})" in every
    assert f" {held:.0%} " in every
    assert "no patch reaches" not in every
    missed = f" {1 - 10 / width:.0%} of it is in columns that no patch reaches"
    assert missed in note_on_cut(cohort, CENTRED)
    assert note_on_cut(cohort, replace(CENTRED, patch=(1, 12, 14))) == ""
