"""DiT of paper 001: a transformer over patches of the image itself (after Peebles and Xie 2023)."""

from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.base.config import setting, settings
from voxlate.science.nets import wavelet
from voxlate.science.nets.blocks import sinusoids
from voxlate.science.nets.interface import Channels, NetSettings
from voxlate.science.nets.xmodality_layers import (
    EPS,
    Attention,
    Backbone,
    Dense,
    RMSNorm,
    SwiGLU,
    lecun_normal_,
    position_embedding,
)

FREQUENCIES = 256  # sines and cosines of the log-SNR, as published


@settings
class DiT(NetSettings):
    """The published DiT-L/16: adaptive RMS norms, gated layers, patches of the image as tokens (paper 001)."""

    kind: Literal["dit"] = "dit"
    patch: Annotated[int, setting("Side of a patch in pixels; each patch is one token.", gt=0)] = 16
    width: Annotated[int, setting("Number of channels of a token.", gt=0, multiple_of=4)] = 1024
    depth: Annotated[int, setting("Number of transformer blocks.", gt=0)] = 24
    heads: Annotated[int, setting("Number of attention heads, a divisor of width.", gt=0)] = 16
    wavelet: Annotated[
        bool,
        setting(
            "Whether it works on wavelet bands at half the size, as U-ViT, against artefacts of patches (sec. 4.1)."
        ),
    ] = False

    def build(self, channels: Channels) -> "DiTNet":
        """Raises BadInput where a task gives more than images and their noise level."""
        self.takes_only_images(channels, noise=True)
        return DiTNet(self, channels)


class TimeMLP(nn.Module):
    """log-SNR [N] -> [N, width], with the SiLU that every user of it starts with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        init = partial(nn.init.trunc_normal_, std=0.02, a=-0.04, b=0.04)
        self.first = Dense(FREQUENCIES, width, init)
        self.second = Dense(width, width, init)

    def forward(self, log_snr: Tensor) -> Tensor:
        """The embedding of the log-SNR."""
        sines, cosines = sinusoids(log_snr, FREQUENCIES, FREQUENCIES // 2)
        return F.silu(self.second(F.silu(self.first(torch.cat([cosines, sines], dim=-1)))))


class DiTBlock(nn.Module):
    """Attention and a gated layer, each normed, scaled, shifted and gated by the time (adaLN-Zero)."""

    def __init__(self, net: DiT) -> None:
        super().__init__()
        self.modulation = Dense(net.width, 6 * net.width, nn.init.zeros_)
        self.norm1 = RMSNorm(net.width)
        self.attention = Attention(net.width, net.heads, lecun_normal_)
        self.norm2 = RMSNorm(net.width)
        self.mlp = SwiGLU(net.width)

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Tokens [N, T, C] of the same shape; embedding: [N, C]."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            self.modulation(embedding).float().chunk(6, dim=-1)
        )
        mixed = self.attention(self.norm1(tokens, torch.cat([scale1, shift1], dim=-1)))
        tokens = torch.addcmul(tokens, gate1[:, None], mixed)
        mixed = self.mlp(self.norm2(tokens, torch.cat([scale2, shift2], dim=-1)))
        return torch.addcmul(tokens, gate2[:, None], mixed)


class FinalLayer(nn.Module):
    """The last norm, scaled and shifted by the time, and the output layer."""

    def __init__(self, width: int, outs: int) -> None:
        super().__init__()
        self.modulation = Dense(width, 2 * width, nn.init.zeros_)
        self.norm = RMSNorm(width)
        self.out = Dense(width, outs, nn.init.zeros_)

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Outputs [N, T, outs] of tokens [N, T, C]; embedding: [N, C]."""
        shift, scale = self.modulation(embedding).float().chunk(2, dim=-1)
        return self.out(self.norm(tokens, torch.cat([scale, shift], dim=-1)))


class DiTNet(Backbone):
    """The state comes first at the input; a regressor is given log-SNR 0.

    The order of its parts is that of the published file; its tokens stay float32 between the blocks.
    """

    state_first = True

    def __init__(self, net: DiT, channels: Channels) -> None:
        side = net.patch * (2 if net.wavelet else 1)  # of the pixels that become a token
        super().__init__(side, channels)
        self.patch = net.patch
        self.wavelet = net.wavelet
        pixels = side**2
        ins = channels.joined
        self.norm_in = nn.LayerNorm(pixels * ins, eps=EPS)
        self.embed = Dense(pixels * ins, net.width)
        self.norm = nn.LayerNorm(net.width, eps=EPS)
        self.time = TimeMLP(net.width)
        self.blocks = nn.ModuleList(DiTBlock(net) for _ in range(net.depth))
        self.final = FinalLayer(net.width, pixels * channels.out)

    def slices(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """See Backbone.slices."""
        if not self.wavelet:
            return self._transform(h, embedding)
        return wavelet.synthesise(self._transform(wavelet.analyse(h), embedding))

    def _transform(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        items, height, width, channels = h.shape
        rows = height // self.patch
        columns = width // self.patch
        h = h.view(items, rows, self.patch, columns, self.patch, channels).transpose(2, 3)
        tokens = self.norm(self.embed(self.norm_in(h.reshape(items, rows * columns, -1)))).float()
        tokens = tokens + position_embedding(rows, columns, tokens.shape[-1], h.device)
        for block in self.blocks:
            tokens = block(tokens, embedding)
        out = self.final(tokens, embedding).view(items, rows, columns, self.patch, self.patch, -1)
        return out.transpose(2, 3).reshape(items, height, width, -1)
