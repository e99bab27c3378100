"""The recipe of `saliency-r1 train segmenter`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from saliency_r1.scenes.referring import Mix
from saliency_r1.training.run import RunRecipe


@dataclass(frozen=True, kw_only=True)
class SegmenterRecipe(RunRecipe, Mix):
    """A recipe of `train segmenter`, with the mix of its samples.

    Attributes:
        data: the DUTS folder, or one of photos and masks.
        cache: where the packed photos go.
        batch_size: photos a step; each has one or two expressions.
        learning_rate: peak, of the pyramid and the heads.
        transformer_rate: peak, of the word embedding and the transformer.
        backbone_rate: peak, of the backbone's free blocks and of the meanings of words and cells.
        warmup: share of the steps of linear warm-up; cosine decay to zero follows.
        frozen_blocks: how many of the backbone's first blocks have no gradient (the stem has none either):
            one number for each stage of thawing.
        thaw_steps: steps of each stage but the last.
        early_size, early_share: the side in pixels at which the first share of the steps is trained, because
            it is cheaper; the rest is trained at `image_size`.
        average: decay of the moving average of the weights, which is what is validated and exported; less in
            the first steps, so that a short run's average is not its start.
        edge_weight: how much more a pixel near a boundary counts than one far from it.
        start: a folder with weights to start from; None for ImageNet's. Its vocabulary grows by the words
            that the mix adds. Weights of the layout before 0.2.0 can be started from too.
        start_share: share of the start's weights in what is exported, in [0, 1): the mean of both is often
            better than either (Wortsman et al., CVPR 2022). Validations look at the average without it.
        realign: whether names and regions are aligned before the first step although there is a `start`.
        align_steps: steps of that alignment.
        instance_data: folders of COCO json sets for the share of `instances`.
        teacher: folder of a teacher's soft masks of their photos, see `instance_photos.open_photos`; None
            for no teacher.
        imagenet: `imagenet1k.json` for the names of ImageNet's classes; None to do without.
        validation_photos: how many held-out photos a validation looks at.
        width, layers, pyramid, finest, image_size, backbone: sizes of the model, see `SegmenterConfig`.
    """

    data: Path
    cache: Path = Path("cache/duts-tr-256")
    max_steps: int = 2200
    batch_size: int = 12
    learning_rate: float = 2e-3
    transformer_rate: float = 1e-3
    backbone_rate: float = 3e-4
    weight_decay: float = 0.01
    warmup: float = 0.09
    frozen_blocks: tuple[int, ...] = (11,)
    thaw_steps: int = 400
    early_size: int = 0
    early_share: float = 0.0
    average: float = 0.999
    edge_weight: float = 3.0
    start: Path | None = None
    start_share: float = 0.0
    realign: bool = False
    align_steps: int = 1200
    composed: float = 0.5
    instance_data: tuple[Path, ...] = ()
    teacher: Path | None = None
    imagenet: Path | None = None
    seed: int = 7
    log_every: int = 50
    validate_every: int = 400
    save_every: int = 200
    validation_photos: int = 100
    workers: int = 1
    width: int = 192
    layers: int = 3
    pyramid: int = 64
    finest: int = 16
    image_size: int = 320
    backbone: str = "lite0"

    OLD_KEYS: ClassVar[dict[str, str]] = {
        "out": "write output",
        "steps": "write max_steps",
        "init": "write start, and null for ImageNet's weights",
        "bf16": "write precision: bfloat16, or precision: float32",
        "warmup_steps": "write warmup, a share of the steps: 0.09 for 200 of 2200",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}: choose 1 or more")
        if not self.frozen_blocks:
            raise ValueError("frozen_blocks is empty: give a number of blocks for at least one stage")
        if not 0 <= self.start_share < 1:
            raise ValueError(f"start_share is {self.start_share}: choose 0 or more, and less than 1")
        if self.start_share and self.start is None:
            raise ValueError(f"start_share is {self.start_share}, but there is no start: give its folder")

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm-up."""
        return math.ceil(self.warmup * self.max_steps)
