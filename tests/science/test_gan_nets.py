"""Critics, the generator of CycleGAN and their strided convolutions: sizes, what an output depends on, known sums."""

import pytest
import torch
from calling import channels, count
from torch import nn

from rows import every_row
from voxlate.science.nets.critic import Critic
from voxlate.science.nets.resnet import ResNet, ResNetNet
from voxlate.science.nets.strided import DoublingConv, HalvingConv
from voxlate.training import recipe


def test_a_critic_of_slices_sees_each_slice_alone_and_one_of_volumes_does_not():
    torch.manual_seed(0)
    images = torch.randn(1, 1, 6, 16, 16)
    changed = images.clone()
    changed[:, :, 4] += 1
    for dimensions, expected in ((2, [False] * 4 + [True, False]), (3, [True])):
        critic = Critic(widths=(4, 8), dimensions=dimensions).build(channels=1)
        moved = (critic(changed) - critic(images)).abs() > 1e-6
        assert moved.flatten().tolist() == expected


@every_row(
    "options", [{"output": "patches"}, {"output": "image"}, {"output": "patches", "kernel": 3}]
)
def test_a_critic_of_each_channel_scores_it_by_itself_and_by_its_place(options):
    torch.manual_seed(0)
    settings = Critic(widths=(4, 8), maps=3, separate=True, norm="instance", **options)
    critic, images = settings.build(channels=5), torch.randn(2, 5, 2, 16, 16)
    outputs = critic(images)
    assert outputs.shape[:3] == (2, 3, 2)
    # the second of the last three channels, and one of the context
    for channel, expected in ((3, [False, True, False]), (0, [True] * 3)):
        other = images.clone()
        other[:, channel] += torch.randn(2, 2, 16, 16)
        changed = (critic(other) != outputs).reshape(2, 3, 2, -1).any(3)
        assert (changed == torch.tensor(expected)[None, :, None]).all()
    images[:, 3] = images[:, 2]  # the same image, said to be of another modality
    equal = critic(images)
    assert not torch.equal(equal[:, 0], equal[:, 1])


@every_row(
    "critic, channels, side, shape, parameters",
    [
        # of MM-GAN: kernels of 4x4, 8 -> 64 -> 128 -> 256 -> 512 -> 4 channels, with biases
        (
            Critic(
                widths=(64, 128, 256, 512),
                norm="instance",
                output="patches",
                all_halve=True,
                maps=4,
            ),
            *(8, 256, (1, 4, 1, 16, 16), 2_794_436),
        ),
        # of Hi-Net: kernels of 3x3, 1 -> 32 -> 64 -> 128 -> 256 -> 1 channels, biases of the ends, norms between
        (
            Critic(
                widths=(32, 64, 128, 256), norm="batch", output="patches", kernel=3, all_halve=True
            ),
            *(1, 128, (1, 1, 1, 8, 8), 390_593),
        ),
    ],
)
def test_critics_halve_four_times_and_have_their_published_sizes(
    critic, channels, side, shape, parameters
):
    net = critic.build(channels=channels)
    assert net(torch.zeros(1, channels, 1, side, side)).shape == shape
    assert count(net) == parameters


def built(net: ResNet, sources: int = 1, targets: int = 1) -> ResNetNet:
    return net.build(channels(0, sources, targets, noisy=False))


def test_kernels_start_with_the_published_spread():
    torch.manual_seed(0)
    critic = Critic(widths=(64, 128, 256), norm="batch", output="patches").build(channels=2)
    for module in (*built(ResNet(blocks=1)).modules(), *critic.modules()):
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.weight.numel() > 9_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)


@every_row("kernel", [3, 4])
@every_row("depth, halves", [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (7, 4), (32, 16)])
def test_doubling_is_the_transpose_of_halving_which_keeps_a_depth_below_four(kernel, depth, halves):
    """<halve(x), y> = <x, double(y)> with the same kernels: both pad the same places."""
    torch.manual_seed(0)
    down = HalvingConv(1, 3, kernel, stride=2, bias=False).double()
    up = DoublingConv(3, 1, kernel, stride=2, bias=False).double()
    up.load_state_dict(down.state_dict())
    x = torch.randn(1, 1, depth, 6, 8, dtype=torch.double)
    halved = down(x)
    assert halved.shape == (1, 3, halves, 3, 4)
    y = torch.randn_like(halved)
    torch.testing.assert_close((halved * y).sum(), (x * up(y, depth)).sum())


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


CYCLEGAN = {"generators.to_target": 11_375_041, "generators.to_source": 11_375_044}
CYCLEGAN |= {"critics.to_target": 2_762_689, "critics.to_source": 2_765_761}
PIX2PIX = {"generator": 54_410_880, "critic": 2_767_681}


@every_row("name, counts", [("cyclegan_tmax", CYCLEGAN), ("pix2pix_tmax", PIX2PIX)])
def test_the_recipes_networks_have_the_published_sizes(name, counts):
    """Of GANs the counts for 3 to 3 channels, with first and last kernels of 4 to 1 (or 1 to 4) instead."""
    with torch.device("meta"):
        method = recipe.read(name).build()
    assert {part: count(method.get_submodule(part)) for part in counts} == counts
