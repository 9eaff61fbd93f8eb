"""A network of fewer channels from one whose further inputs are constant: a translation from a network that completes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from voxlate.base.items import BACKGROUND
from voxlate.science.nets.blocks import ResBlock
from voxlate.science.nets.interface import Channels
from voxlate.science.nets.unet import ResidualUNet


@torch.no_grad()
def narrow(
    whole: ResidualUNet, ins: Sequence[int], outs: Sequence[int], code: Tensor, bits: Sequence[int]
) -> ResidualUNet:
    """A network with some channels of another, and its images where the other's further inputs are constant.

    ins, outs: channels of the other that are kept, of which inputs that are not are background; code: configuration of
    the other, [K], empty for a network without one; bits: its places that stay inputs, none for a network without one.
    At the border of an image both differ, because background is padded by zeros.
    """
    channels = Channels(images={}, state=len(ins), out=len(outs), code=len(bits))
    part = ResidualUNet(whole.net, channels)
    tensors = dict(part.state_dict())
    tensors |= {name: tensor for name, tensor in whole.state_dict().items() if name in tensors}
    pixels = whole.net.patch**2
    air = torch.full((whole.stem.get_parameter("weight").shape[1],), BACKGROUND)
    tensors |= _fewer_inputs(whole, "stem", _pixels(ins, pixels), air)
    kept = _pixels(outs, pixels)
    tensors |= {f"head.{name}": tensor[kept] for name, tensor in whole.head.named_parameters()}
    if bits:
        tensors |= _fewer_inputs(whole, "embedding.code.0", bits, code)
    elif len(code):
        tensors |= _without_code(whole, code)
    part.load_state_dict(tensors)
    return part.train(whole.training)


def _pixels(channels: Sequence[int], count: int) -> list[int]:
    """The places of the pixels of channels after a pixel-unshuffle, in which those of a channel follow each other."""
    return [channel * count + pixel for channel in channels for pixel in range(count)]


def _fewer_inputs(
    whole: nn.Module, name: str, kept: Sequence[int], constant: Tensor
) -> Mapping[str, Tensor]:
    """The tensors of a layer with some of its inputs, whose bias contains the others; constant: a value for each input."""
    layer = whole.get_submodule(name)
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    others = [place for place in range(weight.shape[1]) if place not in {*kept}]
    summed = weight[:, others].flatten(2).sum(2) if weight.ndim > 2 else weight[:, others]
    return {
        f"{name}.weight": weight[:, [*kept]],
        f"{name}.bias": bias + summed @ constant.to(bias)[others],
    }


def _without_code(whole: ResidualUNet, code: Tensor) -> Mapping[str, Tensor]:
    """The biases of the blocks' first convolutions with what the blocks add for a constant code."""
    embedding = whole.embedding(None, code[None])
    biases = {}
    for name, block in whole.named_modules():
        if isinstance(block, ResBlock) and block.embed is not None:
            bias = block.conv1.get_parameter("bias")
            biases[f"{name}.conv1.bias"] = bias + block.embed(embedding)[0]
    return biases
