"""A network of fewer channels gives the images of the whole one, whose further inputs are background."""

from dataclasses import replace

import torch
from torch.testing import assert_close

from rows import every_row
from voxlate.base.items import BACKGROUND
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.unet import ResidualUNet, UNet, narrow

NET = UNet(
    width=8, multipliers=(1, 2), blocks=1, head_width=8, groups=4, zero_init=False, border="repeat"
)


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


@every_row(
    "patch, place, missing, sees, gives, code",
    [
        (1, 1, (1.0, 0.0, 1.0), [1], [2], []),  # a translation
        (2, 1, (1.0, 0.0, 1.0), [1], [2], []),
        (2, 2, (1.0, 1.0, 0.0), [2, 0], [2, 0], [2, 0]),  # a completion with two bits of the code
    ],
)
def test_a_part_gives_what_the_whole_network_completes(patch, place, missing, sees, gives, code):
    whole, bits = _completing(patch), torch.tensor(missing).expand(2, 3)
    wanted = whole(NetworkInput(state=_state(place), code=bits)).image[:, gives]
    fixed = bits[0].index_fill(0, torch.tensor(code, dtype=torch.int64), 0.0)
    part = narrow(whole, sees, gives, fixed, code)
    seen = _state(place)[:, sees]
    given = NetworkInput(state=seen, code=bits[:, code]) if code else NetworkInput({"t2": seen})
    assert_close(part(given).image, wanted, rtol=0, atol=1e-5)
    assert bool(code) == any("embed" in name for name, _ in part.named_parameters())


def test_channels_of_a_network_without_a_code_are_only_reordered():
    torch.manual_seed(3)
    whole = NET.build(Channels(images={"t1": 1, "t2": 1}, out=1)).eval()
    images = {"t1": SCAN, "t2": SCAN.flip(-1)}
    part = narrow(whole, [1, 0], [0], torch.zeros(0), ())
    found = part(NetworkInput(images=dict(reversed(images.items())))).image
    assert_close(found, whole(NetworkInput(images=images)).image, rtol=0, atol=1e-5)
