"""The configuration of the nano policy."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

MODEL_TYPE = "saliency_r1_nano"

MOST_INSTANCES = 6
"""Instances that are counted and named."""
NAME_SLOTS = 1 + MOST_INSTANCES
"""Words that an image is given: of the salient region or the group, then of each instance as read."""
SPELLED = 3
"""Tokens of such a word; a word of more is not used."""
NAME_TOKENS = NAME_SLOTS * SPELLED

TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 3072,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
"""Sizes of the language model, a Qwen2."""


class NanoConfig(PreTrainedConfig):
    """Sizes of the nano policy.

    Attributes:
        text_config: a `Qwen2Config`, or its fields; `TEXT_DEFAULTS` fill what is not given.
        image_size: side of the square that the vision tower sees, in pixels; a multiple of 32.
        adapter_layers: transformer layers over the tokens of one image, before the language model.
        adapter_heads: attention heads of those layers.
        adapter_dropout: dropout in those layers, in [0, 1); only while fine-tuning.
        foreground: whether the tokens also hold what is measured of the salient region, see `Foreground`.
        instances: whether the tokens also hold where single objects are, see `InstanceMap`.
        semantics_stride: stride of the backbone's map from which ImageNet's late blocks read names, 8 or 16.
        name_tree: the names that the tokens also hold, see `NameReader`, as of `NameTree.to_dict`; None for
            a policy that reads names by itself.
        name_threshold: how probable a name must be to be handed on, in (0, 1).
        image_token_id: the placeholder's id in the tokenizer.
        freeze_vision: whether the vision tower is left out of training.
    """

    model_type = MODEL_TYPE
    # TRL reads it of every class that is not transformers' own, to load a reference model.
    auto_map: ClassVar[dict[str, str]] = {}
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2", init_kwargs=TEXT_DEFAULTS)
    }

    text_config: dict | PreTrainedConfig | None = None
    image_size: int = 256
    adapter_layers: int = 2
    adapter_heads: int = 4
    adapter_dropout: float = 0.0
    foreground: bool = False
    instances: bool = False
    semantics_stride: int = 16
    name_tree: dict | None = None
    name_threshold: float = 0.5
    image_token_id: int = 3
    freeze_vision: bool = True
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.text_config, dict):
            self.text_config = {**TEXT_DEFAULTS, **self.text_config}
        super().__post_init__(**kwargs)
        if self.image_size % 32:
            raise ValueError(f"image_size is {self.image_size}: choose a multiple of 32")

    @property
    def cells(self) -> int:
        """Cells of one image: one for each 32x32 pixels."""
        return (self.image_size // 32) ** 2

    @property
    def image_tokens(self) -> int:
        """Tokens of one image: one for each cell, then those that spell names."""
        return self.cells + (NAME_TOKENS if self.name_tree else 0)
