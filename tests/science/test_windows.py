"""Volumes in overlapping windows: every sampler gives what it gives on the whole."""

import itertools
import math

import torch
from exact import GAUSS
from hypothesis import given
from hypothesis import strategies as st

from refusals import refuses
from rows import every_row
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.sample import SAMPLERS, SamplerSettings, sample
from voxlate.science.diffusion.schedules import Cosine
from voxlate.science.diffusion.windows import Windows, denoise_windows

DEPTH = 11
ITEMS = torch.arange(2 * DEPTH).reshape(2, DEPTH)


def slice_wise(part: slice):
    """Of each slice by itself."""
    return GAUSS.denoiser(Cosine())


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
    "name, windows",
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


def test_an_overlap_of_a_whole_window_is_refused():
    with refuses(r"synth\.windows: .* found 4 and 4"):
        Windows(size=4, overlap=4)
