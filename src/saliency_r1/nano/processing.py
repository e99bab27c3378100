"""Images and text to the nano policy's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ProcessorMixin

from saliency_r1.nano.backbone import MEAN, STD

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['role'] == 'assistant' %}{% generation %}
{%- if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>
{%- endgeneration %}
{%- else -%}
{%- if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""


class NanoImageProcessor(PilBackend):
    """Squashes an image to a square and normalises it, with PIL and numpy alone."""

    resample = PILImageResampling.BICUBIC
    image_mean = list(MEAN)
    image_std = list(STD)
    size = {"height": 256, "width": 256}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    model_input_names = ["pixel_values"]

    def process_image(self, image: Any, **kwargs: Any) -> np.ndarray:  # type: ignore[override]
        """One image as uint8 (3, S, S): PIL images are resized before they become an array."""
        size = kwargs["size"]
        if isinstance(image, Image.Image) and kwargs["do_resize"]:
            image = image.convert("RGB").resize(
                (size.width, size.height), Image.Resampling(kwargs["resample"])
            )
        return super().process_image(image, **kwargs)

    def resize(self, image: np.ndarray, size: Any, resample: Any = None, **kwargs: Any) -> np.ndarray:  # type: ignore[override]
        """`image` (3, H, W) at `size`; as it is when it has that size."""
        if image.shape[1:] == (size.height, size.width):
            return image
        return super().resize(image, size, resample=resample, **kwargs)

    def rescale(self, image: np.ndarray, scale: float, **kwargs: Any) -> np.ndarray:  # type: ignore[override]
        """`image` times `scale`, float32."""
        return np.multiply(image, np.float32(scale), dtype=np.float32)

    def normalize(self, image: np.ndarray, mean: Any, std: Any, **kwargs: Any) -> np.ndarray:  # type: ignore[override]
        """`image` (3, H, W) less `mean` over `std`, in place."""
        image -= np.asarray(mean, np.float32)[:, None, None]
        image /= np.asarray(std, np.float32)[:, None, None]
        return image


class NanoProcessor(ProcessorMixin):
    """Image processor and tokenizer; an `<image>` of a prompt becomes `image_tokens` placeholders."""

    def __init__(
        self,
        image_processor: NanoImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerFast | None = None,
        chat_template: str | None = None,
        image_tokens: int = 64,
    ) -> None:
        self.image_tokens = image_tokens
        self.image_token = "<image>"
        if tokenizer is None:
            raise ValueError("a processor needs a tokenizer")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """Return what one `<image>` becomes."""
        return self.image_token * self.image_tokens
