"""Run a nano policy with onnxruntime, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from saliency_r1.catalogue import ENDPOINT
from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.files import read_text
from saliency_r1.language.left_out import left_out_spans
from saliency_r1.language.name_claims import wrong_name_spans
from saliency_r1.language.read_name import rightly_named
from saliency_r1.nano import POLICY_FOLDER
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.nano.tokenizer import END, IMAGE, START, other_tags
from saliency_r1.policy.asking import Questions, ask
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.confidence import (
    confidence,
    expression_confidences,
    shortened,
    token_pieces,
    with_names,
)
from saliency_r1.policy.onnx.distinct import rewrite_repeats
from saliency_r1.policy.onnx.language import OnnxLanguage, Prompt
from saliency_r1.policy.options import PolicyOptions
from saliency_r1.policy.photo_size import check_max_pixels, shrink, workable
from saliency_r1.policy.prompts import Prompting
from saliency_r1.policy.repeats import first_repeat
from saliency_r1.runtime import NAMES, POLICY_GRAPHS, open_sessions, place_of
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from PIL import Image


class NanoTokenizer:
    """Convert text to tokens and back.

    Args:
        path: a file `tokenizer.json`.

    Attributes:
        tokens: the vocabulary in the order of its ids.
        special: ids of the tokens that texts do not show.

    Raises:
        SaliencyError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # it raises no class of its own
            raise SaliencyError(f"{path}: is no tokenizer ({one_line(error)})") from None
        size = self._tokenizer.get_vocab_size()
        self.tokens = [self._tokenizer.id_to_token(number) or "" for number in range(size)]
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = sorted(number for number, token in added.items() if token.special)

    def number(self, token: str) -> int:
        """Return the id of a token that must exist."""
        found: int | None = self._tokenizer.token_to_id(token)
        if found is None:
            raise SaliencyError(f"the tokenizer has no token {token}: it is not that of a nano policy")
        return found

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, in which special tokens may be spelled out."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(
        self,
        ids: Sequence[int],
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        """Return the text of token ids; spaces are never cleaned up."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text


class NamesOfImages:
    """Read names before the policy writes; see `saliency_r1.nano.name_reader`.

    Args:
        session: its graph.
        tree: the names to choose from.
        threshold: how probable a word must be to be handed on.
    """

    def __init__(self, session: InferenceSession, tree: NameTree, threshold: float) -> None:
        self._session = session
        self.tree, self.threshold = tree, threshold

    def read(self, logits: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read the names of the images of one question.

        Args:
            logits: float32 (images, slots, classes), an output of the vision graph.
            there: bool (images, slots), another one.

        Returns:
            The tokens that spell them, float32 (images, tokens, width), and the probability of each class,
            float32 (classes,).
        """
        spelled, classes = self._session.run(["spelled", "classes"], {"logits": logits, "there": there})
        return spelled, classes


