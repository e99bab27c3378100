"""Run the language model of a nano policy with onnxruntime: prompts in, tokens and log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from saliency_r1.errors import SaliencyError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclass(frozen=True)
class Prompt:
    """A question in the form that the language model reads.

    Attributes:
        ids: token ids; row n of `images` has the size of the vocabulary plus n.
        images: tokens of its images, float32 (M, width).
    """

    ids: list[int]
    images: np.ndarray


@dataclass(frozen=True)
class Written:
    """Unfinished texts of B questions.

    Attributes:
        logprobs: log-probabilities of the next token, float32 (B, vocabulary).
        cache: keys and values of each layer, values of onnxruntime.
        kept: bool (B, T), False for padding.
    """

    logprobs: np.ndarray
    cache: list
    kept: np.ndarray


class OnnxLanguage:
    """A causal language model with its cache.

    Args:
        session: its graph.

    Attributes:
        vocabulary: number of tokens that it knows.

    Raises:
        SaliencyError: if the graph is one of an earlier version.
    """

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        if "wanted" not in {each.name for each in session.get_inputs()}:
            raise SaliencyError(
                "the graph of the language model was written by an earlier version: write it again with "
                "`saliency-r1 export --format onnx`"
            )
        outputs = self._session.get_outputs()
        self.vocabulary = int(outputs[0].shape[-1])
        self._outputs = [output.name for output in outputs]
        inputs = self._session.get_inputs()
        self._past = {each.name: each.shape for each in inputs if each.name.startswith("past.")}
        width = next(int(each.shape[1]) for each in inputs if each.name == "images")
        self._no_images = np.zeros((1, width), np.float32)

    def read(self, prompts: Sequence[Prompt], never: Sequence[int] = ()) -> Written:
        """Read prompts; shorter ones are padded on the left. The tokens `never` are not to be written."""
        logits, cache, kept = self._read(prompts, 1)
        return _written(logits, cache, kept, never)

    def step(self, written: Written, tokens: Sequence[int], never: Sequence[int] = ()) -> Written:
        """Append one token to each of the B texts; see `read`."""
        kept = np.concatenate([written.kept, np.ones((len(tokens), 1), bool)], axis=1)
        ids = np.array(tokens, np.int64)[:, None]
        logits, cache = self._run(ids, self._no_images, kept, written.cache, 1)
        return _written(logits, cache, kept, never)

    def chosen(self, written: Written, rows: Sequence[int]) -> Written:
        """Return the texts of these rows, which may repeat."""
        from onnxruntime import OrtValue

        cache = [OrtValue.ortvalue_from_numpy(part.numpy()[list(rows)]) for part in written.cache]
        return Written(written.logprobs[list(rows)], cache, written.kept[list(rows)])

    def greedy(
        self, prompts: Sequence[Prompt], limit: int, end: int, never: Sequence[int] = ()
    ) -> list[tuple[list[int], list[float]]]:
        """Write the most probable token until all texts have ended.

        Args:
            prompts: the questions.
            limit: maximum number of tokens of each text.
            end: id of the token that ends a text.
            never: ids of tokens that are not written.

        Returns:
            The token ids of each text, including the end, and their log-probabilities.
        """
        found: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]
        open_rows = set(range(len(prompts)))
        written = self.read(prompts, never)
        while True:
            logprobs = written.logprobs
            tokens = logprobs.argmax(1).tolist()
            for row in sorted(open_rows):
                found[row][0].append(tokens[row])
                found[row][1].append(float(logprobs[row, tokens[row]]))
                if tokens[row] == end or len(found[row][0]) >= limit:
                    open_rows.discard(row)
            if not open_rows:
                return found
            written = self.step(written, tokens, never)

    def scores(self, prompt: Prompt, ids: Sequence[int]) -> list[float]:
        """Return the log-probability of each token of a text after a prompt."""
        logits, _, _ = self._read([Prompt([*prompt.ids, *ids], prompt.images)], len(ids) + 1)
        logprobs = log_softmax(logits[0, :-1])
        found: list[float] = logprobs[np.arange(len(ids)), list(ids)].tolist()
        return found

    def _read(self, prompts: Sequence[Prompt], last: int) -> tuple[np.ndarray, list, np.ndarray]:
        length = max(len(prompt.ids) for prompt in prompts)
        ids = np.zeros((len(prompts), length), np.int64)
        kept = np.zeros((len(prompts), length), bool)
        before = 0
        for row, prompt in enumerate(prompts):
            own = np.array(prompt.ids, np.int64)
            own[own >= self.vocabulary] += before
            before += len(prompt.images)
            ids[row, length - len(own) :] = own
            kept[row, length - len(own) :] = True
        images = np.concatenate([prompt.images for prompt in prompts])
        return *self._run(ids, images, kept, None, last), kept

    def _run(
        self, ids: np.ndarray, images: np.ndarray, kept: np.ndarray, cache: list | None, last: int
    ) -> tuple[np.ndarray, list]:
        """Return the logits of the last of the new tokens, `ids`, (B, last, vocabulary), and the cache."""
        from onnxruntime import OrtValue

        whole, new = kept.shape[1], ids.shape[1]
        seen = kept[:, None]
        if new > 1:
            place = np.arange(whole)
            seen = seen & (place <= place[-new:, None])
        mask = np.where(seen, np.float32(0), np.finfo(np.float32).min)[:, None]
        positions = (kept.cumsum(1)[:, -new:] - 1).clip(0)
        wanted = np.arange(new - last, new)
        feed = {"ids": ids, "images": images, "mask": mask, "positions": positions, "wanted": wanted}
        values = {name: OrtValue.ortvalue_from_numpy(value) for name, value in feed.items()}
        if cache is None:
            cache = [
                OrtValue.ortvalue_from_numpy(np.zeros((len(ids), shape[1], 0, shape[3]), np.float32))
                for shape in self._past.values()
            ]
        values.update(zip(self._past, cache, strict=True))
        logits, *cache = self._session.run_with_ort_values(self._outputs, values)
        return logits.numpy(), cache


def _written(logits: np.ndarray, cache: list, kept: np.ndarray, never: Sequence[int]) -> Written:
    logits = logits[:, -1]
    if never:
        logits[:, list(never)] = -np.inf
    return Written(log_softmax(logits), cache, kept)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities over the last axis, float32."""
    shifted = logits - logits.max(-1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
