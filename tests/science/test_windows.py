"""Volumes in overlapping windows: every sampler gives what it gives on the whole, and data of known law keep it."""

import itertools
import math

import pytest
import torch
from exact import GAUSS
from hypothesis import given
from hypothesis import strategies as st

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.sample import SAMPLERS, SamplerSettings, sample
from voxlate.science.diffusion.schedules import Cosine
from voxlate.science.diffusion.windows import Windows, denoise_windows

DEPTH = 11
ITEMS = torch.arange(2 * DEPTH).reshape(2, DEPTH)


def slice_wise(part: slice):
    """Of each slice by itself."""
    return lambda x, t: GAUSS.denoise(x, *Cosine()(t))


@given(size=st.integers(1, 20), overlap=st.integers(0, 19), depth=st.integers(1, 60))
def test_windows_cover_a_volume_evenly_overlap_as_asked_and_are_as_few_as_that_allows(
    size, overlap, depth
):
    if overlap >= size:
        return
    parts = Windows(size=size, overlap=overlap).slices(depth)
    assert parts[0].start == 0
    assert parts[-1].stop == depth
    assert all(part.stop - part.start == min(size, depth) for part in parts)
    steps = [later.start - earlier.start for earlier, later in itertools.pairwise(parts)]
    assert all(step <= size - overlap for step in steps)
    assert not steps or max(steps) - min(steps) <= 1
    assert len(parts) == max(1, math.ceil((depth - overlap) / (size - overlap)))


@every_row(
    ("name", "windows"),
    [(name, Windows(size=4, overlap=3)) for name in SAMPLERS]
    + [("ddpm", Windows(size=5, overlap=1)), ("ddpm", Windows(size=30))],
)
def test_a_denoiser_of_single_slices_gives_the_same_bits_in_windows_with_every_sampler(
    name, windows
):
    sampling = SamplerSettings(sampler=name, steps=5, rtol=0.1, atol=0.1)
    mask = (torch.arange(4) > 0).float().reshape(1, 1, 1, 1, 4)
    whole, parts = (
        sample(sampling, denoise, Cosine(), Noise(0, ITEMS), torch.zeros(2, 1, DEPTH, 3, 4), mask)
        for denoise in (slice_wise(slice(None)), denoise_windows(slice_wise, DEPTH, windows))
    )
    assert torch.equal(parts, whole)


def test_windows_that_disagree_are_averaged_where_they_overlap():
    windows = Windows(size=4, overlap=2)
    denoise = denoise_windows(
        lambda part: lambda x, t: torch.full_like(x, float(part.start)), 8, windows
    )
    found = denoise(torch.zeros(1, 1, 8, 1, 1), torch.zeros(1))
    assert found.flatten().tolist() == [0, 0, 1, 1, 3, 3, 4, 4]  # windows from 0, 2 and 4


def test_the_law_of_a_volume_whose_slices_depend_on_each_other_is_kept_within_windows_as_deep_as_it_reaches():
    """Gaussian data of mean 0.4, spread 0.2, all slices of a block of four equal: windows of whole blocks are exact."""

    def denoise_for(part):
        def denoise(x, t):
            alpha, sigma = Cosine()(t)
            mean = x.unflatten(2, (-1, 4)).mean(
                3
            )  # what a block says of its one value has a quarter of the variance
            return GAUSS.denoise(mean, alpha, sigma / 2).repeat_interleave(4, 2)

        return denoise

    sampling = SamplerSettings(sampler="dpmpp_2m", steps=60)
    noise, like = Noise(0, torch.arange(12)[None]), torch.zeros(1, 1, 12, 32, 32)
    denoise = denoise_windows(denoise_for, 12, Windows(size=8, overlap=4))
    x = sample(sampling, denoise, Cosine(), noise, like)
    blocks = x.unflatten(2, (3, 4))
    assert blocks.std(3).max() < 1e-3
    count = blocks.mean(3).numel()
    assert float(blocks.mean()) == pytest.approx(0.4, abs=4 * 0.2 / count**0.5 + 0.003)
    assert float(blocks.mean(3).std()) == pytest.approx(0.2, rel=4 / (2 * count) ** 0.5 + 0.02)


def test_an_overlap_of_a_whole_window_is_refused():
    with pytest.raises(
        BadInput, match=r"synth\.windows: expected an overlap below the size, found 4 and 4"
    ):
        Windows(size=4, overlap=4)
