"""The nano referring segmenter: an image and an expression in, a mask and its expected quality out.

The backbone reads the image once. For each expression a small transformer reads the stride-16 grid of image
tokens together with the words, so that a word can pick an object and compare places and sizes over the
whole image; the expression as a whole also scales and shifts the image tokens before each layer. A
pyramid then brings the choice to stride 2. The layout is ours; the parts are standard: Lite0
features, joint self-attention over image and text tokens, FiLM, a feature pyramid, an IoU head as in SAM.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isqrt
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saliency_r1.errors import SaliencyError
from saliency_r1.nano.backbone import HEAD_CHANNELS, MEAN, STD, TAP_STRIDES, VARIANTS, Lite, Semantics
from saliency_r1.nano.layers import SelfAttention
from saliency_r1.nano.words import PAD, UNKNOWN, WordList

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_TYPE = "saliency_r1_nano_segmenter"


@dataclass(frozen=True)
class SegmenterConfig:
    """Sizes of the nano segmenter and its vocabulary.

    Attributes:
        words: the vocabulary, in the order of the embedding's rows 2, 3, ...
        image_size: the side of the square that it sees, in pixels; a multiple of 32. The network itself takes
            squares of any such side.
        width: channels of the image and text tokens.
        layers: joint transformer layers.
        heads: attention heads.
        pyramid: channels of the stride-8 and stride-4 maps.
        finest: channels of the stride-2 map.
        match: dimensions in which words and cells of the image are compared.
        length: the most words of an expression.
        backbone: a name of `saliency_r1.nano.backbone.VARIANTS`.
        semantics_stride: stride of the map from which the never trained late blocks read names, 8 or 16.
    """

    words: tuple[str, ...]
    image_size: int = 320
    width: int = 160
    layers: int = 3
    heads: int = 4
    pyramid: int = 64
    finest: int = 16
    match: int = 128
    length: int = 16
    backbone: str = "lite0"
    semantics_stride: int = 8

    @classmethod
    def load(cls, folder: Path) -> SegmenterConfig:
        """Read `config.json` of a saved segmenter."""
        try:
            values = json.loads((folder / CONFIG_FILE).read_text())
            kind = values.pop("model_type", None)
            if kind == MODEL_TYPE and "finest" not in values:
                raise SaliencyError(
                    f"{folder} holds a nano segmenter of the layout before 0.2.0, without a map of stride 2: "
                    "train it again, starting from it with start="
                )
            return cls(**{**values, "words": tuple(values["words"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SaliencyError(f"{folder} holds no nano segmenter: {error}") from None

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps({"model_type": MODEL_TYPE, **asdict(self)}, indent=1)


class EncodedImage(NamedTuple):
    """The encodings of B images.

    Attributes:
        tokens: (B, (S / 16)^2, width).
        meanings: (B, match, S / 32, S / 32), unit vectors to compare with the expression's.
        stride8, stride4, stride2: maps of the pyramid.
    """

    tokens: Tensor
    meanings: Tensor
    stride8: Tensor
    stride4: Tensor
    stride2: Tensor

    def repeat(self, counts: Tensor) -> EncodedImage:
        """Each image as often as `counts` (B,) says, side by side."""
        return EncodedImage(*(part.repeat_interleave(counts, dim=0) for part in self))


class SegmenterOutput(NamedTuple):
    """Logits at stride 2, 4, 8 and 16, each (N, 1, h, w), and the expected IoU's logit (N,)."""

    stride2: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor
    quality: Tensor


class Attention(SelfAttention):
    """Pre-norm transformer layer over a sequence with a padding mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        x = x + self.attend(x, keep)
        return x + self.mlp(self.norm2(x))


class Film(nn.Module):
    """Scale and shift of the image tokens by the expression as a whole (Perez et al., AAAI 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, tokens: Tensor, expression: Tensor) -> Tensor:
        scale, shift = self.linear(expression)[:, None].chunk(2, dim=-1)
        return tokens * (1 + scale) + shift


