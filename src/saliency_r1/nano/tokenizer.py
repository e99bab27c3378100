"""The nano policy's tokenizer: byte-level BPE, trained on the texts that the policy reads and writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, START, END, IMAGE = "<|pad|>", "<|im_start|>", "<|im_end|>", "<image>"
SPECIAL = (PAD, START, END, IMAGE)
"""Special tokens, with the ids 0, 1, 2, 3; they vanish under `skip_special_tokens=True`."""

TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<rg>", "</rg>", "<ins>", "</ins>")


def other_tags(tag: str) -> list[str]:
    """Return the tags of expressions that an answer with this tag does not have.

    Example:
        >>> other_tags("rg")
        ['<ins>', '</ins>']
    """
    return [each for each in TAGS[4:] if each not in (f"<{tag}>", f"</{tag}>")]


"""The tags of a response, one token each and not special: they must reach the parser."""


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 3072, min_frequency: int = 2
) -> PreTrainedTokenizerFast:
    """Learn a tokenizer.

    Every text can be encoded and comes back as it was: what has no token of its own is spelt in bytes.

    Args:
        texts: what the policy reads and writes; the oftener a word, the sooner it is one token.
        vocab_size: tokens at most, special ones and tags included.
        min_frequency: how often a pair must occur to be merged.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        min_frequency=min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_tags(texts), trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        extra_special_tokens=[IMAGE],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _without_tags(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        for token in (*SPECIAL, *TAGS):
            text = text.replace(token, "\n")
        yield from filter(None, text.split("\n"))
