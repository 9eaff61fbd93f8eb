"""Small networks of every kind, and random inputs for them."""

from dataclasses import replace

import torch
from calling import channels
from torch import Tensor, nn

from voxlate.science.nets.bran import Bran
from voxlate.science.nets.completion import MMGAN, HiNet
from voxlate.science.nets.dit import DiT
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.resnet import ResNet
from voxlate.science.nets.shared_space import MMSYN, CocaGAN, UcDGAN
from voxlate.science.nets.unet import UNet
from voxlate.science.nets.xmodality_unets import ADM, PlainUNet, UViT

COMPLETE = Channels(images={}, state=4, out=4, code=4)
TRANSLATE = Channels(images={"t1": 1, "t1c": 1, "t2": 1}, out=1)
DENOISE = channels(1, 2, 1)
REGRESS = channels(0, 2, 1, noisy=False)
TINY = UNet(width=8, multipliers=(1, 2), blocks=1, head_width=8, groups=4, zero_init=False)
XMODALITY = {
    "xmodality_unet": PlainUNet(width=16, groups=8),
    "adm": ADM(width=16),
    "uvit": UViT(width=16, depth=2),
    "dit": DiT(patch=8, width=32, depth=2, heads=4),
}
COMPLETION = {
    "mm_gan": MMGAN(widths=(4, 8, 8), dropout=0.0),
    "hi_net": HiNet(width=4),
    "coca_gan": CocaGAN(widths=(4, 6, 8), classes=3),
    "ucd_gan": UcDGAN(width=4, blocks=1),
    "mm_syn": MMSYN(widths=(4, 6, 8), latent=3, decoder=4),
}
SLICEWISE = {
    "unet": (TINY, DENOISE),
    "unet of blocks": (
        replace(TINY, patch=2, resampling="block", modulation="scale_shift"),
        DENOISE,
    ),
    "unet with attention": (replace(TINY, attention=(1,)), DENOISE),
    "regressor": (TINY, REGRESS),
    "resnet": (ResNet(width=4, blocks=1), REGRESS),
    "bran": (Bran(width=4, stages=3, hidden=4), REGRESS),
    **{name: (net, DENOISE) for name, net in XMODALITY.items()},
    **{f"{name}, regressor": (net, REGRESS) for name, net in XMODALITY.items()},
    **{name: (net, COMPLETE) for name, net in COMPLETION.items()},
    **{f"{name}, translating": (net, TRANSLATE) for name, net in COMPLETION.items()},
}


def built(name: str, sides: Channels | None = None) -> nn.Module:
    """A network whose weights are nowhere zero, so that everything can reach its image."""
    net, usual = SLICEWISE[name]
    torch.manual_seed(3)
    made = net.build(sides or usual).eval().requires_grad_(False)
    for parameter in made.parameters():
        if not parameter.any():
            parameter += 0.1 * torch.randn_like(parameter)
    return made


def asked(
    name: str, size: tuple[int, ...], items: int = 2, code: Tensor | None = None
) -> NetworkInput:
    """Random inputs of a network; all its extras are asked for."""
    net, sides = SLICEWISE[name]
    draw = torch.Generator().manual_seed(5)
    items = items if code is None else len(code)

    def image(count):
        return torch.rand(items, count, *size, generator=draw) * 2 - 1

    return NetworkInput(
        images={key: image(count) for key, count in sides.images.items()},
        state=image(sides.state) if sides.state else None,
        log_snr=torch.linspace(-2, 3, items) if sides.noisy else None,
        code=torch.eye(items, sides.code) if sides.code and code is None else code,
        extras=net.extras,
    )
