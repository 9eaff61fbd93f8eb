"""Convolutions that halve and double volumes: depths that they keep or halve, known sums, and their symmetry."""

import torch

from rows import every_row
from voxlate.science.nets.strided import DoublingConv, HalvingConv


@every_row("kernel", [3, 4])
def test_a_depth_is_halved_rounding_up_while_four_slices_are_left_and_comes_back(
    kernel,
):
    down, up = HalvingConv(1, 2, kernel, stride=2), DoublingConv(2, 1, kernel, stride=2)
    for depth, expected in {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 7: 4, 32: 16}.items():
        halved = down(torch.randn(1, 1, depth, 8, 6))
        assert halved.shape == (1, 2, expected, 4, 3)
        assert up(halved, depth).shape == (1, 1, depth, 8, 6)


@every_row("kernel", [3, 4])
@every_row("depth", [2, 3, 5, 8])
def test_with_the_same_kernels_doubling_is_the_transpose_of_halving(kernel, depth):
    """<halve(x), y> = <x, double(y)>: both pad the same places."""
    torch.manual_seed(0)
    down = HalvingConv(1, 3, kernel, stride=2, bias=False).double()
    up = DoublingConv(3, 1, kernel, stride=2, bias=False).double()
    up.load_state_dict(down.state_dict())
    x = torch.randn(1, 1, depth, 6, 8, dtype=torch.double)
    halved = down(x)
    y = torch.randn_like(halved)
    torch.testing.assert_close((halved * y).sum(), (x * up(y, depth)).sum())


def test_a_sum_over_ones_counts_the_voxels_inside():
    down = HalvingConv(1, 1, 4, stride=2, bias=False)
    torch.nn.init.ones_(down.weight)
    sums = down(torch.ones(1, 1, 8, 8, 8))[0, 0]
    assert sums[1, 1, 1] == 4 * 4 * 4
    assert sums[0, 0, 0] == 3 * 3 * 3  # one voxel before the first is outside each way
    kept = down(torch.ones(1, 1, 3, 8, 8))[0, 0, :, 1, 1] / 16
    assert kept.tolist() == [3, 3, 2]  # one slice before is outside, and two behind


@every_row("kernel", [3, 4])
@every_row("depth", [1, 2, 3, 4])
def test_gradients_in_bfloat16_are_those_of_float32_to_its_rounding(kernel, depth):
    """torch 2.13 gives nan for two slices that a convolution pads itself."""
    torch.manual_seed(0)
    down, up = HalvingConv(32, 32, kernel, stride=2), DoublingConv(32, 32, kernel, stride=2)
    images, found = torch.randn(1, 32, depth, 8, 8), []
    for reduced in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            made = up(down(images), depth)
        weights = [down.weight, up.weight]
        found.append(torch.autograd.grad((made.float() * images).sum(), weights))
    for plain, reduced in zip(*found):
        assert (plain - reduced).norm() < 0.02 * plain.norm()
