"""The nano policy: a small multimodal language model that says what stands out, and why.

A Lite0 vision tower and a short bidirectional adapter make 64 tokens of each image; they stand in the prompt
where the image placeholders are, and a small Qwen2 writes the response (the layout of LLaVA, Liu et al.
2023). It is used like any image-text-to-text model of transformers, once `saliency_r1.nano.register` was
called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from saliency_r1.nano.configuration import NanoConfig
from saliency_r1.nano.name_reader import NameReader
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.nano.vision import Adapter, VisionTower

_OF_IMAGES = ("pixel_values", "image_features", "image_names")
"""Inputs with a row for each image, not for each prompt."""


class NanoPreTrainedModel(PreTrainedModel):
    """The base of the two classes below: configuration and initialisation."""

    config: NanoConfig
    config_class = NanoConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, NameReader):
            init.zeros_(module.blank)
            init.ones_(module.temperature)
            init.constant_(module.spelling, -1)


class NanoModel(NanoPreTrainedModel):
    """Vision tower, adapter and language model, without the vocabulary's head."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__(config)
        self.vision_tower = VisionTower(config.semantics_stride)
        self.vision_tower.requires_grad_(not config.freeze_vision)
        text: Any = config.text_config
        names = None
        if config.name_tree:
            tree = NameTree.from_dict(config.name_tree)
            names = NameReader(tree, config.name_threshold, text.hidden_size)
        self.adapter = Adapter(
            text.hidden_size,
            config.cells,
            config.adapter_layers,
            config.adapter_heads,
            config.adapter_dropout,
            config.foreground,
            config.instances,
            names,
        )
        self.language_model = AutoModel.from_config(text)
        self.post_init()

    def load_segmenter(self, folder: Path) -> None:
        """Look through the backbone of a saved nano segmenter, see `VisionTower.load_segmenter`."""
        self.vision_tower.load_segmenter(folder)
        self.vision_tower.requires_grad_(not self.config.freeze_vision)
        self.config.semantics_stride = self.vision_tower.semantics.stride

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Features before the adapter, (images, cells, features); without gradient if the tower is frozen.

        They depend on the photo alone, so that fine-tuning may compute them once.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_vision):
            return self.vision_tower(pixel_values.contiguous(memory_format=torch.channels_last))

    def image_embeddings(
        self, image_features: Tensor, counts: Tensor, image_names: Tensor | None = None
    ) -> Tensor:
        """The tokens of images as the language model takes them.

        Args:
            image_features: (images, cells, features) of `encode_images`.
            counts: (prompts,), how many of the images each prompt has; together all.
            image_names: numbers of words in place of those that are read, long (images, `NAME_SLOTS`), see
                `NameReader.forward`; None to keep them all.

        Returns:
            (images, `config.image_tokens`, width).
        """
        tokens, read = self.adapter(image_features)
        names = self.adapter.names
        if names is None or read is None:
            return tokens
        logits, there = read
        logits = torch.cat([names.shared(logits, there, counts)[:, None], logits[:, 1:]], dim=1)
        spelled = names(logits, there, self.get_input_embeddings().weight, image_names)
        return torch.cat([tokens, spelled.to(tokens.dtype)], dim=1)

    @torch.no_grad()
    def read_names(self, image_features: Tensor, counts: Tensor) -> Tensor:
        """Read what is salient in the image of each prompt, or shared by its images.

        Args:
            image_features, counts: as of `image_embeddings`.

        Returns:
            The logits of each prompt, float32 (prompts, classes), for `NameReader.best`.

        Raises:
            ValueError: without a reader of names.
        """
        names = self.adapter.names
        if names is None:
            raise ValueError("this policy reads no names")
        _, read = self.adapter(image_features)
        assert read is not None
        firsts = counts.cumsum(0) - counts
        shared: Tensor = names.shared(read[0], read[1], counts)[firsts]
        return shared

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        image_features: Tensor | None = None,
        image_names: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """See `NanoForImageTextToText.forward`."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if image_features is None and pixel_values is not None:
            image_features = self.encode_images(pixel_values)
        if image_features is not None:
            if input_ids is None:
                raise ValueError("images need input_ids: the placeholders say where they stand")
            holders = input_ids == self.config.image_token_id
            images, each = len(image_features), self.config.image_tokens
            if int(holders.sum()) != images * each:
                raise ValueError(
                    f"Image features and image tokens do not match: {int(holders.sum())} placeholders for "
                    f"{images} images of {each} tokens"
                )
            tokens = self.image_embeddings(image_features, holders.sum(1) // each, image_names)
            inputs_embeds = inputs_embeds.masked_scatter(
                holders.unsqueeze(-1), tokens.to(inputs_embeds.dtype)
            )
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


class NanoForImageTextToText(NanoPreTrainedModel, GenerationMixin):
    """The nano policy with its vocabulary head, tied to the embeddings."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: NanoConfig) -> None:
        super().__init__(config)
        self.model = NanoModel(config)
        text: Any = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()
        self.generation_config = GenerationConfig(
            bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
        )

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; a frozen vision tower stays frozen, which loading would undo."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.model.vision_tower.requires_grad_(not model.config.freeze_vision)
        return loaded

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        image_features: Tensor | None = None,
        image_names: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token at each position.

        Args:
            input_ids: (B, T) token ids, each image as `config.image_tokens` placeholders.
            pixel_values: float (images, 3, S, S), the images of the batch in reading order, as many as the
                placeholders ask for, however they are spread over the prompts.
            attention_mask: (B, T), 0 at padding.
            image_features: (images, cells, features) of `encode_images`, in place of `pixel_values`.
            image_names: words to show in place of those that are read, see `NanoModel.image_embeddings`.
            labels: (B, T), -100 where there is no loss.
            logits_to_keep: the last positions alone, if not 0.

        Raises:
            ValueError: if placeholders and images do not match.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_features=image_features,
            image_names=image_names,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        kept = hidden[:, -logits_to_keep:] if isinstance(logits_to_keep, int) else hidden[:, logits_to_keep]
        logits = self.lm_head(kept)
        loss = None
        if labels is not None:
            size = self.lm_head.out_features
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        generation: Any = super()
        inputs = generation.prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs.pop("pixel_values", None)
            inputs.pop("image_features", None)
            inputs.pop("image_names", None)
        return inputs

    def _expand_inputs_for_generation(  # type: ignore[override]
        self, expand_size: int = 1, input_ids: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Several continuations of a prompt: the images of one prompt stay together in their order."""
        images = {name: kwargs.pop(name, None) for name in _OF_IMAGES}
        images = {name: value for name, value in images.items() if value is not None}
        if expand_size > 1 and input_ids is not None:
            counts = (input_ids == self.config.image_token_id).sum(1) // self.config.image_tokens
            numbers = torch.arange(int(counts.sum()), device=input_ids.device).split(counts.tolist())
            order = torch.cat([row.repeat(expand_size) for row in numbers])
            images = {name: value[order] for name, value in images.items()}
        generation: Any = super()
        input_ids, kwargs = generation._expand_inputs_for_generation(
            expand_size=expand_size, input_ids=input_ids, **kwargs
        )
        return input_ids, {**kwargs, **images}
