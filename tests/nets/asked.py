"""Networks asked as tests ask them: with a state, images in one piece, and a noise level."""

from dataclasses import replace

from torch import Tensor, nn

from voxlate.nets.interface import Channels, NetworkInput, Output


def channels(
    state: int, images: int, out: int, code: int = 0, noisy: bool = True, features: tuple[int, ...] = ()
) -> Channels:
    return Channels({"all": images} if images else {}, out, state, code, noisy, features)


def given(images: Tensor | None, features: tuple[Tensor, ...] = (), code: Tensor | None = None) -> NetworkInput:
    return NetworkInput({} if images is None else {"all": images}, features=features, code=code)


def output(net: nn.Module, x: Tensor | None, condition: NetworkInput, log_snr: Tensor | None = None) -> Output:
    found: Output = net(replace(condition, state=x, log_snr=log_snr))
    return found


def answer(net: nn.Module, x: Tensor | None, condition: NetworkInput, log_snr: Tensor | None = None) -> Tensor:
    return output(net, x, condition, log_snr).image
