"""Short forms of what networks are built from and asked with, for tests."""

from torch import Tensor, nn

from voxlate.nets.interface import Channels, NetworkInput


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
