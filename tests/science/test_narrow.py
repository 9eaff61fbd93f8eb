"""A network of fewer channels gives the images of the whole one, whose further inputs are background."""

import pytest
import torch

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
    settings = UNet(**{**vars(NET), "patch": patch})
    return settings.build(Channels(images={}, state=3, out=3, code=3)).eval()


def _image(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1, 1, 16, 24, generator=generator)


@pytest.mark.parametrize("patch", [1, 2])
def test_a_translation_gives_what_the_whole_network_completes_of_one_modality(patch):
    whole = _completing(patch)
    scan = _image()
    state = torch.full((2, 3, 1, 16, 24), BACKGROUND)
    state[:, 1:2] = scan
    code = torch.tensor([1.0, 0.0, 1.0])
    wanted = whole(NetworkInput(state=state, code=code.expand(2, 3))).image[:, 2:]
    part = narrow(whole, [1], [2], code, ())
    found = part(NetworkInput(images={"t2": scan})).image
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert not any("embed" in name for name, _ in part.named_parameters())


def test_a_completion_of_two_modalities_keeps_their_places_of_the_code():
    whole = _completing()
    scan = _image(1)
    state = torch.full((2, 3, 1, 16, 24), BACKGROUND)
    state[:, 2:] = scan
    missing = torch.tensor([1.0, 1.0, 0.0]).expand(2, 3)
    wanted = whole(NetworkInput(state=state, code=missing)).image[:, [2, 0]]
    part = narrow(whole, [2, 0], [2, 0], torch.tensor([0.0, 1.0, 0.0]), [2, 0])
    given = NetworkInput(state=state[:, [2, 0]], code=missing[:, [2, 0]])
    torch.testing.assert_close(part(given).image, wanted, rtol=0, atol=1e-5)


def test_channels_of_a_network_without_a_code_are_only_reordered():
    torch.manual_seed(3)
    whole = NET.build(Channels(images={"t1": 1, "t2": 1}, out=1)).eval()
    first, second = _image(4), _image(5)
    wanted = whole(NetworkInput(images={"t1": first, "t2": second})).image
    part = narrow(whole, [1, 0], [0], torch.zeros(0), ())
    found = part(NetworkInput(images={"t2": second, "t1": first})).image
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
