"""The KL autoencoder."""

import torch
from calling import channels
from torch.testing import assert_close

from rows import every_row
from voxlate.science.nets.autoencoder import AutoencoderNet, KLAutoencoder

TINY = KLAutoencoder(width=8, multipliers=(1, 2, 2), blocks=1, groups=4)


def _tiny() -> AutoencoderNet:
    torch.manual_seed(0)
    return TINY.build(channels(0, 1, 1, noisy=False)).eval()


def test_slices_are_encoded_one_by_one_at_a_quarter_of_their_sides_and_decoded_one_by_one():
    net, x = _tiny(), torch.randn(2, 1, 3, 16, 24)
    mean, logvar = net.encode(x)
    assert mean.shape == logvar.shape == (2, 3, 3, 4, 6)
    assert torch.isfinite(logvar.exp()).all()
    assert TINY.factor == KLAutoencoder().factor == 4
    assert_close(net.encode(x[:, :, 1:2])[0], mean[:, :, 1:2], atol=1e-5, rtol=1e-4)
    assert_close(net.decode(mean[:, :, 1:2]), net.decode(mean)[:, :, 1:2], atol=1e-5, rtol=1e-4)


@every_row("size", [(7, 9), (8, 10)])
def test_other_sizes_are_mirrored_and_cropped(size):
    net, x = _tiny(), torch.randn(1, 1, 1, *size)
    mean, _ = net.encode(x)
    padded = torch.nn.functional.pad(x, (0, -size[1] % 4, 0, -size[0] % 4, 0, 0), mode="reflect")
    assert_close(net.encode(padded)[0], mean)
    assert net.decode(mean, size).shape == x.shape


def test_halving_pads_the_far_sides_only():
    """The last column of an even map meets padding, the first does not (unlike a padding of one all round)."""
    net = _tiny()
    halve = next(part for part in net.encoder if type(part).__name__ == "Halving")
    with torch.no_grad():
        halve.conv.weight.fill_(1.0)
        halve.conv.bias.zero_()
    out = halve(torch.ones(1, 8, 4, 4))[0, 0]
    assert torch.equal(out, 8 * torch.tensor([[9.0, 6.0], [6.0, 4.0]]))
