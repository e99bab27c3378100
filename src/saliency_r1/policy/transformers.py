"""A policy from transformers: any image-text-to-text model with its processor, the nano policy among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from saliency_r1 import nano
from saliency_r1.device import choose_device
from saliency_r1.errors import SaliencyError
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.confidence import confidence, expression_confidences, token_pieces
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

MAX_NEW_TOKENS = 192


class TransformersPolicy:
    """Writes responses with an image-text-to-text model of transformers.

    Args:
        model: it and the processor must fit together, as `AutoModelForImageTextToText` and `AutoProcessor` of
            one checkpoint do.
        processor: with a chat template that takes images.
        name: how results call it.
    """

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.processor.tokenizer.padding_side = "left"

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> TransformersPolicy:
        """Load a policy.

        Args:
            source: a folder or a name on the Hugging Face hub; None for the embedded nano policy. Only
                safetensors weights are read, and no code of the checkpoint is run.
            device: `auto`, `cpu`, `cuda`, `mps`.
            dtype: of the weights in memory; None for float32 on the CPU and for the checkpoint's own
                elsewhere.

        Raises:
            SaliencyError: if there is no such policy, or it cannot be read.
        """
        nano.register()
        place = choose_device(device)
        if source is None and not (nano.POLICY_FOLDER / "config.json").is_file():
            raise SaliencyError(
                f"this installation has no nano policy in {nano.POLICY_FOLDER}: install saliency-r1 "
                "again, or name a policy of your own"
            )
        where = str(source or nano.POLICY_FOLDER)
        wanted = dtype or (torch.float32 if place.type == "cpu" else "auto")
        try:
            processor = AutoProcessor.from_pretrained(where, trust_remote_code=False)
            model: Any = AutoModelForImageTextToText.from_pretrained(
                where, dtype=wanted, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise SaliencyError(f"no policy could be loaded from {where!r}: {reason}") from None
        if not hasattr(processor, "image_processor"):
            raise SaliencyError(f"{where!r} has no processor for images: choose an image-text-to-text model")
        name = "nano" if source is None else Path(where).name if Path(where).exists() else where
        return cls(model.to(place), processor, name)

    def respond(
        self,
        batch: Sequence[Sequence[Image.Image]],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
    ) -> list[PolicyOutput]:
        """Answer one question for each item of the batch; see `saliency_r1.policy.base.Policy`.

        Greedy, unless `do_sample`; then from the whole distribution at `temperature`, and the
        log-probabilities are those of that distribution.
        """
        if not batch:
            return []
        inputs = self._inputs(batch, Task.parse(task).spec.prompt(reasoning=reasoning))
        settings = self._settings(max_new_tokens or MAX_NEW_TOKENS, do_sample, temperature)
        with torch.inference_mode():
            output = self.model.generate(**inputs, generation_config=settings)
            length = inputs["input_ids"].shape[1]
            tokens = output.sequences[:, length:]
            scores = torch.stack(output.scores, dim=1).float()
            logprobs = scores.gather(2, tokens[..., None])[..., 0] - scores.logsumexp(2)
        return [
            self._output(ids, values) for ids, values in zip(tokens.tolist(), logprobs.tolist(), strict=True)
        ]

    def _inputs(self, batch: Sequence[Sequence[Image.Image]], prompt: str) -> Any:
        conversations = []
        for images in batch:
            if not images:
                raise SaliencyError("a question without an image: give at least one")
            content = [*({"type": "image"} for _ in images), {"type": "text", "text": prompt}]
            conversations.append([{"role": "user", "content": content}])
        texts = self.processor.apply_chat_template(conversations, add_generation_prompt=True)
        inputs = self.processor(
            images=[list(images) for images in batch], text=texts, padding=True, return_tensors="pt"
        )
        return inputs.to(self.model.device)

    def _settings(self, max_new_tokens: int, do_sample: bool, temperature: float) -> GenerationConfig:
        own = self.model.generation_config
        tokenizer = self.processor.tokenizer
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            return_dict_in_generate=True,
            output_scores=True,
            eos_token_id=own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id
            if tokenizer.pad_token_id is not None
            else tokenizer.eos_token_id,
        )
        if do_sample:
            settings.temperature, settings.top_k, settings.top_p = temperature, 0, 1.0
        return settings

    def _output(self, ids: list[int], logprobs: list[float]) -> PolicyOutput:
        """One response, cut behind its first end token."""
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
