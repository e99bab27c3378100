"""The vision tower of the nano policy: pixels become image tokens.

Each image token stands for a cell of 32x32 pixels. It joins five kinds of evidence: what is there (the 1280
features that the ImageNet classifier reads), what stands out (the stride-32 map of the backbone as the
segmenter trained it), where its parts are (the stride-16 map of the four quarters), edges and texture (the
stride-8 map, averaged) and colour (CIELAB of 4x4 sub-cells). The joining is ours.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_r1.errors import SaliencyError
from saliency_r1.nano.backbone import HEAD_CHANNELS, MEAN, STD, TAP_CHANNELS, Lite, Semantics
from saliency_r1.nano.foreground import Foreground
from saliency_r1.nano.instance_map import InstanceMap
from saliency_r1.nano.layers import AdapterLayer
from saliency_r1.nano.name_reader import NameReader
from saliency_r1.nano.segmenter_model import NanoSegmenterModel

PARTS = (HEAD_CHANNELS, TAP_CHANNELS[4], 4 * TAP_CHANNELS[3], TAP_CHANNELS[2])
COLOURS = 4 * 4 * 3
FEATURES = sum(PARTS) + COLOURS
"""Numbers of one cell before the adapter."""

_RGB_TO_XYZ = (  # linear sRGB to XYZ over the D65 white (IEC 61966-2-1)
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)


def lab(rgb: Tensor) -> Tensor:
    """CIELAB under D65 of sRGB (B, 3, H, W) in [0, 1], divided by 100: lightness in [0, 1]."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("ij,bjhw->bihw", torch.tensor(_RGB_TO_XYZ, device=rgb.device), linear)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), xyz * 7.787 + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], dim=1)


class VisionTower(nn.Module):
    """Lite0, ImageNet's late blocks and the colours of an image, as one row of numbers for each cell.

    Backbone and late blocks are the segmenter's, so that the policy sees what the segmenter will find.

    Args:
        semantics_stride: stride of the backbone's map that the late blocks read, 8 or 16, see `Semantics`.

    Attributes:
        features: how many numbers.
    """

    features = FEATURES

    def __init__(self, semantics_stride: int = 16) -> None:
        super().__init__()
        self.backbone = Lite()
        self.semantics = Semantics(stride=semantics_stride)

    def load_segmenter(self, folder: Path) -> None:
        """Take over both from a saved nano segmenter.

        Raises:
            SaliencyError: if the folder does not hold one, or one of another backbone.
        """
        trained = NanoSegmenterModel.from_pretrained(folder)
        if trained.config.backbone != "lite0":
            raise SaliencyError(
                f"{folder} has the backbone {trained.config.backbone}: the policy looks through lite0 only"
            )
        self.semantics = Semantics(stride=trained.config.semantics_stride)
        self.backbone.load_state_dict(trained.backbone.state_dict())
        self.semantics.load_state_dict(trained.semantics.state_dict())

    def load_imagenet(self) -> None:
        """Take both from ImageNet's classifier; then nothing tells what stands out."""
        self.backbone.load_imagenet()
        self.semantics.load_imagenet()

    def _read(self, f8: Tensor, f16: Tensor) -> Tensor:
        read: Tensor = self.semantics(f8 if self.semantics.stride == 8 else f16)
        return read

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of images.

        Args:
            pixels: float (B, 3, S, S), normalised by the backbone's `MEAN` and `STD`.

        Returns:
            float (B, (S / 32)^2, `FEATURES`), cells in row order.
        """
        maps = self.backbone(pixels.to(self.backbone.stem.weight.dtype))
        f8, f16, f32 = maps[2:]
        with torch.autocast(pixels.device.type, enabled=False):
            small = F.avg_pool2d(pixels.float(), 8)
            mean = torch.tensor(MEAN, device=pixels.device)[:, None, None]
            std = torch.tensor(STD, device=pixels.device)[:, None, None]
            colours = F.pixel_unshuffle(lab((small * std + mean).clamp(0, 1)), 4)
        head = self._read(f8, f16)
        parts = [head, f32, F.pixel_unshuffle(f16, 2), F.avg_pool2d(f8, 4), colours.to(head.dtype)]
        return torch.cat(parts, dim=1).flatten(2).transpose(1, 2)


class Adapter(nn.Module):
    """Features of the vision tower to embeddings of the language model.

    The colours are not normalised: their absolute value is what names a colour.
    """

    def __init__(
        self,
        width: int,
        cells: int,
        layers: int,
        heads: int,
        dropout: float,
        foreground: bool = False,
        instances: bool = False,
        names: NameReader | None = None,
    ) -> None:
        super().__init__()
        self.names = names
        self.foreground = Foreground(PARTS[1:3], width) if foreground else None
        self.instances = InstanceMap(PARTS[1:3], cells, width) if instances else None
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in PARTS)
        self.dropout = nn.Dropout(dropout)
        self.join = nn.Linear(FEATURES, width)
        self.project = nn.Linear(width, width)
        self.place = nn.Embedding(cells, width)
        self.layers = nn.ModuleList(AdapterLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def telling(self, features: Tensor) -> Tensor:
        """Those of the features that tell what is salient: the maps of strides 32 and 16."""
        return features[..., PARTS[0] : sum(PARTS[:3])]

    def salient(self, features: Tensor) -> Tensor:
        """Return how salient each cell is, (B, cells) in [0, 1], from features of `forward`; 1 if unknown."""
        if self.foreground is None:
            return features.new_ones(features.shape[:2])
        features = features.to(self.join.weight.dtype)
        shares: Tensor = self.foreground(self.telling(features), features[..., -COLOURS:])[1]
        return shares

    def evidence(self, features: Tensor) -> Tensor | None:
        """Return how clearly each statement is borne out, (B, `EVIDENCE`); None if that is not measured."""
        if self.foreground is None:
            return None
        features = features.to(self.join.weight.dtype)
        found: Tensor = self.foreground.evidence(self.telling(features), features[..., -COLOURS:])
        return found

    def forward(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Tokens of images, and what the reader of names says of them.

        Args:
            features: (B, cells, `FEATURES`).

        Returns:
            (B, cells, width), and what `NameReader.read` gives; None without a reader.
        """
        *parts, colours = features.to(self.join.weight.dtype).split((*PARTS, COLOURS), dim=-1)
        joined = [norm(part) for norm, part in zip(self.norms, parts, strict=True)]
        x = self.join(self.dropout(torch.cat([*joined, colours], dim=-1)))
        x = self.project(F.gelu(x)) + self.place.weight
        shares, orders = features.new_ones(features.shape[:2]), features.new_zeros(*features.shape[:2], 0)
        if self.foreground is not None:
            measured, shares = self.foreground(self.telling(features).to(x.dtype), colours)
            x = x + measured[:, None]
        if self.instances is not None:
            found, orders = self.instances(self.telling(features).to(x.dtype))
            x = x + found
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        if self.names is None:
            return x, None
        with torch.no_grad():  # fitted on named regions
            return x, self.names.read(features[..., : PARTS[0]], shares, orders)
