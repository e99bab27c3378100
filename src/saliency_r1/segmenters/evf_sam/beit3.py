"""BEiT-3's multiway encoder: one attention reads photo and text, each with its own weights.

Source: Wang et al., Image as a Foreign Language, arXiv:2208.10442, section 2.1; the sub-layer norms are those
of Magneto, arXiv:2210.06423.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from saliency_r1.errors import SaliencyError

FIRST_POSITION = 2
"""Positions count from here, in the photo and in the text: the tables' first two rows are never read."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a part of a network; each attribute is a positive integer."""

    def __post_init__(self) -> None:
        """Check the sizes, which the shapes of tensors alone do not determine.

        Raises:
            SaliencyError: if a size is not a positive integer, or two do not fit together.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (not isinstance(value, int) or value < 1):
                raise SaliencyError(
                    f"{field.name} is {value!r} in {type(self).__name__}: give a positive integer"
                )

    def check_multiple(self, whole: str, part: int) -> None:
        """Raise a SaliencyError unless the size of that name is a multiple of `part`."""
        if getattr(self, whole) % part:
            raise SaliencyError(
                f"{whole} is {getattr(self, whole)} in {type(self).__name__}: give a multiple of {part}"
            )

    @classmethod
    def from_mapping(cls, sizes: Mapping[str, Any]) -> Self:
        """Take the sizes from a mapping with the attributes' names; other entries are ignored.

        Raises:
            SaliencyError: if a size without a default is missing, or does not fit.
        """
        missing = [
            field.name for field in fields(cls) if field.default is MISSING and field.name not in sizes
        ]
        if missing:
            raise SaliencyError(f"{cls.__name__} lack {', '.join(missing)}: give the sizes of the weights")
        return cls(**{field.name: sizes[field.name] for field in fields(cls) if field.name in sizes})


@dataclass(frozen=True)
class Beit3Sizes(Sizes):
    """Sizes of an encoder, under the names of the original's configuration.

    Attributes:
        img_size: side of the square photo, in pixels.
        patch_size: side of a patch, in pixels.
        vocab_size: rows of the text embedding.
        encoder_embed_dim: width D.
        encoder_attention_heads: heads of each layer.
        encoder_ffn_embed_dim: inner width of the feed-forward network.
        encoder_layers: layers.
        max_source_positions: rows of the text's position table; a text has `FIRST_POSITION` tokens fewer.
    """

    img_size: int
    patch_size: int
    vocab_size: int
    encoder_embed_dim: int
    encoder_attention_heads: int
    encoder_ffn_embed_dim: int
    encoder_layers: int
    max_source_positions: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_multiple("img_size", self.patch_size)
        self.check_multiple("encoder_embed_dim", self.encoder_attention_heads)

    @property
    def patches(self) -> int:
        """Number of patches of a photo."""
        return (self.img_size // self.patch_size) ** 2


BASE = Beit3Sizes(224, 16, 64010, 768, 12, 3072, 12)
LARGE = Beit3Sizes(224, 16, 64010, 1024, 16, 4096, 24)


class Multiway(nn.Module):
    """Two copies of a module: one for the photo's tokens, which come first, and one for the text's.

    Args:
        make: makes one of the two.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.vision = make()
        self.text = make()

    def forward(self, tokens: torch.Tensor, photo_tokens: int) -> torch.Tensor:
        """Send each token (N, L, D) through its kind's module; the first `photo_tokens` are the photo's."""
        photo, text = tokens[:, :photo_tokens], tokens[:, photo_tokens:]
        return torch.cat([self.vision(photo), self.text(text)], dim=1)


class FeedForward(nn.Module):
    """Two linear layers about a GELU, with a norm before the second."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.norm = nn.LayerNorm(inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (N, L, D) in and out."""
        return self.fc2(self.norm(F.gelu(self.fc1(tokens))))


