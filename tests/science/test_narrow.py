"""A network of fewer channels gives the images of the whole one, whose further inputs are background."""

from dataclasses import replace

import torch
from torch.testing import assert_close

from rows import every_row
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.narrow import narrow
from voxlate.science.nets.unet import ResidualUNet, UNet

NET = UNet(
    width=8, multipliers=(1, 2), blocks=1, head_width=8, groups=4, zero_init=False, border="repeat"
)


def _completing(patch: int = 2) -> ResidualUNet:
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


@every_row("patch", [1, 2])
def test_a_translation_gives_what_the_whole_network_completes_of_one_modality(patch):
    whole, code = _completing(patch), torch.tensor([1.0, 0.0, 1.0])
    wanted = whole(NetworkInput(state=_state(1), code=code.expand(2, 3))).image[:, 2:]
    part = narrow(whole, [1], [2], code, ())
    found = part(NetworkInput(images={"t2": SCAN})).image
    assert_close(found, wanted, rtol=0, atol=1e-5)
    assert not any("embed" in name for name, _ in part.named_parameters())


def test_a_completion_of_two_modalities_keeps_their_places_of_the_code():
    whole, state = _completing(), _state(2)
    missing = torch.tensor([1.0, 1.0, 0.0]).expand(2, 3)
    wanted = whole(NetworkInput(state=state, code=missing)).image[:, [2, 0]]
    part = narrow(whole, [2, 0], [2, 0], torch.tensor([0.0, 1.0, 0.0]), [2, 0])
    given = NetworkInput(state=state[:, [2, 0]], code=missing[:, [2, 0]])
    assert_close(part(given).image, wanted, rtol=0, atol=1e-5)


def test_channels_of_a_network_without_a_code_are_only_reordered():
    torch.manual_seed(3)
    whole = NET.build(Channels(images={"t1": 1, "t2": 1}, out=1)).eval()
    first, second = SCAN, SCAN.flip(-1)
    wanted = whole(NetworkInput(images={"t1": first, "t2": second})).image
    part = narrow(whole, [1, 0], [0], torch.zeros(0), ())
    found = part(NetworkInput(images={"t2": second, "t1": first})).image
    assert_close(found, wanted, rtol=0, atol=1e-5)
