"""BRAN and MAP: published sizes, regions, the mirror about the patient's own middle, and a start that changes nothing."""

import dataclasses
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from calling import ask, channels, count, shaken
from torch import Tensor, nn
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets.asymmetry import AsymmetryPrior, Sampling, mirror
from voxlate.science.nets.blocks import BlockOptions
from voxlate.science.nets.bran import Bran, BranNet, DropBlock, RegionalFilters, one_hot
from voxlate.science.nets.unet import ResidualUNet, UNet


def built(net: Bran, sources: int = 2) -> BranNet:
    return net.build(channels(0, sources, 1, noisy=False))


def test_of_the_published_parameters_11394096_are_for_regions():
    with torch.device("meta"):
        net = built(Bran(), sources=4)
    regional = [module for module in net.modules() if isinstance(module, RegionalFilters)]
    assert sum(map(count, regional)) == 11_394_096


def test_every_pixel_is_filtered_by_its_own_region():
    torch.manual_seed(0)
    layer = RegionalFilters(channels=3, regions=4, hidden=8)
    h = torch.randn(2, 3, 5, 4)
    out, filters, region = layer(h), layer.filters(h), layer.guide(h).argmax(1)
    assert len(region.unique()) > 2
    places = product(range(2), range(5), range(4))
    expected = torch.stack([filters[n, region[n, y, x]] @ h[n, :, y, x] for n, y, x in places])
    assert_close(out.permute(0, 2, 3, 1).reshape(-1, 3), expected)


def test_the_guide_decides_hard_and_learns_as_if_soft():
    torch.manual_seed(0)
    guide, weight = torch.randn(2, 4, 3, 3, requires_grad=True), torch.randn(2, 4, 3, 3)
    hard = one_hot(guide)
    assert torch.equal(hard.detach(), one_hot(guide.detach()).float())
    assert torch.equal(hard.sum(1).detach(), torch.ones(2, 3, 3))
    (gradient,) = torch.autograd.grad((hard * weight).sum(), guide)
    (expected,) = torch.autograd.grad((guide.softmax(1) * weight).sum(), guide)
    assert_close(gradient, expected)
    assert gradient.abs().max() > 0.01


@every_row("side", [1, 3])
def test_dropped_squares_leave_the_wanted_share_and_the_mean(side):
    torch.manual_seed(0)
    drop, ones = DropBlock(0.5, side).train(), torch.ones(4, 16, 40, 40)
    out = drop(ones)
    kept = out > 0
    assert kept[..., 1:-1, 1:-1].float().mean() == pytest.approx(0.5, abs=0.02)
    assert_close(out.mean(dim=(1, 2, 3)), torch.ones(4))
    if side == 3:  # every dropped feature away from the border lies in a whole square
        pool = nn.MaxPool2d(3, stride=1, padding=1)
        centres = pool(kept.float()) == 0
        assert (kept | (pool(centres.float()) > 0))[..., 2:-2, 2:-2].all()
    assert torch.equal(drop.eval()(ones), ones)


SMALL = UNet(width=8, multipliers=(1, 2, 2), blocks=1, groups=4, head_width=4, resampling="block")


def small(features: tuple[int, ...], **changes: object) -> ResidualUNet:
    torch.manual_seed(0)
    net = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    return net.build(channels(1, 2, 1, features=features)).eval()


def heads() -> tuple[Tensor, Tensor, Tensor]:
    """States, images and noise levels of two items."""
    return torch.randn(2, 1, 1, 16, 16), torch.randn(2, 2, 1, 16, 16), torch.zeros(2)


def test_at_first_the_prior_changes_nothing_and_then_it_does():
    net, plain, inputs = small((4, 6)), small(()), heads()
    for one in (net, plain):
        nn.init.constant_(one.head.weight, 0.1)
    plain.load_state_dict(net.state_dict(), strict=False)
    features = (torch.randn(2, 4, 1, 8, 8), torch.randn(2, 6, 1, 4, 4))
    without = ask(plain, *inputs)
    assert torch.equal(ask(net, *inputs, features=features), without)
    shaken(net.asymmetry)
    assert not torch.allclose(ask(net, *inputs, features=features), without)


def test_a_symmetric_head_has_no_asymmetry():
    """A sampling that takes the difference of its halves answers 0 for symmetric features, and only for those."""
    torch.manual_seed(0)
    sampling, feature = Sampling(4, groups=4), torch.randn(2, 4, 6, 8)
    with torch.no_grad():
        sampling.conv.weight[:, 4:] = -sampling.conv.weight[:, :4]
        sampling.conv.bias.zero_()  # type: ignore[union-attr]
    symmetric = feature + feature.flip(-1)
    assert sampling(symmetric, 8).abs().max() < 1e-6
    assert sampling(feature, 8).abs().max() > 0.1


def test_the_mirror_stands_in_the_middle_of_the_image_not_of_what_was_padded():
    row = torch.arange(8.0).reshape(1, 1, 1, 8)
    assert mirror(row, 5).flatten().tolist() == [4, 3, 2, 1, 0, 5, 6, 7]
    assert mirror(row, 8).flatten().tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


def pyramid(features: tuple[Tensor, ...], patch: int = 1):
    torch.manual_seed(0)
    channels = tuple(feature.shape[1] for feature in features)
    prior = AsymmetryPrior([8, 12, 16, 16], channels, patch, BlockOptions(groups=4))
    return prior, prior(features, (16 // patch, 16 // patch), 16)


def test_each_level_gets_its_own_map_and_the_averages_of_those_before():
    features = (torch.randn(2, 4, 1, 8, 8), torch.randn(2, 6, 1, 4, 4), torch.randn(2, 6, 1, 2, 2))
    prior, maps = pyramid(features)
    assert list(maps) == [1, 2, 3]
    for level, feature in zip(maps, features):
        own = prior.sampled[str(level)](feature[:, :, 0], feature.shape[-1])
        assert torch.equal(maps[level][0], own)
    assert [one.shape[1] for one in maps[3]] == [6, 6, 4]
    assert_close(maps[2][1], F.avg_pool2d(maps[1][0], 2))
    assert_close(maps[3][2], F.avg_pool2d(maps[1][0], 4))


@every_row("patch, levels", [(1, [1, 2]), (2, [0, 1]), (4, [0])])
def test_features_go_to_the_levels_of_their_sizes_whatever_the_stem(patch, levels):
    features = (torch.randn(1, 4, 1, 8, 8), torch.randn(1, 6, 1, 4, 4))
    _, maps = pyramid(features, patch)
    assert list(maps) == levels
    assert all(maps[level][0].shape[-1] == 16 // patch >> level for level in levels)
