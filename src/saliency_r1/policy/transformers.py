"""A policy from transformers: any image-text-to-text model with its processor, including the nano policy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import is_accelerate_available, is_flash_attn_2_available

from saliency_r1 import nano
from saliency_r1.catalogue import ENDPOINT
from saliency_r1.checkpoint import DTYPES, check_dtype
from saliency_r1.device import choose_device
from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.language.left_out import left_out_spans
from saliency_r1.language.name_claims import wrong_name_spans
from saliency_r1.language.read_name import rightly_named
from saliency_r1.nano.configuration import MODEL_TYPE
from saliency_r1.nano.name_reader import EMPTY
from saliency_r1.nano.tokenizer import other_tags
from saliency_r1.policy.asking import Questions, ask
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.checkpoint_check import check_checkpoint, reachable
from saliency_r1.policy.confidence import (
    confidence,
    expression_confidences,
    shortened,
    token_pieces,
    with_names,
)
from saliency_r1.policy.distinct import rewrite_repeats, token_logprobs
from saliency_r1.policy.options import PolicyOptions
from saliency_r1.policy.photo_size import MAX_PIXELS, check_max_pixels, limit_processor, shrink, workable
from saliency_r1.policy.processors import load_processor
from saliency_r1.policy.prompts import Prompting, is_fine_tuned
from saliency_r1.policy.repeats import first_repeat
from saliency_r1.policy.thinking import fit_thinking
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

_LONGEST_REASON = 400


class TransformersPolicy:
    """Write responses with an image-text-to-text model of transformers.

    Args:
        model: the model; it must fit the processor, as `AutoModelForImageTextToText` and `AutoProcessor` of
            one checkpoint do.
        processor: a processor with a chat template that accepts images.
        name: its name in results.
        zero_shot: whether the response format must be explained to it, see `saliency_r1.policy.asking`.
        max_pixels: maximum pixels of a photo, see `saliency_r1.policy.photo_size`; None passes
            the photos to the processor unchanged.
        max_new_tokens: maximum tokens of a response; None for 192 tokens, or 512 if `zero_shot`.

    Attributes:
        sharded: whether the weights are sharded over processes, which then generate together and equally
            often; instances that are named twice are then kept.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        *,
        zero_shot: bool = False,
        max_pixels: int | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.zero_shot = zero_shot
        self.max_pixels = max_pixels
        self.max_new_tokens = max_new_tokens
        self.sharded = False
        self.processor.tokenizer.padding_side = "left"
        self._limits_itself = max_pixels is not None and limit_processor(
            processor.image_processor, check_max_pixels(max_pixels)
        )

    @classmethod
    def load(cls, source: str | Path | None, *, device: str, options: PolicyOptions) -> TransformersPolicy:
        """Load the policy with a name; see `saliency_r1.policy.load_policy`.

        Raises:
            SaliencyError: if an option is only for servers; otherwise see `from_pretrained`.
        """
        if options.structured:
            raise SaliencyError(
                f"structured output is the work of a server, and {source or 'the nano policy'} runs here: "
                f"leave --structured out, or name an endpoint ({ENDPOINT}URL#MODEL)"
            )
        kept = options.only("dtype", "device_map", "revision", "max_pixels", "prompting", "max_new_tokens")
        return cls.from_pretrained(source, device=device, **kept)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
        device_map: str | None = None,
        revision: str | None = None,
        max_pixels: int | None = None,
        prompting: Prompting | str = Prompting.AUTO,
        max_new_tokens: int | None = None,
        attn_implementation: str = "auto",
    ) -> TransformersPolicy:
        """Load a policy.

        Args:
            source: a folder or a name on the Hugging Face hub; None for the embedded nano policy. Only
                safetensors weights are read, and no code of the checkpoint is run.
            device: `auto`, `cpu`, `cuda`, `mps`.
            dtype: type of the weights in memory, `float32`, `bfloat16`, `float16` or `auto` for the
                checkpoint's type; None for float32 on the CPU and `auto` elsewhere.
            device_map: how accelerate spreads the model, `auto` over all GPUs; replaces `device`.
            revision: branch, tag or commit on the hub.
            max_pixels: maximum pixels of a photo; None for 1,003,520, or for whole photos with the
                nano policy, which reduces them to 256x256.
            prompting: see `Prompting`.
            max_new_tokens: see the class.
            attn_implementation: kind of attention: `sdpa`, `eager`, `flash_attention_2`, or `auto` for
                FlashAttention 2 if package, GPU and model support it, otherwise transformers' choice.

        Raises:
            SaliencyError: if there is no such policy, or it cannot be read.
        """
        nano.register()
        place = choose_device(device)
        prompting = Prompting.parse(prompting)
        wanted = _dtype(dtype, "float32" if place.type == "cpu" and device_map is None else "auto")
        if device_map is not None and not is_accelerate_available():
            raise SaliencyError("a device map needs accelerate: pip install 'saliency-r1[large]'")
        if source is None and not (nano.POLICY_FOLDER / "config.json").is_file():
            raise SaliencyError(
                f"this installation has no nano policy in {nano.POLICY_FOLDER}: install saliency-r1 "
                "again, or name a policy of your own"
            )
        where = str(source or nano.POLICY_FOLDER)
        # Otherwise transformers asks a service of the hub to convert weights that are not safetensors.
        os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
        placed: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
        where, config, processor, model, report = _loaded(
            where, revision, dtype=wanted, attention=(attn_implementation, place), **placed
        )
        _check_parts(where, processor, report)
        fit_thinking(processor, where)
        ours = is_fine_tuned(config)
        if max_pixels is None and config.model_type != MODEL_TYPE:
            max_pixels = MAX_PIXELS
        return cls(
            model if device_map is not None else model.to(place),
            processor,
            "nano" if source is None else Path(source).name if Path(source).exists() else str(source),
            zero_shot=prompting is Prompting.ZERO_SHOT or (prompting is Prompting.AUTO and not ours),
            max_pixels=max_pixels,
            max_new_tokens=max_new_tokens,
        )

    @property
    def device(self) -> torch.device:
        """The model's device; with a device map, that of its first layer."""
        device: torch.device = self.model.device
        return device

    def respond(
        self,
        batch: Questions,
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
    ) -> list[PolicyOutput]:
        """Answer one question for each item of the batch; see `saliency_r1.policy.base.Policy`.

        Decoding is greedy. With `do_sample` it samples from the whole distribution at `temperature`, and the
        log-probabilities are those of that distribution. A greedy answer never has an expression twice, see
        `saliency_r1.policy.distinct`, and one of the nano policy never has the tags of another task.
        """
        spec = Task.parse(task).spec
        distinct = spec.several_expressions and not do_sample and not self.sharded
        never: list[int] = []
        checked = False
        if self.model.config.model_type == MODEL_TYPE and not do_sample:
            never = self.processor.tokenizer.convert_tokens_to_ids(other_tags(spec.tag))
            checked = reasoning
        write = partial(
            self._write,
            do_sample=do_sample,
            temperature=temperature,
            distinct=distinct,
            never=never,
            checked=Task.parse(task) if checked else None,
        )
        return ask(
            write,
            batch,
            task,
            zero_shot=self.zero_shot,
            reasoning=reasoning,
            max_new_tokens=max_new_tokens or self.max_new_tokens,
        )

    def _write(
        self,
        batch: Questions,
        prompt: str,
        max_new_tokens: int,
        *,
        do_sample: bool,
        temperature: float,
        distinct: bool,
        never: Sequence[int] = (),
        checked: Task | None = None,
    ) -> list[PolicyOutput]:
        inputs, classes = self._with_names(self._inputs(batch, prompt), batch)
        settings = self._settings(max_new_tokens, do_sample, temperature)
        settings.suppress_tokens = list(never) or None
        chosen = _ChosenLogprobs(temperature if do_sample else 1.0)
        # Weights that are gathered in inference mode could not be trained.
        with torch.no_grad() if self.sharded else torch.inference_mode():
            sequences = self.model.generate(
                **inputs, generation_config=settings, logits_processor=LogitsProcessorList([chosen])
            )
            tokens = sequences[:, inputs["input_ids"].shape[1] :]
            logprobs = chosen.of(tokens)
        outputs = [
            self._output(ids, values) for ids, values in zip(tokens.tolist(), logprobs.tolist(), strict=True)
        ]
        if classes is not None and not do_sample:
            tree, threshold = self.model.model.adapter.names.tree, self.model.config.name_threshold
            for row, each in enumerate(classes):
                unnamed = partial(self._unnamed, [batch[row]], prompt, settings)
                single = len(batch[row]) == 1
                text = rightly_named(outputs[row].text, tree, each, threshold, unnamed if single else None)
                outputs[row] = self._rewritten(outputs[row], [batch[row]], prompt, text)
        for row, evidence in enumerate(self._evidence(inputs) if checked is Task.SOD else ()):
            outputs[row] = self._without(outputs[row], left_out_spans(outputs[row].text, evidence))
        for row, output in enumerate(outputs):
            if distinct and first_repeat(output.text):
                with torch.inference_mode():
                    rewritten = rewrite_repeats(
                        self.model,
                        self.processor.tokenizer,
                        self._inputs([batch[row]], prompt),
                        output.token_ids,
                        settings,
                    )
                if rewritten is not None:
                    outputs[row] = self._output(*rewritten)
            if checked is Task.SIS:
                outputs[row] = self._without(outputs[row], wrong_name_spans(outputs[row].text))
        if classes is None:
            return outputs
        tree = self.model.model.adapter.names.tree
        return [with_names(output, tree, each) for output, each in zip(outputs, classes, strict=True)]

    def _unnamed(self, question: Questions, prompt: str, settings: GenerationConfig) -> str:
        """Write a response without being told names."""
        inputs, _ = self._with_names(self._inputs(question, prompt), question)
        adapter = self.model.model.adapter
        with torch.inference_mode():
            _, (_, there) = adapter(inputs["image_features"])
            told = torch.where(there, adapter.names.unnamed, EMPTY)
            sequences = self.model.generate(**inputs, image_names=told, generation_config=settings)
        return self._decode(sequences[0, inputs["input_ids"].shape[1] :].tolist())

    def _rewritten(self, output: PolicyOutput, question: Questions, prompt: str, text: str) -> PolicyOutput:
        """The output with another text."""
        if text == output.text:
            return output
        ids = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += [last for last in output.token_ids[-1:] if last in self._ends()]
        with torch.inference_mode():
            return self._output(ids, token_logprobs(self.model, self._inputs(question, prompt), ids))

    def _without(self, output: PolicyOutput, spans: Sequence[tuple[int, int]]) -> PolicyOutput:
        """The output without some parts of its text."""
        kept = shortened(output, spans, self.processor.tokenizer)
        return output if kept is None else self._output(*kept)

    def _with_names(self, inputs: Any, batch: Questions) -> tuple[Any, np.ndarray | None]:
        """The inputs, and the probability of each class of names for each question.

        A model with a reader of names gets features in place of pixels; without one nothing changes.
        """
        reader = getattr(getattr(self.model, "model", None), "read_names", None)
        if reader is None or self.model.config.name_tree is None:
            return inputs, None
        with torch.inference_mode():
            pixels = inputs.pop("pixel_values")
            # One at a time on a CPU, which is no slower and makes the last digits independent of the batch.
            parts = pixels.split(1 if pixels.device.type == "cpu" else len(pixels))
            features = torch.cat([self.model.model.encode_images(part) for part in parts])
            counts = torch.tensor([len(images) for images in batch], device=features.device)
            classes = reader(features, counts).softmax(-1)
        return {**inputs, "image_features": features}, classes.cpu().numpy()

    def _evidence(self, inputs: Any) -> list[list[float]]:
        """Return how clearly each statement is borne out, for each image; nothing if that is not measured."""
        model, features = self.model.model, inputs.get("image_features")
        with torch.inference_mode():
            if features is None:
                features = torch.cat([model.encode_images(each) for each in inputs["pixel_values"].split(1)])
            found = model.adapter.evidence(features)
        return [] if found is None else found.tolist()

    def _inputs(self, batch: Questions, prompt: str) -> Any:
        conversations = []
        for images in batch:
            content = [*({"type": "image"} for _ in images), {"type": "text", "text": prompt}]
            conversations.append([{"role": "user", "content": content}])
        texts = self.processor.apply_chat_template(conversations, add_generation_prompt=True)
        inputs = self.processor(
            images=[[self.seen(image) for image in images] for images in batch],
            text=texts,
            padding=True,
            return_tensors="pt",
        )
        return inputs.to(self.model.device)

    def seen(self, image: Image.Image) -> Image.Image:
        """Return the photo in the form that the processor gets, in prediction and in training alike.

        Args:
            image: mode RGB.

        Returns:
            A photo of a shape that processors take, within `max_pixels`; the same photo if that is None.
        """
        if self.max_pixels is None:
            return image
        image = workable(image, self.max_pixels)
        return image if self._limits_itself else shrink(image, self.max_pixels)

    def _settings(self, max_new_tokens: int, do_sample: bool, temperature: float) -> GenerationConfig:
        own = self.model.generation_config
        tokenizer = self.processor.tokenizer
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            # Settings that are missing here would come from the checkpoint (Qwen2.5-VL's penalty is 1.05).
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            eos_token_id=own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id
            if tokenizer.pad_token_id is not None
            else tokenizer.eos_token_id,
        )
        if do_sample:
            settings.temperature, settings.top_k, settings.top_p = temperature, 0, 1.0
        return settings

    def _output(self, ids: list[int], logprobs: list[float]) -> PolicyOutput:
        """Return one response, cut after its first end token."""
        ends = self._ends()
        length = next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))
        ids, logprobs = ids[:length], logprobs[:length]
        text = self._decode(ids)
        pieces = token_pieces(self.processor.tokenizer, ids, text)
        return PolicyOutput(
            text, ids, logprobs, confidence(logprobs, pieces), expression_confidences(logprobs, pieces)
        )

    def _ends(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        ends = self.processor.tokenizer.eos_token_id if ends is None else ends
        return set(ends) if isinstance(ends, list) else {ends}

    def _decode(self, ids: list[int]) -> str:
        return self.processor.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


class _ChosenLogprobs(LogitsProcessor):
    """Keeps the log-probability of each token as it is chosen.

    This needs one number for each token; the scores of a large vocabulary would need hundreds of kilobytes.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._distribution: Tensor | None = None
        self._chosen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._take(input_ids[:, -1])
        self._distribution = (scores.float() / self._temperature).log_softmax(-1)
        return scores

    def of(self, tokens: Tensor) -> Tensor:
        """Return the log-probabilities of all generated tokens, float32 (B, T)."""
        self._take(tokens[:, -1])
        return torch.stack(self._chosen, dim=1)

    def _take(self, tokens: Tensor) -> None:
        if self._distribution is not None:
            self._chosen.append(self._distribution.gather(1, tokens[:, None])[:, 0])


def _dtype(wanted: torch.dtype | str | None, default: str) -> torch.dtype | str:
    """Return the dtype in the form that `from_pretrained` takes."""
    if isinstance(wanted, torch.dtype):
        return wanted
    name = wanted or default
    check_dtype(name)
    return DTYPES.get(name, "auto")


def _attention(wanted: str, config: Any, place: torch.device) -> dict[str, str]:
    """Return the kind of attention in the form that `from_pretrained` takes."""
    if wanted != "auto":
        return {"attn_implementation": wanted}
    kind = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    fast = (
        place.type == "cuda" and is_flash_attn_2_available() and getattr(kind, "_supports_flash_attn", False)
    )
    return {"attn_implementation": "flash_attention_2"} if fast else {}


def _check_kind(where: str, config: Any) -> None:
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise SaliencyError(
            f"no policy could be loaded from {where!r}: transformers has no image-text-to-text model of type "
            f"{config.model_type!r}; choose one that takes images and writes text"
        )


def _loaded(
    where: str, revision: str | None, *, attention: tuple[str, torch.device], **placed: Any
) -> tuple[str, Any, Any, Any, dict[str, Any]]:
    """A checkpoint's place, configuration, processor and model, and the report of loading.

    Raises:
        SaliencyError: if the checkpoint has a fault.
    """
    try:
        where = reachable(where, revision)
        check_checkpoint(where, revision)
        config = AutoConfig.from_pretrained(where, revision=revision, trust_remote_code=False)
        _check_kind(where, config)
        processor = load_processor(where, config, revision)
        implementation, place = attention
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            where,
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **placed,
            **_attention(implementation, config, place),
        )
        return where, config, processor, *loaded
    except SaliencyError:
        raise
    except Exception as error:  # many libraries raise errors for a broken checkpoint
        reason = one_line(error)
        reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…"
        if "ignore_mismatched_sizes" in reason:
            reason = (
                "its weights have other sizes than this version expects, so another version made it; "
                "use that version, or fine-tune it further with this one (`saliency-r1 train sft`, start=...)"
            )
        raise SaliencyError(f"no policy could be loaded from {where!r}: {reason}") from error


def _check_parts(where: str, processor: Any, report: dict[str, Any]) -> None:
    """Refuse what transformers accepts: a tokenizer instead of a processor, randomly initialised weights."""
    lacks = None
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        lacks = "a processor for images and text"
    elif missing := sorted(report["missing_keys"]):
        lacks = f"{len(missing)} of the model's tensors ({missing[0]}, …)"
    elif not processor.chat_template:
        processor.chat_template = getattr(processor.tokenizer, "chat_template", None)
        lacks = None if processor.chat_template else "a chat template (chat_template.jinja)"
    if lacks:
        raise SaliencyError(f"no policy could be loaded from {where!r}: it lacks {lacks}")
