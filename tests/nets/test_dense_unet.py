"""The dense U-Net: its size, which nodes see which, and what it treats alike."""

import pytest
import torch
from calling import ask, channels
from torch import nn

from voxlate.errors import BadInput
from voxlate.nets.dense_unet import DenseUNet, DenseUNetNet

TINY = DenseUNet(width=4, blocks=(1, 1), groups=2)


def built(net: DenseUNet, sources: int = 1, targets: int = 1, **more: bool) -> DenseUNetNet:
    torch.manual_seed(0)
    made = net.build(channels(0, sources, targets, noisy=False, **more))
    nn.init.normal_(made.head.weight, std=0.1)  # it starts at zero
    return made


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_its_encoder_has_the_kernels_of_resnet_34() -> None:
    """21,284,672 numbers without the classifier (He et al. 2016, table 1); only the first kernel sees one channel, not
    three, and convolutions have biases here."""
    with torch.device("meta"):
        net = DenseUNet().build(channels(0, 1, 1, noisy=False))
    kernels = [part.weight.numel() for part in (net.stem, *net.stages.modules()) if isinstance(part, nn.Conv2d)]
    norms = [count(part) for part in (net.stem_norm, *net.stages.modules()) if isinstance(part, nn.GroupNorm)]
    own_norms_of_skips = 2 * (128 + 256 + 512)  # which published ResNets have, and these do not
    assert sum(kernels) + sum(norms) + own_norms_of_skips == 21_284_672 - 2 * 64 * 7 * 7


def test_a_triangle_of_nodes_lies_between_encoder_and_decoder() -> None:
    nodes = built(DenseUNet(width=4, groups=2)).nodes
    assert {*nodes} == {f"{row}_{column}" for column in range(1, 5) for row in range(5 - column)}
    assert {*built(DenseUNet(width=4, groups=2, dense=False)).nodes} == {"3_1", "2_2", "1_3", "0_4"}


def test_a_node_takes_all_earlier_ones_of_its_row_and_the_one_below() -> None:
    """Row 1 at width 4: 4 channels of the encoder, 2 of each node so far, and those of the node below."""
    nodes = built(DenseUNet(width=4, groups=2)).nodes
    assert [nodes[f"1_{column}"].conv1.in_channels for column in (1, 2, 3)] == [4 + 8, 4 + 2 + 4, 4 + 2 + 2 + 4]


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 17, 22), (2, 33, 9), (1, 1, 1)])
@pytest.mark.parametrize("dense", [True, False])
def test_every_size_comes_back(size: tuple[int, int, int], dense: bool) -> None:
    net = built(DenseUNet(width=4, blocks=(1, 1), groups=2, dense=dense), 2, 3)
    assert ask(net, None, torch.randn(2, 2, *size), None).shape == (2, 3, *size)


def test_each_slice_is_translated_by_itself() -> None:
    net = built(TINY).double()
    images = torch.randn(2, 1, 3, 16, 16, dtype=torch.double)
    together = ask(net, None, images, None)
    torch.testing.assert_close(ask(net, None, images[1:, :, 2:], None), together[1:, :, 2:])


def test_at_the_start_its_blocks_are_their_skips_and_its_image_is_zero() -> None:
    torch.manual_seed(0)
    net = TINY.build(channels(0, 1, 1, noisy=False))
    h = torch.rand(1, 4, 8, 8)
    torch.testing.assert_close(net.stages[0][0](h), nn.functional.silu(h))
    assert not ask(net, None, torch.randn(1, 1, 1, 16, 16), None).any()


def test_every_parameter_learns() -> None:
    net = built(TINY)
    for part in net.modules():
        if isinstance(part, nn.GroupNorm):
            nn.init.ones_(part.weight)  # those of the blocks start at zero
    ask(net, None, torch.randn(1, 1, 1, 32, 32), None).square().mean().backward()
    assert not [name for name, one in net.named_parameters() if one.grad is None or not one.grad.any()]


def test_a_noise_level_is_refused() -> None:
    with pytest.raises(BadInput, match="takes the noise level, found 'dense_unet'"):
        DenseUNet().build(channels(1, 1, 1))
