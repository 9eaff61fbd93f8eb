"""Short forms of what networks are built from and asked with, for tests."""

import torch
from torch import Tensor, nn

from voxlate.science.batch import Batch
from voxlate.science.nets.interface import Channels, NetSettings, NetworkInput


def channels(state: int, images: int, out: int, noisy: bool = True, **more) -> Channels:
    """Of a network that sees a state and one image, of so many channels each."""
    return Channels(
        images={"image": images} if images else {}, out=out, state=state, noisy=noisy, **more
    )


def ask(
    net: nn.Module, x: Tensor | None, image: Tensor | None, log_snr: Tensor | None = None, **more
) -> Tensor:
    """The image that a network gives for a state, an image and a noise level."""
    return net(
        NetworkInput({} if image is None else {"image": image}, x, log_snr=log_snr, **more)
    ).image


def count(net: nn.Module) -> int:
    """The number of its parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_of(settings: NetSettings, channels: Channels) -> int:
    """The number of a network's parameters, which get no values."""
    with torch.device("meta"):
        return count(settings.build(channels))


def batch_of(source: Tensor, target: Tensor | None = None, **parts: Tensor) -> Batch:
    """Images [N, C, D, H, W] that are scanned and inside the mask, but for other `parts` of the batch."""
    items, number = source.shape[:2]
    whole = {
        "mask": torch.ones_like(source[:, :1]),
        "present": torch.ones(items, number, dtype=torch.bool),
        "item": torch.arange(items),
    }
    return Batch(source, target=target, **(whole | parts))


def shaken(net: nn.Module) -> nn.Module:
    """The network with a random change of every weight, because weights that are zero at first would hide everything."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net
