"""EVF-SAM as a segmenter: a referring model of 1.3 billion parameters, from its published weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from saliency_r1.checkpoint import (
    DTYPES,
    check_dtype,
    read_json,
    refuse_code,
    shown_name,
    weight_files,
    weights_folder,
)
from saliency_r1.device import choose_device, moved
from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.base import Flags
from saliency_r1.segmenters.batched import BatchedSegmenter, Rows, encode_by_shape, rows, rows_of, tokenized
from saliency_r1.segmenters.evf_sam.beit3 import BASE, FIRST_POSITION, LARGE
from saliency_r1.segmenters.evf_sam.model import HUGE, EvfSam, evf_sam_from_state_dict
from saliency_r1.segmenters.photo_reading import Reading

SEMANTIC = "[semantic] "
"""The prefix of the multitask weights before a text that means several objects, a part or background."""

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
BEIT3_SCALES = {"base": BASE, "large": LARGE}
SAM_SCALES = {"huge": HUGE}


@dataclass(frozen=True)
class EncodedPhoto:
    """An image in EVF-SAM's encoding.

    Attributes:
        image_embedding: (1, C, h, w) from SAM's image encoder.
        photo: (1, P, D), BEiT-3's embedding of the photo. Its layers mix photo and text, and cannot be kept.
        resized: height and width of the photo inside SAM's square.
        original: height and width of the photo.
    """

    image_embedding: torch.Tensor
    photo: torch.Tensor
    resized: tuple[int, int]
    original: tuple[int, int]


class EvfSamSegmenter(BatchedSegmenter):
    """Find what an expression names with EVF-SAM (arXiv:2406.20076).

    SAM's image encoder, which is most of the work, runs once for an image. Expressions run together with
    masked padding, so that each gives the same as alone. The network draws a mask for every expression,
    because it was not trained on expressions that name nothing.

    Args:
        model: the network.
        tokenizer: converts texts to ids of `model`'s vocabulary, with a start and an end token.
        device: where it runs, in the type of its weights.
        semantic: which expressions get the prefix `[semantic] `: `off` for none, as in the original's demo
            for one object; `on` for all; `auto` for regions (`<rg>`), which may be several objects, but not
            for instances (`<ins>`). Only multitask weights know it.
        name: its name in results.

    Example:
        >>> segmenter = EvfSamSegmenter.from_pretrained("YxZhang/evf-sam-multitask")  # doctest: +SKIP
        >>> encoded = segmenter.encode(image)  # doctest: +SKIP
        >>> segmenter.segment(encoded, ["the dog", "the left ball"]).probabilities.shape  # doctest: +SKIP
        (2, 300, 400)
    """

    def __init__(
        self,
        model: EvfSam,
        tokenizer: Any,
        device: str = "auto",
        *,
        semantic: str = "off",
        name: str = "evf-sam",
    ) -> None:
        self.device = choose_device(device)
        self.model = model.to(self.device)
        self.tokenizer = tokenizer
        self.semantic = semantic
        self.name = name
        rows = model.beit3.sizes.vocab_size
        if len(tokenizer) > rows:
            raise SaliencyError(
                f"a tokenizer of {len(tokenizer)} entries for an EVF-SAM of {rows}: give these weights' own"
            )

    @classmethod
    def from_pretrained(
        cls, source: str, device: str = "auto", dtype: str = "auto", *, semantic: str = "off"
    ) -> EvfSamSegmenter:
        """Load weights in the layout of `YxZhang/evf-sam-multitask` and `YxZhang/evf-sam`.

        Args:
            source: a folder with `config.json`, `model.safetensors` (or its parts and their index) and the
                tokenizer (`sentencepiece.bpe.model` or `tokenizer.json`), or the name of such a repository on
                the hub, with `@REVISION` if necessary. The configuration names published sizes
                (`mm_extractor_scale`, `sam_scale`), or gives any sizes as the mappings `beit3` and `sam` that
                `evf_sam_from_state_dict` takes.
            device: `auto`, `cpu`, `cuda`, `mps`.
            dtype: type of the weights in memory: `float32`, `bfloat16`, `float16`; `auto` is float32 on
                the CPU and the stored type elsewhere.
            semantic: see the class.

        Raises:
            SaliencyError: if there are no such weights, if they are pickled, of another model or need their
                own code, or if the machine has no such device.
        """
        place = choose_device(device)
        check_dtype(dtype)
        folder = weights_folder(source, "EVF-SAM")
        refuse_code(folder)
        sizes = _sizes(folder)
        state = _tensors(folder)
        # A few tensors may be stored in another type than the rest.
        stored = Counter(tensor.dtype for tensor in state.values()).most_common(1)
        on_gpu = stored[0][0] if stored else None
        wanted = DTYPES.get(dtype, torch.float32 if place.type == "cpu" else on_gpu)
        model = evf_sam_from_state_dict(state, sizes, wanted)
        return cls(model, _tokenizer(folder), str(place), semantic=semantic, name=shown_name(source))

    def image_encoders(self) -> list[torch.nn.Module]:
        """See `BatchedSegmenter.image_encoders`."""
        return [self.model.sam.vision_encoder]

    @torch.inference_mode()
    def encode_many(self, images: Sequence[Image.Image]) -> list[EncodedPhoto]:
        """Encode images (mode RGB, any sizes) once."""
        read = [sam_pixels(image, self.model.sam_sizes.image_size) for image in images]

        def encode(indices: list[int], large: torch.Tensor) -> Iterator[EncodedPhoto]:
            small = torch.cat(
                [beit3_pixels(images[index], self.model.beit3.sizes.img_size) for index in indices]
            )
            embeddings, photos = (
                rows(encoder(moved(pixels, self.device, self.model.sam.dtype)))
                for encoder, pixels in (
                    (self.model.sam.get_image_embeddings, large),
                    (self.model.beit3.embed_photo, small),
                )
            )
            for index, embedding, photo in zip(indices, embeddings, photos, strict=True):
                size = images[index].height, images[index].width
                yield EncodedPhoto(embedding, photo, read[index][1], size)

        return encode_by_shape([pixels for pixels, _ in read], encode)

    def find_rows(self, photos: Sequence[EncodedPhoto], texts: Sequence[str], instances: Flags) -> Rows:
        """Return the mask of each expression, and the IoU that SAM's decoder expects.

        EVF-SAM's training has no loss on the expected IoU. It is SAM's own, for masks that the training has
        changed. Texts are cut at the model's limit of 1022 tokens. Whether a text names a single object only
        decides its prefix, see `semantic` of the class: the model itself has no instances.
        """
        texts = [self._prefix(single) + text for single, text in zip(instances, texts, strict=True)]
        longest = self.model.beit3.sizes.max_source_positions - FIRST_POSITION
        tokens = tokenized(self.tokenizer, texts, longest).to(self.device)
        seen = rows_of([photo.photo for photo in photos])
        cls = self.model.fuse(seen, tokens["input_ids"], tokens["attention_mask"])
        embeddings = rows_of([photo.image_embedding for photo in photos])
        logits, iou = self.model.decode(embeddings, self.model.projector(cls))
        return logits, iou[:, 0].float().clamp(0, 1)

    def size_of(self, encoded: EncodedPhoto) -> tuple[int, int]:
        """See `BatchedSegmenter.size_of`."""
        return encoded.original

    def resized(self, logits: torch.Tensor, encoded: EncodedPhoto, size: tuple[int, int]) -> torch.Tensor:
        """See `BatchedSegmenter.resized`."""
        return self.model.upscale(logits, encoded.resized, size).sigmoid_()

    def _prefix(self, instances: bool) -> str:
        """Return the prefix of an expression that names one object, or a region."""
        return SEMANTIC if self.semantic == "on" or (self.semantic == "auto" and not instances) else ""


def sam_pixels(image: Image.Image, side: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Preprocess an image (mode RGB) for SAM: the longer side becomes `side`, the rest of the square zero.

    Returns:
        float32 (1, 3, side, side), normalised, padded on the right and at the bottom; height and width of the
        image inside it.
    """
    mean, std = (tuple(value / 255 for value in channels) for channels in (PIXEL_MEAN, PIXEL_STD))
    pixels = Reading({"longest_edge": side}, mean, std)(image)
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, side - width, 0, side - height)), (height, width)


