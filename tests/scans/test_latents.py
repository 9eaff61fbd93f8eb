"""Moments of latents, encoded once and read with the slices that they belong to."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rows import every_row
from voxlate.scans.cases.prepared import Cohort, open_cohort
from voxlate.scans.images.intensity import Intensity, Percentile, Window
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.batches import Batches
from voxlate.training.batches.data_settings import DataSettings
from voxlate.training.batches.patches import cache_moments, can_cache

MAPS: dict[str, Intensity] = {"t1": Window(low=0, high=1000), "t2": Percentile()}
DATA = DataSettings(source=["t1"], target=["t2"], patch=(1, 8, 8))


@pytest.fixture
def cohort(six, tmp_path) -> Cohort:
    return open_cohort(shutil.copytree(six.folder, tmp_path / "prepared"))


def halved(images: Tensor) -> Tensor:
    """A stand-in for an encoder: the mean is every second pixel, the log variance its double; [B, 2, 1, h, w]."""
    mean = images[..., ::2, ::2]
    return torch.cat([mean, 2 * mean], dim=1)


def test_batches_carry_the_moments_that_the_encoder_gives_of_their_slices(cohort):
    folder = cohort.folder / "latents"
    cache_moments(cohort, DATA, MAPS, halved, folder)
    for depth in (1, 3):  # slices, or windows of them
        data = replace(DATA, patch=(depth, 8, 8))
        batches = Batches(cohort, data, MAPS, batch=5, moments=folder)
        for step in range(3):
            one = batches[step]
            moments = torch.cat([one.source_moments, one.target_moments])
            assert torch.equal(moments, halved(torch.cat([one.source, one.target])).unsqueeze(1))
            assert moments.shape == (10, 1, 2, depth, 4, 4)
    assert Batches(cohort, DATA, MAPS)[0].source_moments is None


@every_row(
    "changes",
    [
        {"augment": AugmentSettings(flip_lr=0.5)},
        {"patch": (1, 4, 8)},
        {"patch": (9, 8, 8)},
        {"stack": 1},
    ],
)
def test_what_is_not_the_same_slice_every_time_is_not_cached(cohort, changes):
    assert can_cache(cohort, DATA)
    assert not can_cache(cohort, replace(DATA, **changes))
