"""The networks of completion: their sizes, that they see what is available alone, and that they take any size."""

from dataclasses import replace

import torch
from small_nets import COMPLETE, COMPLETION, asked, built
from torch import Tensor
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets.completion import fuse_maps
from voxlate.science.nets.interface import NetworkInput
from voxlate.science.nets.shared_space import reverse_gradient

INCOMPLETE = replace(COMPLETE, code=8)
SINGLE = torch.eye(4)  # codes: each misses one modality
NAMES = [*COMPLETION]
SIZE = (2, 16, 24)


def asked_for(name: str, code: Tensor, size: tuple[int, ...] = SIZE) -> NetworkInput:
    return asked(name, size, code=code)


def mirrored(given: NetworkInput, place: object) -> NetworkInput:
    """With some of the images mirrored."""
    state = given.state.clone()
    state[place] = state[place].flip(-1)
    return replace(given, state=state)


def test_mm_syn_gives_the_images_of_each_latent_and_of_their_maximum():
    """Of one available modality the maximum is its latent; of two that see the same image their variance is known."""
    net = built("mm_syn")
    output = net(asked_for("mm_syn", 1 - SINGLE))
    alone = torch.stack([output.extras["images_by_latent"][item][item] for item in range(4)])
    assert_close(alone, output.image)
    assert output.extras["reconstructions"] is output.image
    assert output.extras["latent_variance"].shape == (4, 1, 2, 16, 24)
    assert not output.extras["latent_variance"].any()
    assert (output.image >= -1).all()
    given = asked_for("mm_syn", torch.tensor([[0.0, 0, 1, 1]]))
    first, second = (net.encoders[number](given.state[:, number, :1] + 1) for number in (0, 1))
    spread = ((first - second) / 2).square().mean(dim=1)
    assert_close(net(given).extras["latent_variance"][:, 0, 0], spread)


def test_hi_net_repeats_a_modality_from_its_own_image_alone():
    net, given = built("hi_net"), asked_for("hi_net", torch.zeros(1, 4))
    before, after = (net(one).extras["reconstructions"] for one in (given, mirrored(given, (0, 1))))
    assert before.shape == given.state.shape
    assert (after != before).flatten(2).any(2).tolist() == [[False, True, False, False]]


def test_coca_gan_asks_of_each_modalitys_features_alone_which_one_it_is():
    net, given = built("coca_gan"), asked_for("coca_gan", torch.zeros(2, 4))
    extras = net(given).extras
    logits, changed = (
        extras["modality_logits"],
        net(mirrored(given, (1, 2, 1))).extras["modality_logits"],
    )
    assert logits.shape == (2, 4, 4, 2)  # item, modality, logits, slice
    assert extras["segmentation"].shape == (2, 3, 2, 16, 24)
    assert (changed != logits).any(2).nonzero().tolist() == [[1, 2, 1]]


def test_a_reversed_gradient_keeps_numbers_and_turns_their_gradient():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x)
    assert torch.equal(y, x)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [-1, -1]


def test_ucd_gan_reads_anatomy_whatever_the_modality():
    """Swapping the images of two available modalities changes nothing."""
    net, given = built("ucd_gan"), asked_for("ucd_gan", torch.tensor([[0.0, 1, 0, 0]]))
    swapped = replace(given, state=given.state[:, [2, 1, 0, 3]])
    assert_close(net(swapped).image, net(given).image)


def test_ucd_gan_makes_what_is_missing_and_repeats_what_is_available():
    net, given = (
        built("ucd_gan"),
        asked_for("ucd_gan", torch.tensor([[0.0, 1, 0, 1], [1, 0, 0, 0]])),
    )
    output = net(given)
    for images, expected in (
        (output.image, given.code == 1),
        (output.extras["reconstructions"], given.code == 0),
    ):
        assert torch.equal(images.flatten(2).any(2), expected)
    of_given, of_made = output.extras["codes"]
    own = net.encoder(given.state[0, [0, 2], 0].unsqueeze(1)).mean(0)
    assert_close(of_given[0], own)
    assert_close(of_made[2], net.encoder(output.image[1, 0, :1].unsqueeze(1))[0])


@every_row("name", NAMES)
def test_a_brain_at_the_far_side_has_no_mirror_image_beyond_it(name):
    """Cut at the brain's edge or with as much background as the network pads: the same input, so the same output."""
    net, code = built(name), SINGLE[:1]
    height, width = (size + -size % COMPLETION[name].multiple for size in (18, 19))
    whole = torch.full((1, 4, 1, height, width), -1.0)
    whole[..., 6:18, 8:19] = asked_for(name, code, (1, 12, 11)).state
    cut = whole[..., :18, :19]
    made, wanted = (net(NetworkInput(state=one, code=code)).image for one in (cut, whole))
    assert torch.allclose(made, wanted[..., :18, :19], atol=1e-5)


@every_row("name", NAMES)
@every_row("channels, code", [(COMPLETE, [[1, 0, 1, 0]]), (INCOMPLETE, [[1, 0, 0, 0, 0, 0, 1, 0]])])
def test_what_a_missing_or_absent_channel_holds_changes_nothing(name, channels, code):
    given, net = asked_for(name, torch.tensor(code, dtype=torch.float32)), built(name, channels)
    hidden = given.state.clone()
    hidden[:, [0, 2]] = torch.nan
    first = net(given).image
    assert torch.equal(first, net(replace(given, state=hidden)).image)
    assert first.isfinite().all()
    for channel in (1, 3):
        assert not torch.equal(net(mirrored(given, (0, channel))).image, first)


@every_row("how, fused", [("max", 5), ("mean", 3), ("sum", 6), ("product", 5)])
def test_maps_are_fused_over_those_available_alone(how, fused):
    """Of the items, the first has 1 and 5, the second -2, the third nothing; elsewhere lie infinities."""
    values = torch.tensor([[1.0, torch.inf, 5.0], [torch.nan, -2.0, torch.inf], [torch.inf] * 3])
    available = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0]])
    for order in ([0, 1, 2], [2, 0, 1]):
        maps = values[:, order].T.reshape(3, 3, 1, 1, 1).expand(3, 3, 2, 4, 4)
        out = fuse_maps([*maps], available[:, order], how)
        assert out[:, 1, 2, 3].tolist() == [fused, -2, 0]
