"""A policy that goes on with another tokenizer."""

from __future__ import annotations

from typing import Any

import torch

from saliency_r1.nano.configuration import NanoConfig
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.nano.tokenizer import train_tokenizer
from saliency_r1.training.fine_tuning.vocabulary import change_tokenizer

OLD = ["the dog stands out", "the cat lies on the left"] * 3
NEW = [*OLD, *["the second dog from the right"] * 3]


def policy(tokenizer: Any) -> NanoForImageTextToText:
    text = {
        "vocab_size": -(-len(tokenizer) // 8) * 8,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    torch.manual_seed(0)
    return NanoForImageTextToText(NanoConfig(text_config=text, adapter_layers=0)).eval()


@torch.inference_mode()
def test_known_words_mean_what_they_meant() -> None:
    old, new = train_tokenizer(OLD), train_tokenizer(NEW)
    assert len(new) > len(old)
    model = policy(old)
    text = "<answer><rg>the cat lies on the left</rg></answer>"
    ids = [tokenizer(text, return_tensors="pt")["input_ids"] for tokenizer in (old, new)]
    assert ids[0].tolist() != ids[1].tolist()
    tokens = [
        tokenizer.convert_ids_to_tokens(each[0]) for tokenizer, each in zip((old, new), ids, strict=True)
    ]
    assert tokens[0] == tokens[1]
    before = model(input_ids=ids[0]).logits[0]
    change_tokenizer(model, old, new)
    after = model(input_ids=ids[1]).logits[0]
    shared = sorted(old.get_vocab().keys() & new.get_vocab().keys())
    rows = [[tokenizer.get_vocab()[token] for token in shared] for tokenizer in (old, new)]
    assert len(shared) > 250
    torch.testing.assert_close(after[:, rows[1]], before[:, rows[0]])


@torch.inference_mode()
def test_new_words_are_told_apart_from_the_start() -> None:
    old, new = train_tokenizer(OLD), train_tokenizer(NEW)
    model = policy(old)
    before = model.get_input_embeddings().weight.clone()
    change_tokenizer(model, old, new)
    rows = [new(word, add_special_tokens=False)["input_ids"] for word in (" second", " right", " from")]
    assert all(len(row) == 1 for row in rows)
    first, *others = model.get_input_embeddings().weight[[row[0] for row in rows]]
    assert 0.5 < first.std() / before.std() < 2
    assert all(torch.cosine_similarity(first, other, dim=0) < 0.6 for other in others)
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert model.config.text_config.vocab_size == len(model.lm_head.weight) >= len(new)
