"""A policy that goes on with a larger vocabulary: known tokens keep their embedding."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def change_tokenizer(model: Any, old: Any, new: Any) -> None:
    """Give a policy another tokenizer's vocabulary, in place.

    A token of both keeps its row of the embedding, which is the head's too. A new token gets the mean of
    those that the old tokenizer spells it with.

    Args:
        model: a `NanoForImageTextToText` of the old tokenizer.
        old, new: tokenizers of `nano.tokenizer.train_tokenizer`; special tokens have the same ids in both.
    """
    known = old.get_vocab()
    before = model.get_input_embeddings().weight.detach().clone()
    size = -(-len(new) // 8) * 8
    model.resize_token_embeddings(size, mean_resizing=False)
    after = model.get_input_embeddings().weight
    for token, row in new.get_vocab().items():
        if token in known:
            after[row] = before[known[token]]
        else:
            pieces = old(new.decode([row]), add_special_tokens=False)["input_ids"]
            after[row] = before[pieces].mean(0)
    after[len(new) :] = before.mean(0)
