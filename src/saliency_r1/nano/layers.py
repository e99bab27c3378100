"""The transformer layers of the nano models."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """The part that pre-norm transformer layers share: the norms, and attention of all tokens to all.

    Args:
        width: channels of a token.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)

    def attend(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return what each token reads from the others, to be added to it.

        Args:
            x: (B, N, width).
            keep: bool (B, N), the tokens that are read; None for all.
        """
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if keep is None else keep[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class AdapterLayer(SelfAttention):
    """Pre-norm transformer layer in which every cell of an image sees every other."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attend(x))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))
