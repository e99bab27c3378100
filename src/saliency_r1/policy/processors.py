"""Load the processor of a checkpoint, which converts images and text to a model's inputs.

Stock processors of models that also take videos (Qwen2.5-VL, Qwen3-VL, SmolVLM2, LLaVA-OneVision, …) cannot
be made without torchvision, because their video processor needs it. Without torchvision they are made here
for images only: the stock class without its video part, around transformers' image processor for PIL. Text,
chat template and image tensors are those of the stock class with that image processor.

What such a processor saves is read by the stock class where torchvision is: it takes the parameters of its
video part from `preprocessor_config.json`, the flat file beside `processor_config.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name
from transformers.utils import is_torchvision_available


def load_processor(source: str, config: Any, revision: str | None = None) -> Any:
    """Load the processor of a checkpoint; with torchvision it is the stock one.

    Args:
        source: a folder or a hub name.
        config: the checkpoint's configuration.
        revision: branch, tag or commit on the hub.
    """
    options = {"revision": revision, "trust_remote_code": False}
    stock: Any = PROCESSOR_MAPPING.get(type(config), None)
    if stock is not None and takes_videos(stock) and not is_torchvision_available():
        return image_only(stock).from_pretrained(source, **options)
    return AutoProcessor.from_pretrained(source, **options)


def takes_videos(stock: Any) -> bool:
    """Whether a processor class has a video processor."""
    return "video_processor" in stock.get_attributes()


def image_only(stock: Any) -> Any:
    """Return the processor class without videos, under the same name, so that it saves a standard folder."""
    base = _without_words(stock) if stock.__name__ == "SmolVLMProcessor" else stock

    def save_pretrained(self: Any, save_directory: str | Path, **options: Any) -> Any:
        files = base.save_pretrained(self, save_directory, **options)
        add_flat_file(Path(save_directory))
        return files

    attributes = [name for name in stock.get_attributes() if name != "video_processor"]
    content = {
        "get_attributes": classmethod(lambda cls: list(attributes)),
        "save_pretrained": save_pretrained,
        "__doc__": "Images and text alone.",
    }
    return type(stock.__name__, (base,), content)


def add_flat_file(folder: Path) -> None:
    """Write the `preprocessor_config.json` that stock processors with videos read, if it is missing."""
    nested, flat = folder / "processor_config.json", folder / "preprocessor_config.json"
    if flat.is_file() or not nested.is_file():
        return
    content = json.loads(nested.read_bytes())
    image = content.get("image_processor")
    stock = processor_class_from_name(str(content.get("processor_class")))
    if isinstance(image, dict) and "video_processor" not in content and stock and takes_videos(stock):
        image = {**image, "processor_class": content["processor_class"]}
        flat.write_text(json.dumps(image, indent=2) + "\n", encoding="utf-8")


def _without_words(stock: Any) -> Any:
    """Return SmolVLM's processor class without what only videos need: num2words, frames per second."""

    class ImageOnly(stock):
        def __init__(
            self,
            image_processor: Any,
            tokenizer: Any,
            image_seq_len: int = 169,
            chat_template: str | None = None,
            **kwargs: Any,
        ) -> None:
            self.fake_image_token = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
            self.image_token = getattr(tokenizer, "image_token", "<image>")
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.end_of_utterance_token = getattr(tokenizer, "end_of_utterance_token", "<end_of_utterance>")
            self.global_image_token = getattr(tokenizer, "global_image_token", "<global-img>")
            self.image_seq_len = image_seq_len
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

        apply_chat_template = ProcessorMixin.apply_chat_template

    return ImageOnly
