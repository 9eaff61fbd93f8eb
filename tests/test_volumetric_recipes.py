"""The recipes of paper 004's baselines: alike where the paper compares them, and as published where it does not say."""

import pytest
import torch

from rows import every_row
from voxlate.training import recipe as recipes

ROWS = ("pix2pix", "pix2pix_3d", "cyclegan_3d", "palette", "palette_tuned")


def parameters(name):
    """Of the network that synthesises, and of all critics together."""
    with torch.device("meta"):
        method = recipes.read(name).build()
    sizes = {key: one.numel() for key, one in method.named_parameters()}
    critics = sum(size for key, size in sizes.items() if key.startswith("critic"))
    return sum(one.numel() for one in method.net.parameters()), critics


def test_two_dimensional_pix2pix_has_the_size_of_isolas_code_with_one_channel():
    """Its 54,413,955 of 3 channels on either side, less 3 biases and the kernels of 2 channels at either end."""
    net = 54_413_955 - 3 - 2 * 16 * 64 - 2 * 16 * 128
    critics = (
        16 * (2 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 2 * (128 + 256 + 512) + 1
    )
    assert parameters("pix2pix_swi_mra") == (net, critics)


def test_three_dimensional_rows_have_kernels_of_64_voxels_in_the_widths_of_the_specification():
    """Critics of 2 channels (a pair) or, twice, of 1; their convolutions have biases, their norms nothing."""
    deep = 64 * (32 * 64 + 64 * 128 + 128) + 32 + 64 + 128 + 1
    assert parameters("pix2pix_3d_swi_mra") == (16_652_288, 64 * 2 * 32 + deep)
    assert parameters("cyclegan_3d_swi_mra") == (5_872_641, 2 * (64 * 32 + deep))


@every_row("row", ROWS)
@every_row("size", ["", "_small"])
def test_all_rows_see_the_same_images_on_the_same_scale(row, size):
    made = recipes.read(f"{row}_swi_mra{size}")
    assert (*made.data.source, *made.data.target) == ("swi", "tof")
    assert (made.data.patch[0] > 1) == ("_3d" in row)
    for modality, scale in made.intensity.items():
        # of TOF the 99.5th percentile lies within the arteries
        assert (scale.low, scale.high) == (0.5, 99.9 if modality == "tof" else 99.5)


def test_palette_trains_with_2000_betas_and_samples_with_1000_others():
    """alpha² is the product of 1 - beta: about exp of minus the betas' sum, 10.001 and 45.05."""
    made = recipes.read("palette_swi_mra")
    assert made.synth.steps == 1000
    for schedule, first, last, count in (
        (made.method.schedule, 1e-6, 1e-2, 2000),
        (made.synth.schedule, 1e-4, 0.09, 1000),
    ):
        half = torch.tensor(0.5)
        betas = torch.linspace(first, last, count, dtype=torch.double)[: count // 2]
        product = (1 - betas).prod().item()
        assert schedule(half)[0].square().item() == pytest.approx(product, rel=1e-6)


def test_the_well_tuned_palette_samples_with_the_noise_that_it_was_trained_with():
    made = recipes.read("palette_tuned_swi_mra")
    assert made.synth.schedule == made.method.schedule
    assert made.method.clip == (-1, 1)
    assert recipes.read("palette_swi_mra").method.clip is None
