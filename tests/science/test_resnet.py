"""The generator of CycleGAN: its published size and order, and what it treats alike."""

import pytest
import torch
from calling import ask, channels
from torch import nn

from rows import every_row
from voxlate.science.nets.resnet import ResNet, ResNetNet


def built(net: ResNet, sources: int = 1, targets: int = 1) -> ResNetNet:
    return net.build(channels(0, sources, targets, noisy=False))


def test_its_kernels_start_with_the_published_spread_and_its_biases_at_0():
    torch.manual_seed(0)
    for module in built(ResNet(blocks=1)).modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert module.bias is not None
            assert not module.bias.any()


@every_row("dimensions, expected", [(2, [False] * 4 + [True, False]), (3, [True] * 6)])
def test_a_slice_is_translated_by_itself_but_in_three_dimensions(dimensions, expected):
    torch.manual_seed(0)
    net = built(ResNet(width=4, blocks=1, dimensions=dimensions)).double()
    images = torch.randn(2, 1, 6, 16, 16, dtype=torch.double)
    changed = images.clone()
    changed[1, :, 4] *= torch.randn(16, 16)  # not by a number, which the norms take away
    moved = (ask(net, None, changed, None) - ask(net, None, images, None)).abs() > 1e-9
    assert moved.flatten(3).any(3)[:, 0].tolist() == [[False] * 6, expected]


@every_row("dimensions, depth", [(2, 1), (3, 4)])
def test_brightness_and_contrast_of_a_whole_image_are_normalised_away(dimensions, depth):
    """Reflection keeps a constant constant to the border, so instance norms remove any line of grey values."""
    torch.manual_seed(0)
    net = built(ResNet(width=4, blocks=2, dimensions=dimensions)).double()
    images = (
        torch.randn(1, 1, depth, 16, 16, dtype=torch.double) * 100
    )  # large against the norm's epsilon
    a, b = (ask(net, None, x, None) for x in (images, 3 * images + 70))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
