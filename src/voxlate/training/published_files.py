"""Which of paper 001's networks a file holds, and of what size: told by the names and shapes of its arrays."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxlate.config import fill
from voxlate.errors import BadInput
from voxlate.nets.xmodality.adm import ADM
from voxlate.nets.xmodality.dit import DiT
from voxlate.nets.xmodality.unet import PlainUNet
from voxlate.nets.xmodality.uvit import UViT


@dataclass(frozen=True)
class Found:
    """A network's settings with its input channels (all together), output channels, and whether it is told a time."""

    name: str
    net: PlainUNet | ADM | UViT | DiT
    ins: int
    outs: int
    noisy: bool = True


@dataclass(frozen=True)
class _Shapes:
    """The shapes of a file's arrays, which may lack any of them."""

    of: Mapping[str, tuple[int, ...]]
    where: str

    def get(self, key: str, ndim: int) -> tuple[int, ...]:
        shape = self.of.get(key)
        if shape is None:
            raise BadInput(f"{self.where}: expected the key '{key}', found none. Use the file as it was published.")
        if len(shape) != ndim or 0 in shape:
            raise BadInput(
                f"{self.where}: expected '{key}' with {ndim} dimensions, found the shape {shape}. "
                "Use the file as it was published."
            )
        return shape

    def count(self, scope: str) -> int:
        """How many scopes of a class there are: "DiTBlock" counts DiTBlock_0, DiTBlock_1, …"""
        numbered = (re.match(rf"{scope}_(\d+)/", key) for key in self.of)
        return len({match[1] for match in numbered if match})

    def over(self, total: int, part: int, key: str) -> int:
        if total % part:
            raise BadInput(
                f"{self.where}: expected '{key}' with a multiple of {part} channels, found {total}. "
                "Use the file as it was published."
            )
        return total // part


def detect(shapes: Mapping[str, tuple[int, ...]], where: str) -> Found:
    """Raises BadInput where the arrays are those of none of the four networks, or one that tells a size is missing."""
    file = _Shapes(shapes, where)
    if file.count("DiTBlock"):
        return _dit(file)
    if not file.count("ResNetBlock") or not file.count("Conv"):
        raise BadInput(
            f"{where}: expected one of the published networks (U-Net, ADM, U-ViT, DiT), found other weights "
            f"({', '.join(list(shapes)[:2]) or 'none'}, …). Choose another file."
        )
    return _convolutional(file)


def _convolutional(file: _Shapes) -> Found:
    ins, width = file.get("Conv_0/kernel", 4)[2:]
    attends, vit = file.count("MultiHeadDotProductAttention"), file.count("Transformer")
    blocks = 2 if attends else 1  # a stage, on the way down
    stages = 1 + file.count("PixelShuffleDownsample")
    multipliers = []
    for stage in range(stages):
        key = f"ResNetBlock_{blocks * stage}/Block_0/Conv_0/kernel"
        multipliers.append(file.over(file.get(key, 4)[3], width, key))
    values: dict[str, Any] = {"width": width, "multipliers": multipliers}
    if not attends:
        noisy = "Dense_2/kernel" in file.of
        outs = file.get("Dense_2/kernel" if noisy else "Dense_0/kernel", 2)[1]
        return Found("unet", fill(PlainUNet, values, file.where), ins, outs, noisy)
    values["heads"] = file.get("MultiHeadDotProductAttention_0/query/kernel", 3)[1]
    if not vit:
        return Found("adm", fill(ADM, values, file.where), ins, file.get("Dense_2/kernel", 2)[1])
    inside = _Shapes({key.removeprefix("Transformer_0/"): shape for key, shape in file.of.items()}, file.where)
    channels, values["vit_heads"], _ = _first_query(file, "Transformer_0/")
    values["depth"] = inside.count("SwiGLU")
    key = "Transformer_0/SwiGLU_0/Dense_1/kernel"
    values["mlp_ratio"] = file.over(file.get(key, 2)[1], channels, key)
    outs = file.get("Dense_3/kernel", 2)[1]
    return Found("uvit", fill(UViT, values, file.where), file.over(ins, 4, "Conv_0/kernel"), outs)


def _dit(file: _Shapes) -> Found:
    pixels_in, width = file.get("Dense_0/kernel", 2)
    pixels_out = file.get("FinalLayer_0/Dense_1/kernel", 2)[1]
    # patch² · outs numbers leave for each patch: the fewest output channels for which that is a square
    outs = next(n for n in range(1, pixels_out + 1) if pixels_out % n == 0 and _is_square(pixels_out // n))
    hidden = file.get("DiTBlock_0/SwiGLU_0/Dense_0/kernel", 2)[1]
    values = {
        "patch": math.isqrt(pixels_out // outs),
        "width": width,
        "depth": file.count("DiTBlock"),
        "heads": _first_query(file, "DiTBlock_0/")[1],
        "mlp_ratio": file.over(hidden, width, "DiTBlock_0/SwiGLU_0/Dense_0/kernel"),
        "frequencies": file.get("Dense_1/kernel", 2)[0],
    }
    ins = file.over(pixels_in, pixels_out // outs, "Dense_0/kernel")
    return Found("dit", fill(DiT, values, file.where), ins, outs)


def _first_query(file: _Shapes, scope: str) -> tuple[int, ...]:
    return file.get(f"{scope}MultiHeadDotProductAttention_0/query/kernel", 3)


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number