def beit3_pixels(image: Image.Image, side: int) -> torch.Tensor:
    """Preprocess an image (mode RGB) for BEiT-3: resize it to a square.

    The method is bicubic without anti-aliasing, as in torchvision 0.15, with which the published weights
    were trained. Values may be slightly outside [-1, 1].

    Returns:
        float32 (1, 3, side, side), about [-1, 1].
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    return (F.interpolate(pixels, (side, side), mode="bicubic", align_corners=False) - 0.5) / 0.5


def _sizes(folder: Path) -> Mapping[str, Any]:
    config = read_json(folder / "config.json", "EVF-SAM")
    if "beit3" in config and "sam" in config:
        return config
    sizes = {}
    for part, key, scales in (
        ("beit3", "mm_extractor_scale", BEIT3_SCALES),
        ("sam", "sam_scale", SAM_SCALES),
    ):
        if config.get(key) not in scales:
            raise SaliencyError(
                f"{folder / 'config.json'} has {key} {config.get(key)!r}: EVF-SAM on SAM (not SAM 2, not "
                f"EfficientSAM) has {' or '.join(scales)}"
            )
        sizes[part] = asdict(scales[config[key]])
    return sizes


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        try:
            tensors |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise SaliencyError(f"{file} cannot be read: {error}") from None
    return tensors


def _tokenizer(folder: Path) -> Any:
    from transformers import XLMRobertaTokenizer

    if not (folder / "tokenizer.json").is_file():
        if not (folder / "sentencepiece.bpe.model").is_file():
            raise SaliencyError(
                f"{folder} has no tokenizer: add its sentencepiece.bpe.model or tokenizer.json"
            )
        absent = [name for name in ("sentencepiece", "google.protobuf") if not _importable(name)]
        if absent:
            raise SaliencyError(
                f"{folder / 'sentencepiece.bpe.model'} needs {' and '.join(absent)}: pip install "
                "'saliency-r1[evf-sam]'"
            )
    return XLMRobertaTokenizer.from_pretrained(str(folder), local_files_only=True)


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
