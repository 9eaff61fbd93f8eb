"""Laws of every network: published sizes, slices by themselves, any size, float32 and bfloat16, one graph, and refusals."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from calling import ask, channels, count_of
from small_nets import COMPLETE, DENOISE, SLICEWISE, TINY, TRANSLATE, asked, built
from torch.testing import assert_close

from refusals import refuses
from rows import every_row, slow
from voxlate.science.nets.autoencoder import KLAutoencoder
from voxlate.science.nets.blocks import Fourier, Sinusoidal
from voxlate.science.nets.bran import Bran
from voxlate.science.nets.completion import MMGAN, HiNet
from voxlate.science.nets.dit import DiT
from voxlate.science.nets.interface import Channels
from voxlate.science.nets.resnet import ResNet
from voxlate.science.nets.shared_space import MMSYN, CocaGAN, UcDGAN
from voxlate.science.nets.unet import UNet
from voxlate.science.nets.xmodality_unets import ADM, PlainUNet, UViT
from voxlate.training import recipe as recipes

SMALL_LATENT = UNet(width=64, multipliers=(1, 2, 3, 4), attention=(2, 3))
OF_000 = UNet(
    width=64,
    multipliers=(1, 2, 4, 8),
    resampling="block",
    modulation="scale_shift",
    time=Sinusoidal(of="gamma", scale=1.0, mlp=256),
)
OF_002 = UNet(width=64, multipliers=(1, 2, 2, 4, 4), middle_attention=False, time=Fourier())


def images_only(sides, out=None):
    return channels(0, sides, out or sides, noisy=False)


@every_row(
    "net, sides, expected",
    [
        (OF_000, channels(1, 4, 1), 62_639_617),  # sec. 3 of its specification
        (OF_000, channels(1, 4, 1, features=Bran().feature_channels), 62_639_617 + 5_855_424),
        (recipes.read("umm_csgm").net, replace(COMPLETE, noisy=True), 21_076_548),
        (OF_002, channels(1, 1, 1), 26_118_721 - 128),  # and 128 fixed frequencies
        (SMALL_LATENT, channels(3, 3, 3), 22_082_051),
        (replace(SMALL_LATENT, volumetric=True), channels(3, 3, 3), 22_082_051 + 5_021_982),
        (PlainUNet(), channels(0, 1, 1, noisy=False), 14_733_953),
        (PlainUNet(), channels(1, 1, 1), 16_907_521),
        (ADM(), channels(1, 1, 1), 35_371_777),
        (UViT(), channels(1, 1, 1), 124_719_499),
        (DiT(), channels(1, 1, 1), 558_368_000),
        (MMGAN(), COMPLETE, 54_407_172),
        (MMSYN(), COMPLETE, 2_235_268),
        (HiNet(), TRANSLATE, 4_178_788),
        (CocaGAN(), COMPLETE, 3_470_792),
        (UcDGAN(), COMPLETE, 10_201_857),
        (ResNet(), images_only(3), 11_378_179),  # 11.378 million, as Zhu's code prints
        (Bran(), images_only(4, 1), 29_885_296),
        (KLAutoencoder(width=128), images_only(3), 55_312_063),  # as diffusers' AutoencoderKL
    ],
)
def test_networks_have_the_parameters_of_their_papers_or_specifications(net, sides, expected):
    assert count_of(net, sides) == expected


def changed(given, of_image, of_item):
    """The inputs with another image and state, and other numbers of items."""

    def at(value):
        return None if value is None else of_item(value)

    return replace(
        given,
        images={key: of_image(of_item(image)) for key, image in given.images.items()},
        state=None if given.state is None else of_image(of_item(given.state)),
        log_snr=at(given.log_snr),
        code=at(given.code),
    )


@every_row("name", SLICEWISE)
def test_a_batch_of_volumes_is_its_slices_one_by_one_of_any_size(name):
    net = built(name)
    for size in ((3, 16, 24), (1, 17, 23)):
        given = asked(name, size)
        whole = net(given)
        assert whole.image.shape[2:] == size
        assert whole.image.dtype == torch.float32
        assert set(whole.extras) >= set(given.extras)
        last = net(changed(given, lambda x: x[:, :, -1:], lambda x: x[1:]))
        assert_close(last.image, whole.image[1:, :, -1:], rtol=1e-4, atol=1e-5)
        assert (whole.image[0] - whole.image[1]).abs().max() > 1e-3


@every_row(
    "settings",
    [
        *(
            Bran(width=4, stages=3, regions=0, norm=norm, dimensions=3)
            for norm in ("batch", "instance")
        ),
        ResNet(width=4, blocks=1, dimensions=3),
    ],
)
@every_row("size", [(1, 16, 16), (3, 20, 12), (6, 16, 24), (13, 16, 16)])
def test_in_three_dimensions_a_volume_keeps_its_size_and_all_its_slices_depend_on_each_other(
    settings, size
):
    torch.manual_seed(0)
    net = settings.build(images_only(2, 1)).eval()
    images = torch.randn(2, 2, *size)
    changed = images.clone()
    changed[:, :, -1] *= torch.randn(size[1:])  # not by a number, which the norms take away
    before, after = (ask(net, None, one) for one in (images, changed))
    assert before.shape == (2, 1, *size)
    assert (after != before).flatten(3).any(3).all()


@every_row(
    "name, multiple, mode",
    [
        ("unet of blocks", 4, "reflect"),
        ("unet of blocks", 4, "replicate"),
        *((name, multiple, "reflect") for name, multiple in (("xmodality_unet", 4), ("adm", 4))),
        *((name, 8, "reflect") for name in ("uvit", "dit")),
    ],
)
def test_a_slice_is_padded_at_its_far_sides_and_cropped(name, multiple, mode):
    net = built(name)
    size = (1, 21, 19) if mode == "reflect" else (2, 3, 2)
    far = (0, -size[2] % multiple, 0, -size[1] % multiple, 0, 0)
    given = asked(name, size)
    whole = net(changed(given, lambda x: F.pad(x, far, mode=mode), lambda x: x)).image
    found = net(given).image
    assert_close(found, whole[..., : size[1], : size[2]], rtol=1e-4, atol=1e-5)


@every_row("name", [name for name in SLICEWISE if SLICEWISE[name][1] == DENOISE])
def test_bfloat16_stays_near_float32(name):
    net, given = built(name), asked(name, (1, 32, 32))
    exact = net(given).image
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(given).image
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 2e-2 * exact.norm()


@slow
@pytest.mark.parametrize("name", ["unet with attention", "xmodality_unet", "adm", "uvit", "dit"])
def test_a_compiled_network_is_one_graph_with_the_same_gradients(name):
    torch.compiler.reset()
    net, found = built(name).requires_grad_(), []
    for call in (net, torch.compile(net, backend="aot_eager", fullgraph=True)):
        loss = call(asked(name, (1, 16, 16))).image.square().mean()
        found.append(torch.autograd.grad(loss, [*net.parameters()]))
    for plain, compiled in zip(*found):
        assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


@every_row(
    "settings, sides, words",
    [
        (ADM(width=30), DENOISE, "net.heads: expected a divisor of 30 channels, found 4"),
        (PlainUNet(width=16), DENOISE, "net.groups: expected a divisor of 16 channels, found 32"),
        (DiT(width=64, heads=3), DENOISE, "net.heads: expected a divisor of 64 channels, found 3"),
        (UViT(width=6, heads=2, multipliers=(1,)), DENOISE, "net.width: expected a transformer of"),
        (replace(TINY, attention=(2,)), DENOISE, "expected levels from 0 to 1"),
        (ResNet(), DENOISE, "found 'resnet'"),
        (Bran(), DENOISE, "takes the noise level"),
        *(
            (SLICEWISE[name][0], channels(2, 0, 2, code=2), "takes a configuration code")
            for name in ("xmodality_unet", "adm", "uvit", "dit")
        ),
        *(
            (SLICEWISE[name][0], sides, r"net\.kind: expected")
            for name in ("mm_gan", "hi_net", "coca_gan", "ucd_gan", "mm_syn")
            for sides in (
                replace(COMPLETE, noisy=True),
                replace(TRANSLATE, features=(8,)),
                Channels(images={"image": 2}, out=1),
                Channels(images={}, state=2, out=2),
            )
        ),
    ],
)
def test_sizes_that_contradict_each_other_and_tasks_of_other_networks_are_refused(
    settings, sides, words
):
    with refuses(words):
        settings.build(sides)
