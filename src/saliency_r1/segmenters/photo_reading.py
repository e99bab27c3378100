"""Preprocess a photo by a model's processor configuration, without torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from saliency_r1.checkpoint import PROCESSOR_FILES, read_json
from saliency_r1.errors import SaliencyError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Reading:
    """Settings for preprocessing a photo; the names are those of transformers' processors.

    Attributes:
        size: `height` and `width`, to which it is squeezed; or `longest_edge`, to which it is scaled; or
            `shortest_edge` with `longest_edge`, within which it is scaled.
        image_mean: mean of each channel in [0, 1].
        image_std: standard deviation of each channel.
        resample: a filter of PIL, by number; the larger ones average when they make a photo smaller.
    """

    size: Mapping[str, int]
    image_mean: tuple[float, ...] = IMAGENET_MEAN
    image_std: tuple[float, ...] = IMAGENET_STD
    resample: int = Image.Resampling.BILINEAR

    def scaled(self, image: Image.Image) -> tuple[int, int]:
        """The height and width at which the model reads that photo, at least 1 each."""
        if "height" in self.size:
            return self.size["height"], self.size["width"]
        short, long = sorted(image.size)
        if "shortest_edge" in self.size:
            exact = min(self.size["shortest_edge"], self.size["longest_edge"] * short / long)
            edges = round(exact), int(exact * long / short)
        else:
            exact = self.size["longest_edge"] * short / long
            edges = int(exact + 0.5), self.size["longest_edge"]
        small, large = (max(1, edge) for edge in edges)
        return (small, large) if image.height <= image.width else (large, small)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """The photo (mode RGB) resized and normalised, float32 (1, 3, h, w)."""
        height, width = self.scaled(image)
        small = image.resize((width, height), Image.Resampling(self.resample))
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor([self.image_mean, self.image_std])[..., None, None]
        return ((pixels - mean) / std)[None]


class PhotoAndTextModel:
    """A model of transformers with what turns texts and photos into its inputs.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        reading: how it preprocesses a photo.
    """

    def __init__(self, model: Any, tokenizer: Any, reading: Reading) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.tokenizer = tokenizer
        self.reading = reading


def read_reading(folder: Path, default: Reading) -> Reading:
    """Read the processor's configuration in a folder, with the defaults of its kind.

    Raises:
        SaliencyError: if it says what cannot be.
    """
    found: dict[str, Any] = {}
    for name in reversed(PROCESSOR_FILES):
        if (folder / name).is_file():
            content = read_json(folder / name, "")
            found |= content.get("image_processor", content)
    size = found.get("size", default.size)
    if isinstance(size, int):  # as processors were written before sizes had names
        size = {"height": size, "width": size} if "height" in default.size else {**default.size}
    edges = {name: edge for name, edge in size.items() if edge is not None}
    if edges.keys() not in ({"height", "width"}, {"longest_edge"}, {"shortest_edge", "longest_edge"}):
        raise SaliencyError(
            f"the processor in {folder} has size {edges}: expected height and width, or longest_edge with or "
            "without shortest_edge"
        )
    return Reading(
        edges,
        tuple(found.get("image_mean", default.image_mean)),
        tuple(found.get("image_std", default.image_std)),
        found.get("resample", default.resample),
    )
