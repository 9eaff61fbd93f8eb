"""BRAN: its published size, what its regions and its dropped squares do, and that it treats left as right."""

from itertools import product

import pytest
import torch
from calling import ask, channels, count
from torch import nn
from torch.testing import assert_close

from refusals import refuses
from rows import every_row
from voxlate.science.nets.bran import Bran, BranNet, DropBlock, RegionalFilters, one_hot


def built(net: Bran, sources: int = 2) -> BranNet:
    return net.build(channels(0, sources, 1, noisy=False))


def test_of_the_published_parameters_11394096_are_for_regions():
    with torch.device("meta"):
        net = built(Bran(), sources=4)
    regional = [module for module in net.modules() if isinstance(module, RegionalFilters)]
    assert sum(map(count, regional)) == 11_394_096


@every_row("norm", ["batch", "instance"])
@every_row("size", [(1, 16, 16), (3, 20, 12), (6, 16, 24), (13, 16, 16)])
def test_a_volume_comes_back_in_its_own_size_and_its_slices_depend_on_each_other(size, norm):
    torch.manual_seed(0)
    net = built(Bran(width=4, stages=3, regions=0, norm=norm, dimensions=3)).eval()
    images = torch.randn(2, 2, *size)
    before = ask(net, None, images, None)
    assert before.shape == (2, 1, *size)
    images[:, :, -1] += 1
    assert ((ask(net, None, images, None) - before).abs() > 0).flatten(3).any(3).all()


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


@every_row(
    "options, words",
    [
        ({"regions": 3}, "multiple of 3 regions"),
        ({"drop_block": 2}, "odd side"),
        ({"dimensions": 3}, r"net\.dimensions = 3"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, words):
    with refuses(words):
        Bran(**options)