class Refine(nn.Module):
    """Depthwise 3x3 and pointwise convolutions with a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.GroupNorm(8, channels)
        self.pointwise = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), nn.ReLU(inplace=True), nn.Conv2d(2 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(self.norm(self.depthwise(x)))


class Edges(nn.Module):
    """A 3x3 residual block for the few channels of the finest map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class NanoSegmenterModel(nn.Module):
    """The network of the nano segmenter.

    `encode` takes pixels (B, 3, S, S), normalised as the backbone wants; `segment` takes N encoded images and
    N rows of word numbers (N, length).
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        width, pyramid = config.width, config.pyramid
        self.backbone = Lite(config.backbone)
        c2, c4, c8, c16, c32 = VARIANTS[config.backbone].tap_channels
        self.lateral32 = nn.Conv2d(c32, width, 1)
        self.lateral16 = nn.Conv2d(c16, width, 1)
        self.lateral8 = nn.Conv2d(c8, pyramid, 1)
        self.lateral4 = nn.Conv2d(c4, pyramid, 1)
        self.lateral2 = nn.Conv2d(c2, config.finest, 1)
        self.image_norm = nn.LayerNorm(width)
        self.place = nn.Parameter(_waves(config.image_size // 16, width)[None])
        self.words = nn.Embedding(len(config.words) + 2, width, padding_idx=PAD)
        self.order = nn.Parameter(torch.zeros(1, config.length, width))
        self.text = Attention(width, config.heads)
        self.text_norm = nn.LayerNorm(width)
        self.semantics = Semantics(config.backbone, config.semantics_stride)
        self.match_image = nn.Conv2d(HEAD_CHANNELS, config.match, 1)
        self.match_words = nn.Embedding(len(config.words) + 2, config.match, padding_idx=PAD)
        self.match_in = nn.Linear(3, width)
        self.joint = nn.ModuleList(Attention(width, config.heads) for _ in range(config.layers))
        self.film = nn.ModuleList(Film(width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.logit16 = nn.Linear(width, 1)
        self.quality = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 1))
        self.down8 = nn.Conv2d(width, pyramid, 1)
        self.refine8 = nn.Sequential(Refine(pyramid), Refine(pyramid))
        self.logit8 = nn.Conv2d(pyramid, 1, 1)
        self.refine4 = nn.Sequential(Refine(pyramid), Refine(pyramid))
        self.logit4 = nn.Conv2d(pyramid, 1, 1)
        self.down2 = nn.Conv2d(pyramid, config.finest, 1)
        self.refine2 = nn.Sequential(Edges(config.finest), Edges(config.finest))
        self.logit2 = nn.Conv2d(config.finest, 1, 1)
        nn.init.trunc_normal_(self.order, std=0.1)
        nn.init.normal_(self.words.weight, std=0.5)
        # At first the finest logits are those of stride 4, upsampled.
        nn.init.zeros_(self.logit2.weight)
        nn.init.zeros_(self.logit2.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.match_in.weight)
        nn.init.zeros_(self.match_in.bias)

    def encode(self, pixels: Tensor) -> EncodedImage:
        """The text-free part: B images, once each."""
        maps = self.backbone(pixels)
        f2, f4, f8, f16, f32 = maps
        top = F.interpolate(self.lateral32(f32), scale_factor=2, mode="bilinear", align_corners=False)
        tokens = (self.lateral16(f16) + top).flatten(2).transpose(1, 2)
        # Normalised before the place is added: the features are so large that it would drown in them.
        tokens = self.image_norm(tokens) + self.places(f16.shape[-1])
        meanings = F.normalize(self.match_image(self._semantics(maps)).float(), dim=1)
        return EncodedImage(tokens, meanings, self.lateral8(f8), self.lateral4(f4), self.lateral2(f2))

    def semantics_of(self, pixels: Tensor) -> Tensor:
        """Return the features of ImageNet's classifier for B images, (B, 1280, S / 32, S / 32)."""
        return self._semantics(self.backbone(pixels))

    def _semantics(self, maps: Sequence[Tensor]) -> Tensor:
        features: Tensor = self.semantics(maps[TAP_STRIDES.index(self.semantics.stride)])
        return features

    def places(self, side: int) -> Tensor:
        """Return what is added to the tokens of a grid of that side, (1, side^2, width)."""
        own = isqrt(self.place.shape[1])
        return self.place if side == own else resized_places(self.place, side)

    def segment(self, encoded: EncodedImage, words: Tensor) -> SegmenterOutput:
        """One mask for each of N pairs of an encoded image and an expression."""
        count, cells, width = encoded.tokens.shape
        keep = words != PAD
        text = self.text_norm(self.text(self.words(words) + self.order[:, : words.shape[1]], keep))
        expression = (text * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)
        tokens = encoded.tokens + self.match_in(self.matches(encoded.meanings, words))
        text = text.to(tokens.dtype)
        keep = torch.cat([keep.new_ones(count, cells), keep], dim=1)
        for film, layer in zip(self.film, self.joint, strict=True):
            x = layer(torch.cat([film(tokens, expression), text], dim=1), keep)
            tokens, text = x[:, :cells], x[:, cells:]
        tokens = self.norm(tokens)
        logit16 = self.logit16(tokens)
        share = logit16.sigmoid()
        inside = (tokens * share).sum(1) / (share.sum(1) + 1.0)
        quality = self.quality(torch.cat([inside, tokens.mean(1)], dim=1).detach())[:, 0]
        side = isqrt(cells)
        grid = tokens.transpose(1, 2).reshape(count, width, side, side)
        x8 = self.refine8(_double(self.down8(grid)) + encoded.stride8)
        x4 = self.refine4(_double(x8) + encoded.stride4)
        logit4 = self.logit4(x4)
        x2 = self.refine2(_double(self.down2(x4)) + encoded.stride2)
        return SegmenterOutput(
            _double(logit4) + self.logit2(x2),
            logit4,
            self.logit8(x8),
            logit16.transpose(1, 2).reshape(count, 1, side, side),
            quality,
        )

    def meaning(self, words: Tensor) -> Tensor:
        """Unit vectors (N, match) of expressions, the sum of their words'."""
        return F.normalize(self.match_words(words).float().sum(1), dim=1)

    def matches(self, meanings: Tensor, words: Tensor) -> Tensor:
        """Return how well each image token fits the expression's words.

        Returns:
            (N, cells, 3): ten times the cosine; the same in standard deviations over the image; its maximum.
        """
        cosine = 10 * torch.einsum("ndhw,nd->nhw", meanings, self.meaning(words))[:, None]
        spread, mean = torch.std_mean(cosine, dim=(2, 3), keepdim=True)
        maximum = cosine.amax((2, 3), keepdim=True).expand_as(cosine)
        maps = torch.cat([cosine, (cosine - mean) / (spread + 0.1), maximum], dim=1)
        return _double(maps).flatten(2).transpose(1, 2)

    @classmethod
    def from_pretrained(cls, folder: Path) -> NanoSegmenterModel:
        """Read a saved segmenter (`config.json`, `model.safetensors`), as float32.

        Raises:
            SaliencyError: if the folder does not hold one.
        """
        model = cls(SegmenterConfig.load(folder))
        try:
            weights = load_file(folder / WEIGHTS_FILE)
            model.load_state_dict({name: value.float() for name, value in weights.items()})
        except (OSError, RuntimeError, SafetensorError) as error:
            raise SaliencyError(
                f"{folder / WEIGHTS_FILE} does not fit: {str(error).splitlines()[0]}"
            ) from None
        return model

    def with_words(self, words: Sequence[str]) -> NanoSegmenterModel:
        """Return the model with a larger vocabulary: old words keep their numbers and weights.

        A new superlative of a known word ("leftmost") starts as that word; others start random.
        """
        old = self.word_list
        new = [word for word in dict.fromkeys(words) if word not in old.words]
        if not new:
            return self
        grown = NanoSegmenterModel(replace(self.config, words=(*old.words, *new)))
        state = self.state_dict()
        for name in ("words.weight", "match_words.weight"):
            rows = grown.state_dict()[name].clone()
            rows[: len(old)] = state[name]
            for number, word in enumerate(new, start=len(old)):
                known = old.number(word.removesuffix("most"))
                if known != UNKNOWN:
                    rows[number] = state[name][known]
            state[name] = rows
        grown.load_state_dict(state)
        return grown

    @property
    def word_list(self) -> WordList:
        """The vocabulary as an encoder of texts."""
        return WordList(self.config.words)


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to the backbone's float (B, 3, H, W) in channels-last memory."""
    mean = torch.tensor(MEAN, device=pixels.device)
    std = torch.tensor(STD, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def resized_places(place: Tensor, side: int) -> Tensor:
    """Interpolate the learned places of a square grid (1, cells, width) to a grid of another side."""
    own = isqrt(place.shape[1])
    grid = place.transpose(1, 2).reshape(1, -1, own, own)
    grid = F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2)


def _waves(side: int, width: int) -> Tensor:
    """Sines and cosines of the row and the column of each cell (side * side, width), from slow to fast."""
    place = (torch.arange(side) + 0.5) / side
    angles = place[:, None] * torch.pi * 2.0 ** torch.linspace(-1, 3, width // 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
