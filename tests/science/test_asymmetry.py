"""MAP: its published size, the mirror about the patient's own middle, the pyramid, and a start that changes nothing."""

import dataclasses

import torch
import torch.nn.functional as F
from calling import ask, channels, make_symmetric, shaken
from torch import Tensor, nn
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets.asymmetry import AsymmetryPrior, Sampling, mirror, on_grid
from voxlate.science.nets.blocks import BlockOptions
from voxlate.science.nets.bran import Bran
from voxlate.science.nets.interface import NetworkInput
from voxlate.science.nets.unet import ResidualUNet, UNet

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


def test_maps_of_another_padding_are_cut_or_their_border_repeated():
    feature = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert on_grid(feature, 1, 2).flatten().tolist() == [0, 1]
    assert on_grid(feature, 2, 5)[0, 0].tolist() == [[0, 1, 2, 2, 2], [3, 4, 5, 5, 5]]


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


def test_predictor_prior_and_denoiser_mirror_their_output_with_the_patient_if_kernels_are_symmetric():
    torch.manual_seed(0)
    predictor = Bran(width=4, stages=3, hidden=4).build(channels(0, 2, 1, noisy=False))
    net = small(predictor.net.feature_channels)
    shaken(net)
    make_symmetric(predictor.eval(), net)
    x, images, log_snr = heads()

    def answer(x, images):
        base = predictor(NetworkInput({"image": images}))
        residual = ask(net, x, images, log_snr, features=base.extras["features"])
        return torch.cat([base.image, residual])

    with torch.no_grad():
        straight, turned = answer(x, images), answer(x.flip(-1), images.flip(-1)).flip(-1)
    assert all(part.std() > 1e-3 for part in straight.split(2))
    assert_close(turned, straight, rtol=1e-3, atol=1e-5)