class Layer(nn.Module):
    """Attention over the tokens of both kinds, then a feed-forward network for each kind, both pre-norm."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = Multiway(lambda: nn.LayerNorm(width))
        self.q_proj = Multiway(lambda: nn.Linear(width, width))
        self.k_proj = Multiway(lambda: nn.Linear(width, width))
        self.v_proj = Multiway(lambda: nn.Linear(width, width))
        self.inner_norm = Multiway(lambda: nn.LayerNorm(width))
        self.out_proj = Multiway(lambda: nn.Linear(width, width))
        self.ffn_norm = Multiway(lambda: nn.LayerNorm(width))
        self.ffn = Multiway(lambda: FeedForward(width, inner))

    def forward(self, tokens: torch.Tensor, photo_tokens: int, seen: torch.Tensor | None) -> torch.Tensor:
        """Tokens (N, L, D) in and out.

        Args:
            tokens: the photo's first.
            photo_tokens: number of tokens of the photo.
            seen: bool (N, 1, 1, L), the tokens that may be attended to; None for all.
        """
        normed = self.attention_norm(tokens, photo_tokens)
        query, key, value = (
            projection(normed, photo_tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = (
            F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)
        )
        tokens = tokens + self.out_proj(self.inner_norm(attended, photo_tokens), photo_tokens)
        return tokens + self.ffn(self.ffn_norm(tokens, photo_tokens), photo_tokens)


class Beit3(nn.Module):
    """The encoder for a photo with a text, as EVF-SAM uses it.

    `mask_token` replaces hidden patches in pretraining: checkpoints contain it, and nothing here uses it.

    Args:
        sizes: the sizes of the encoder.

    Example:
        >>> model = Beit3(Beit3Sizes(32, 16, 50, 8, 2, 16, 1))
        >>> photo = model.embed_photo(torch.zeros(1, 3, 32, 32))
        >>> model(photo, torch.tensor([[0, 7, 2]])).shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, sizes: Beit3Sizes) -> None:
        super().__init__()
        width = sizes.encoder_embed_dim
        self.sizes = sizes
        self.patch_embed = nn.Conv2d(3, width, sizes.patch_size, sizes.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.text_embed = nn.Embedding(sizes.vocab_size, width)
        self.vision_positions = nn.Embedding(sizes.patches + 1 + FIRST_POSITION, width)
        self.text_positions = nn.Embedding(sizes.max_source_positions, width)
        self.layers = nn.ModuleList(
            Layer(width, sizes.encoder_attention_heads, sizes.encoder_ffn_embed_dim)
            for _ in range(sizes.encoder_layers)
        )
        self.norm = Multiway(lambda: nn.LayerNorm(width))

    def embed_photo(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute what depends only on the photo.

        Args:
            pixels: (B, 3, S, S) in [-1, 1], S being `img_size`.

        Returns:
            The class token's embedding and then the patches', (B, 1 + patches, D).

        Raises:
            ValueError: if the photo has another size.
        """
        side = self.sizes.img_size
        if pixels.shape[1:] != (3, side, side):
            raise ValueError(f"expected a photo (B, 3, {side}, {side}), got {tuple(pixels.shape)}")
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1)
        return tokens + self.vision_positions.weight[FIRST_POSITION:]

    def embed_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids (N, T), giving (N, T, D).

        Raises:
            ValueError: if the text is longer than the position table.
        """
        length = input_ids.shape[1]
        longest = self.sizes.max_source_positions - FIRST_POSITION
        if length > longest:
            raise ValueError(f"a text of {length} tokens: the longest this encoder reads has {longest}")
        positions = self.text_positions.weight[FIRST_POSITION : FIRST_POSITION + length]
        return self.text_embed(input_ids) + positions

    def forward(
        self, photo: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Read each text together with its photo.

        Args:
            photo: result of `embed_photo`, (N, P, D), or (1, P, D) for one photo with all texts.
            input_ids: (N, T), padded on the right.
            attention_mask: (N, T), 0 on padding; None without padding. Nothing attends to padding, so a text
                gives the same result with any padding.

        Returns:
            (N, P + T, D), first the class token's; values at padding have no meaning.
        """
        photo = photo.expand(len(input_ids), -1, -1)
        photo_tokens = photo.shape[1]
        tokens = torch.cat([photo, self.embed_text(input_ids)], dim=1)
        seen = None
        if attention_mask is not None:
            seen = F.pad(attention_mask.bool(), (photo_tokens, 0), value=True)[:, None, None]
        for layer in self.layers:
            tokens = layer(tokens, photo_tokens, seen)
        return self.norm(tokens, photo_tokens)
