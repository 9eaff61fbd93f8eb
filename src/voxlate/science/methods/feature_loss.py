"""How far two images lie apart in the feature maps of a frozen network, as a loss beside that of voxels.

The best entries of SynthRAD2025 compare features of segmentation networks; Johnson et al. 2016 those of ImageNet. Here the
network is any run of one source, whose source is the target of the training, or LPIPS or a ViT by weights of the user.

Measured on 94 slices of heads, two others left out, one core, one seed, the features of a CT to MR network of 400 steps
(4.3 minutes) with weight 0.3: 350 steps each MAE .0848 (.0909 without), bone Dice .658 (.618); 26 minutes each, with those
of the CT to MR network, MAE .0820 (.0839), SSIM .679 (.673), bone Dice .719 (.727); 13 minutes each, features lose.
LPIPS with weight 0.3, one head left out, 350 steps each from a starter: MAE .0967 (.0953), SSIM .662 (.671), gradient ratio
.73 (.63), bone Dice .732 (.740): sharper, and no nearer to the truth.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from voxlate.base.config import Provided, setting, settings
from voxlate.base.errors import BadInput
from voxlate.science.nets.interface import NetworkInput

LEAST_FEATURE = 1e-6  # mean of a layer's features, below which the layer shows nothing


@settings
class FeatureLoss:
    """A term of a loss: the distance of feature maps of a frozen network."""

    network: Annotated[
        str,
        setting(
            "Run or weights file of a network with one source, of which the target here is an image, with the same intensity map; a file of LPIPS weights (AlexNet v0.1); or a ViT's folder."
        ),
    ]
    weight: Annotated[float, setting("Weight of the term.", ge=0)] = 0.1
    layers: Annotated[
        tuple[str, ...],
        setting(
            "Names of its modules whose results are compared; none: the last convolution of each size on its way down. Of a ViT: numbers of layers; none: after each quarter."
        ),
    ] = ()

    def distance(self, image: Tensor, truth: Tensor) -> Tensor:
        """Mean over layers of the mean difference of their features, in shares of the truth's, of images [B, 1, D, H, W]; or LPIPS."""
        features = _frozen(self.network, self.layers, image.device)
        if features is None:
            from voxlate.science.nets.lpips import mean_lpips

            return mean_lpips(self.network, truth, image)
        with torch.no_grad():
            wanted = features(truth)
        apart = [
            (there - here).abs().mean() / here.abs().mean().clamp_min(LEAST_FEATURE)
            for there, here in zip(features(image), wanted)
        ]
        return torch.stack(apart).mean()


class FrozenFeatures:
    """The feature maps that a frozen network gives of an image."""

    def __init__(self, net: nn.Module, names: Sequence[str], layers: Sequence[str]):
        """names: of the network's input channels; layers: names of its modules, by default as `FeatureLoss` says."""
        self.net = net
        self.names = names
        self.maps: dict[str, Tensor] = {}
        self.layers = tuple(layers)
        modules = dict(net.named_modules())
        if unknown := [name for name in layers if name not in modules]:
            raise BadInput(
                f"method.features.layers: expected modules of {type(net).__name__} ({', '.join([*modules][1:4])}, …), found '{unknown[0]}'. Choose some of these."
            )
        convolutions = (
            name for name, module in modules.items() if isinstance(module, (nn.Conv2d, nn.Conv3d))
        )
        for name in layers or convolutions:
            modules[name].register_forward_hook(functools.partial(self._keep, name))

    def _keep(self, name: str, module: nn.Module, inputs: Any, result: Tensor) -> None:
        self.maps[name] = result
        if self.layers and self.maps.keys() >= {*self.layers}:
            raise _Enough

    def __call__(self, image: Tensor) -> list[Tensor]:
        """The maps of an image [B, 1, D, H, W], float32, in the order of the layers."""
        with suppress(_Enough):
            self.net(NetworkInput(dict.fromkeys(self.names, image)))
        maps, self.maps = self.maps, {}  # which would outlive the step
        self.layers = self.layers or tuple(_on_the_way_down(maps))
        return [maps[name].float() for name in self.layers]


class _Enough(Exception):
    """All maps are there: what the network would compute of them is not compared."""


def _on_the_way_down(maps: dict[str, Tensor]) -> list[str]:
    """The last map of each size, of maps in the order of their computation, until the smallest size."""
    sizes = {name: image.shape[2:].numel() for name, image in maps.items()}
    smallest = min(sizes.values())
    last = {}
    for name, size in sizes.items():
        if smallest in last and size > smallest:
            break
        last[size] = name
    return [*last.values()]


@functools.cache  # not part of the method, whose weights are saved
def _frozen(
    path: str, layers: tuple[str, ...], device: torch.device
) -> Callable[[Tensor], list[Tensor]] | None:
    """The features of a run or ViT; None for a file of LPIPS weights."""
    from voxlate.science.nets.lpips import is_lpips
    from voxlate.science.nets.vit import VitFeatures, is_vit

    if is_lpips(path):
        return None
    if is_vit(path):
        return VitFeatures(path, layers, device)
    net, names = Provided("features").load()(Path(path))
    return FrozenFeatures(net.to(device), names, layers)
