"""The one U-Net: what may and may not reach its output, and a part of it that gives the images of the whole."""

from dataclasses import replace
from typing import Any

import torch
from calling import ask, channels
from small_nets import TINY
from torch import Tensor, nn
from torch.testing import assert_close

from rows import every_row
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.blocks import Fourier, Sinusoidal
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.unet import ResidualUNet, narrow


def _volumetric(net: nn.Module) -> dict[str, nn.Parameter]:
    """What a slice-wise network lacks: train.only = "volumetric"."""
    return {name: one for name, one in net.named_parameters() if ".volumetric." in f".{name}"}


def _tiny(code: int = 0, feature_channels: tuple[int, ...] = (), **changes: Any) -> ResidualUNet:
    torch.manual_seed(1)
    net = replace(TINY, **changes)
    return net.build(channels(1, 1, 1, code=code, features=feature_channels)).eval()


def _inputs(*size: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x, image = torch.randn(2, batch, 1, *size, generator=generator)
    return x, image, torch.linspace(-3, 4, batch)


def test_a_slice_wise_checkpoint_lacks_only_volumetric_keys_and_gives_the_same_output():
    flat, deep = _tiny(attention=(1,)), _tiny(attention=(1,), volumetric=True)
    missing, unexpected = deep.load_state_dict(flat.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) == set(_volumetric(deep))
    for depth in (1, 3):
        inputs = _inputs(depth, 8, 8)
        assert (ask(flat, *inputs) - ask(deep, *inputs)).abs().max() <= 1e-6


def test_a_fresh_network_gives_zero():
    assert not ask(_tiny(zero_init=True), *_inputs(1, 8, 8)).any()


@every_row("time", [Sinusoidal(), Sinusoidal(of="gamma", scale=1000.0), Fourier()])
def test_a_denoiser_hears_the_noise_level_and_outlives_infinite_ones(time):
    net, (x, condition, _) = _tiny(time=time), _inputs(1, 8, 8)
    low, high = (ask(net, x, condition, torch.full((2,), sign * torch.inf)) for sign in (-1, 1))
    assert torch.isfinite(low).all()
    assert (low - high).abs().max() > 1e-3


@every_row("inject, heard", [("all", True), ("decoder", False)])
def test_the_code_changes_the_encoder_only_where_it_is_injected_there(inject, heard):
    net, encoded = _tiny(code=4, inject=inject), []
    net.encoder[-1].stages[-1].register_forward_hook(lambda *call: encoded.append(call[-1]))
    first, second = (
        ask(net, *_inputs(1, 8, 8), code=torch.full((2, 4), bit)) for bit in (0.0, 1.0)
    )
    assert torch.equal(*encoded) is not heard
    assert (first - second).abs().max() > 1e-3


@every_row("blocks", [1, 2])
def test_the_decoder_is_handed_the_map_from_before_features_entered_it(blocks):
    """As published: the next block sees the enhanced map, the skip keeps the plain one."""
    net, seen = _tiny(feature_channels=(6,), blocks=blocks), {}
    fused = net.asymmetry.fused["1"]
    nn.init.normal_(fused.conv.weight)
    net.encoder[1].stages[0].register_forward_hook(lambda *call: seen.update(plain=call[-1]))
    fused.register_forward_hook(lambda *call: seen.update(enhanced=call[-1]))
    # skips come back last one first: that of the level's first block is the last of the level but for its resampling
    net.decoder[0].stages[blocks - 1].register_forward_pre_hook(
        lambda _, given: seen.update(handed=given[0])
    )
    ask(net, *_inputs(2, 8, 8), features=(torch.randn(2, 6, 2, 4, 4),))
    skip = seen["handed"][:, -seen["plain"].shape[1] :]
    assert torch.equal(skip, seen["plain"])
    assert not torch.allclose(skip, seen["enhanced"])


def test_a_head_has_at_most_its_width_and_divides_the_channels():
    for head_width, heads in ((8, 2), (32, 1), (12, 4)):
        assert _tiny(head_width=head_width).middle.stages[0].attention.heads == heads


def _regressor(masked: bool = False, **changes: Any) -> ResidualUNet:
    """Of three levels."""
    torch.manual_seed(0)
    net = replace(TINY, multipliers=(1, 2, 4), **changes)
    return net.build(channels(0, 1, 1, noisy=False, masked=masked)).eval()


@every_row("changes", [{}, {"patch": 2}, {"resampling": "block"}])
def test_a_constant_image_stays_constant_up_to_its_corners(changes):
    out = ask(_regressor(**changes), None, torch.full((1, 1, 4, 20, 28), -1.0))
    # a pixel-shuffled head may draw a pattern of two pixels; with zeros around, corners were off by about 1
    assert (out[..., 2:, 2:] - out[..., :-2, :-2]).abs().max() < 1e-4


@every_row("changes", [{}, {"resampling": "block"}])
@every_row("masked", [True, False])
def test_with_background_all_around_convolutions_pad_in_synthesis_as_in_training(changes, masked):
    net = _regressor(masked, **changes)
    image = torch.full((1, 1, 4, 20, 28), -1.0).index_fill(3, torch.arange(8, 14), 0.5)
    training, synthesis = (ask(net.train(mode), None, image) for mode in (True, False))
    assert torch.equal(training, synthesis) == masked


def test_a_refinement_sees_the_images_at_full_size():
    x, image, log_snr = _inputs(1, 16, 16)
    refined = _tiny(patch=2, refine=4)
    with torch.no_grad():
        refined.refinement.last.weight.fill_(0.1)
    other = image.clone()
    other[..., 5, 7] += 1
    apart = ask(refined, x, other, log_snr) - ask(refined, x, image, log_snr)
    assert apart.abs()[0, 0, 0, 4:7, 6:9].min() > 0


NET = replace(TINY, border="repeat")


def _completing(patch: int) -> ResidualUNet:
    """A network that completes three modalities."""
    torch.manual_seed(2)
    channels = Channels(images={}, state=3, out=3, code=3)
    return replace(NET, patch=patch).build(channels).eval()


SCAN = torch.randn(2, 1, 1, 16, 24, generator=torch.Generator().manual_seed(0))


def _state(place: int) -> torch.Tensor:
    """Background but for the scan in one of three channels."""
    state = torch.full((2, 3, 1, 16, 24), BACKGROUND)
    state[:, place] = SCAN[:, 0]
    return state


def test_a_part_gives_what_the_whole_network_completes():
    """Two of three modalities, with two bits of the code; training/test_plan_from_starter.py asks for a translation."""
    whole, bits, places = _completing(patch=2), torch.tensor([1.0, 1, 0]).expand(2, 3), [2, 0]
    wanted = whole(NetworkInput(state=_state(2), code=bits)).image[:, places]
    part = narrow(whole, places, places, torch.tensor([0.0, 1, 0]), places)
    given = NetworkInput(state=_state(2)[:, places], code=bits[:, places])
    assert_close(part(given).image, wanted, rtol=0, atol=1e-5)


def test_channels_of_a_network_without_a_code_are_only_reordered():
    torch.manual_seed(3)
    whole = NET.build(Channels(images={"t1": 1, "t2": 1}, out=1)).eval()
    images = {"t1": SCAN, "t2": SCAN.flip(-1)}
    part = narrow(whole, [1, 0], [0], torch.zeros(0), ())
    found = part(NetworkInput(images=dict(reversed(images.items())))).image
    assert_close(found, whole(NetworkInput(images=images)).image, rtol=0, atol=1e-5)
