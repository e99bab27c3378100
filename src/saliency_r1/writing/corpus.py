"""The texts that the tokenizer is learned from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saliency_r1.files import read_text
from saliency_r1.tasks import Task
from saliency_r1.writing.sft_set import read_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r" ?[A-Za-z]+")
_TAG = re.compile(r"<[^<>]*>")


def read_corpus(files: Iterable[str | Path]) -> Iterator[str]:
    """Every text of the files, and what every policy reads: the prompts of all tasks and the roles.

    Args:
        files: `.jsonl` of fine-tuning examples, of which prompts and responses are taken; others are UTF-8
            with a text a line.

    Raises:
        SaliencyError: if a file cannot be read.
    """
    always = [task.spec.prompt(reasoning=reasoning) for task in Task for reasoning in (True, False)]
    yield from ["user\nassistant", *always] * 2
    for file in map(Path, files):
        if file.suffix == ".jsonl":
            for example in read_examples(file):
                yield from (example.prompt, example.response)
            continue
        yield from read_text(file).splitlines()


def worded(names: Iterable[str], times: int = 20) -> list[str]:
    """Texts that hold each word of the names so often that it becomes one token, in lower case."""
    words = dict.fromkeys(word for name in names for word in name.split())
    return [f"the {word} is" for word in words for _ in range(times)]


def tokens_a_word(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Return the mean number of tokens of a word of the texts, without tags; 1 is the best."""
    words = Counter(word for text in texts for word in _WORD.findall(_TAG.sub("\n", text)))
    tokens = tokenizer(list(words), add_special_tokens=False)["input_ids"] if words else []
    spent = sum(count * len(ids) for count, ids in zip(words.values(), tokens, strict=True))
    return spent / max(1, words.total())
