"""Moments of latents, encoded once and read with the slices that they belong to."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from preparing import prepare
from refusals import refuses
from rows import every_row
from voxlate.scans.cases.prepared import Cohort, open_cohort
from voxlate.scans.images.intensity import Intensity, Percentile, Window
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.batches import Batches, batches_of
from voxlate.training.batches.data_settings import DataSettings
from voxlate.training.batches.latents import cache_moments, uncacheable

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
        batches = Batches(cohort, data, MAPS, batch=5, steps=3, moments=folder)
        for step in range(3):
            one = batches[step]
            moments = torch.cat([one.source_moments, one.target_moments])
            assert torch.equal(moments, halved(torch.cat([one.source, one.target])).unsqueeze(1))
            assert moments.shape == (10, 1, 2, depth, 4, 4)
    assert Batches(cohort, DATA, MAPS)[0].source_moments is None


def test_what_is_encoded_is_left_and_what_changed_is_encoded_anew(cohort_folder, tmp_path, save):
    def prepare_again():
        return prepare(cohort_folder, tmp_path / "prepared", workers=1, audit=False)

    cohort = prepare_again()
    folder = cohort.folder / "latents"
    cache_moments(cohort, DATA, MAPS, halved, folder)
    counted = []

    def watched(images):
        counted.append(images.shape[2])
        return halved(images)

    cache_moments(cohort, DATA, MAPS, watched, folder)
    assert counted == [1], "an empty slice says what shape moments have"
    save(cohort_folder / "case3/t1.nii.gz", torch.arange(192).reshape(4, 6, 8).numpy())
    changed = prepare_again()
    seen = []
    cache_moments(changed, DATA, MAPS, watched, folder, lambda *at: seen.append(at))
    assert counted == [1, 1, 4, 4], "four slices of two modalities"
    assert seen == [(number + 1, len(seen)) for number in range(len(seen))]
    (batch,) = batches_of(changed, DATA, MAPS, [("case3", (2, 0, 0))], 1)
    assert batch.source[0, 0, 0, 0, 0] == pytest.approx(96 / 500 - 1)
    assert not list(folder.glob(".writing-*"))


@every_row(
    "changes, words",
    [
        ({"augment": AugmentSettings(flip_lr=0.5)}, "data.augment"),
        ({"patch": (1, 4, 8)}, "larger than data.patch"),
        ({"patch": (9, 8, 8)}, "of fewer slices than data.patch"),
        ({"stack": 1}, "data.stack = 1"),
    ],
)
def test_what_is_not_the_same_slice_every_time_is_not_cached(cohort, changes, words):
    assert words in uncacheable(cohort, replace(DATA, **changes))
    assert uncacheable(cohort, DATA) == ""


def test_a_case_without_cached_latents_is_named(cohort, tmp_path):
    with refuses():
        Batches(cohort, DATA, MAPS, moments=tmp_path / "empty")[0]