class OnnxPolicy:
    """Write responses with a nano policy.

    Args:
        folder: folder of the policy with its graphs; None for the embedded one.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        zero_shot: whether the response format is explained to it.
        max_pixels: maximum number of pixels of a photo before it is resized to the square of the network.
        max_new_tokens: maximum length of a response; None for 192 tokens, or 512 if `zero_shot`.

    Raises:
        SaliencyError: if the folder holds none, or onnxruntime does not support the device.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        device: str = "auto",
        *,
        zero_shot: bool = False,
        max_pixels: int | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        where = Path(folder) if folder is not None else POLICY_FOLDER
        self.name = "nano" if folder is None else where.name
        self.device = place_of(device)
        self.zero_shot = zero_shot
        self.max_pixels = max_pixels if max_pixels is None else check_max_pixels(max_pixels)
        self.max_new_tokens = max_new_tokens
        self._tokenizer = NanoTokenizer(where / "tokenizer.json")
        self._image, self._end = self._tokenizer.number(IMAGE), self._tokenizer.number(END)
        tree, threshold = _names_of(where / "config.json")
        graphs = POLICY_GRAPHS if tree is None else (*POLICY_GRAPHS, NAMES)
        self._vision, language, *names = open_sessions([where / name for name in graphs], device)
        self._language = OnnxLanguage(language)
        self._names = None if tree is None else NamesOfImages(names[0], tree, threshold)
        self._side = int(self._vision.get_inputs()[0].shape[1])

    @classmethod
    def load(cls, source: str | Path | None, *, device: str, options: PolicyOptions) -> OnnxPolicy:
        """Load the policy of a name; see `saliency_r1.policy.load_policy`.

        Raises:
            SaliencyError: for an option that only a server has; else see the class.
        """
        if options.structured:
            raise SaliencyError(
                f"structured output is the work of a server, and {source or 'the nano policy'} runs here: "
                f"leave --structured out, or name an endpoint ({ENDPOINT}URL#MODEL)"
            )
        return cls(
            source,
            device,
            zero_shot=Prompting.parse(options.prompting) is Prompting.ZERO_SHOT,
            max_pixels=options.max_pixels,
            max_new_tokens=options.max_new_tokens,
        )

    def respond(
        self,
        batch: Questions,
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> list[PolicyOutput]:
        """Answer one question for each item of the batch; see `saliency_r1.policy.base.Policy`.

        Greedy. An answer of several expressions does not hold one twice, see `saliency_r1.policy.distinct`.
        """
        return ask(
            partial(self._write, task=Task.parse(task)),
            batch,
            task,
            zero_shot=self.zero_shot,
            reasoning=reasoning,
            max_new_tokens=max_new_tokens or self.max_new_tokens,
        )

    def _write(self, batch: Questions, question: str, limit: int, *, task: Task) -> list[PolicyOutput]:
        prompts, read, told = zip(*(self._prompt(images, question) for images in batch), strict=True)
        outputs = []
        never = [self._tokenizer.number(tag) for tag in other_tags(task.spec.tag)]
        texts = self._language.greedy(prompts, limit, self._end, never)
        for images, prompt, classes, evidence, written in zip(batch, prompts, read, told, texts, strict=True):
            output = self._output(*written)
            if self._names is not None and classes is not None:
                unnamed = partial(self._unnamed, images, question, limit, never)
                text = rightly_named(
                    output.text,
                    self._names.tree,
                    classes,
                    self._names.threshold,
                    unnamed if len(images) == 1 else None,
                )
                output = self._rewritten(output, prompt, text)
            if task is Task.SOD and evidence is not None:
                output = self._without(output, left_out_spans(output.text, evidence[0].tolist()))
            if task.spec.several_expressions and first_repeat(output.text):
                rewritten = rewrite_repeats(
                    self._language, self._tokenizer, prompt, output.token_ids, limit, self._end
                )
                output = output if rewritten is None else self._output(*rewritten)
            if task is Task.SIS:
                output = self._without(output, wrong_name_spans(output.text))
            if self._names is not None and classes is not None:
                output = with_names(output, self._names.tree, classes)
            outputs.append(output)
        return outputs

    def _unnamed(self, images: Sequence[Image.Image], question: str, limit: int, never: Sequence[int]) -> str:
        """Write a response without being told names."""
        prompt, *_ = self._prompt(images, question, unnamed=True)
        ((ids, _),) = self._language.greedy([prompt], limit, self._end, never)
        return self._tokenizer.decode(ids)

    def _rewritten(self, output: PolicyOutput, prompt: Prompt, text: str) -> PolicyOutput:
        """The output with another text."""
        if text == output.text:
            return output
        ids = self._tokenizer.encode(text) + [last for last in output.token_ids[-1:] if last == self._end]
        return self._output(ids, self._language.scores(prompt, ids))

    def _without(self, output: PolicyOutput, spans: Sequence[tuple[int, int]]) -> PolicyOutput:
        """The output without some parts of its text."""
        kept = shortened(output, spans, self._tokenizer)
        return output if kept is None else self._output(*kept)

    def _prompt(
        self, images: Sequence[Image.Image], question: str, unnamed: bool = False
    ) -> tuple[Prompt, np.ndarray | None, np.ndarray | None]:
        """Return a question for the language model, the probabilities of names, and the evidence.

        Args:
            images, question: what is asked.
            unnamed: whether the language model is told "object" in place of each name.
        """
        tokens, classes, evidence = self._image_tokens(images, unnamed)
        text = f"{START}user\n{IMAGE * len(images)}{question}{END}{START}assistant\n"
        ids: list[int] = []
        before = self._language.vocabulary
        for token in self._tokenizer.encode(text):
            if token == self._image:
                ids += range(before, before := before + tokens.shape[1])
            else:
                ids.append(token)
        return Prompt(ids, tokens.reshape(-1, tokens.shape[2])), classes, evidence

    def _image_tokens(
        self, images: Sequence[Image.Image], unnamed: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return the tokens of a question's images, float32 (images, tokens, width), classes and evidence."""
        size = (self._side, self._side)
        small = [np.asarray(self._seen(image).resize(size, 3)) for image in images]
        runs = [self._vision.run(None, {"pixels": pixels[None]}) for pixels in small]
        names = [output.name for output in self._vision.get_outputs()]
        parts = zip(names, zip(*runs, strict=True), strict=True)
        found = {name: np.concatenate(part) for name, part in parts}
        tokens, evidence = found["tokens"], found.get("evidence")
        if self._names is None:
            return tokens, None, evidence
        # Where all classes are equally probable no word is probable enough.
        logits = found["logits"] * np.float32(not unnamed)
        spelled, classes = self._names.read(logits, found["there"])
        return np.concatenate([tokens, spelled], axis=1), classes, evidence

    def _seen(self, image: Image.Image) -> Image.Image:
        """Return the photo that is resized to the square."""
        if self.max_pixels is None:
            return image
        return shrink(workable(image, self.max_pixels), self.max_pixels)

    def _output(self, ids: list[int], logprobs: list[float]) -> PolicyOutput:
        text = self._tokenizer.decode(ids)
        pieces = token_pieces(self._tokenizer, ids, text)
        return PolicyOutput(
            text, ids, logprobs, confidence(logprobs, pieces), expression_confidences(logprobs, pieces)
        )


def _names_of(path: Path) -> tuple[NameTree | None, float]:
    """Read the names that a policy chooses from, None if it reads none, and how probable one must be."""
    try:
        values = json.loads(read_text(path))
        tree = values.get("name_tree")
        return NameTree.from_dict(tree) if tree else None, float(values.get("name_threshold", 0.5))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SaliencyError(f"{path}: is no configuration of a nano policy ({one_line(error)})") from None
