"""Self-attention among the last axis but one: the pixels of a map's row, or a transformer's tokens."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxlate.errors import BadInput
from voxlate.nets.xmodality.norm import RMSNorm
from voxlate.nets.xmodality.parts import Dense, Init

SCORES = 1 << 18  # a thread's products of queries and keys at a time: in bfloat16 they stay in its second-level cache
LONGEST = 1024  # tokens; of more, the scores of one item would be too many to hold


class Attention(nn.Module):
    """Self-attention among the tokens of [..., T, C]; on a map these are the pixels of one row."""

    def __init__(self, channels: int, heads: int, init: Init = nn.init.xavier_uniform_) -> None:
        super().__init__()
        if channels % heads:
            raise BadInput(f"net.heads: expected a divisor of {channels} channels, found {heads}. Change it.")
        self.heads = heads
        self.qkv = Dense(channels, 3 * channels, lambda weight: [init(part) for part in weight.detach().chunk(3)])
        self.out = Dense(channels, channels, init)

    def forward(self, h: Tensor) -> Tensor:
        mixed = attend(self.qkv(h).view(-1, h.shape[-2], 3, self.heads, h.shape[-1] // self.heads))
        h = self.out(mixed.reshape(h.shape))
        return h


class AttentionLayer(nn.Module):
    """h + attention(norm(h))."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attention = RMSNorm(channels), Attention(channels, heads)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.attention(self.norm(h))


def attend(qkv: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v: [B, T, 3, heads, d] -> [B, T, heads, d]."""
    ours = qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16 and qkv.shape[1] <= LONGEST
    if ours and torch.is_grad_enabled() and qkv.requires_grad and not torch.compiler.is_compiling():
        out: Tensor = _Attend.apply(qkv)  # type: ignore[no-untyped-call]
        return out
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2)


class _Attend(torch.autograd.Function):
    """The CPU's own forward kernel with another backward: torch's takes two to five times longer in bfloat16."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor) -> Tensor:
        ctx.save_for_backward(qkv)
        return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (qkv,) = ctx.saved_tensors
        items, tokens, _, heads, width = qkv.shape
        out, scale = torch.empty_like(qkv), width**-0.5
        step = max(1, SCORES * torch.get_num_threads() // (heads * tokens**2))
        for start in range(0, items, step):
            part = slice(start, min(start + step, items))
            query, key, value = qkv[part].permute(2, 0, 3, 1, 4).reshape(3, -1, tokens, width)
            dmixed = grad[part].transpose(1, 2).reshape(-1, tokens, width)
            share = torch.bmm(query, key.transpose(1, 2)).mul_(scale).softmax(-1)
            dshare = torch.bmm(dmixed, value.transpose(1, 2))
            dscore = torch._softmax_backward_data(dshare, share, -1, share.dtype).mul_(scale)
            parts = (
                torch.bmm(dscore, key),
                torch.bmm(dscore.transpose(1, 2), query),
                torch.bmm(share.transpose(1, 2), dmixed),
            )
            out[part] = torch.stack(parts).view(3, -1, heads, tokens, width).permute(1, 3, 0, 2, 4)
        return out
