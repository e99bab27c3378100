"""A policy that starts from a smaller one: known tokens keep their embedding, known inputs their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from saliency_r1.errors import SaliencyError

_READER = "model.adapter.names.head."
"""The weights of the reader of names, one row for each class; `fit_names.start_reader` starts them."""


@torch.no_grad()
def change_tokenizer(model: Any, old: Any, new: Any, seed: int = 0) -> None:
    """Give a policy another tokenizer's vocabulary, in place.

    A token of both keeps its row of the embedding, which is the head's too. A new token gets a random row of
    the same mean and spread. The mean of the pieces that it was spelled with would be nearly the same for all
    new tokens (a cosine of .95 was measured), and a policy could not repeat the one that it is told.

    Args:
        model: a `NanoForImageTextToText` of the old tokenizer.
        old, new: tokenizers of `nano.tokenizer.train_tokenizer`; special tokens have the same ids in both.
        seed: random seed of the new rows.
    """
    known = old.get_vocab()
    before = model.get_input_embeddings().weight.detach().clone()
    size = -(-len(new) // 8) * 8
    model.resize_token_embeddings(size, mean_resizing=False)
    after = model.get_input_embeddings().weight
    noise = torch.randn(after.shape, generator=torch.Generator().manual_seed(seed))
    after.copy_(before.mean(0) + before.std(0) * noise.to(before))
    for token, row in new.get_vocab().items():
        if token in known:
            after[row] = before[known[token]]


@torch.no_grad()
def take_columns(model: Any, folder: str | Path) -> None:
    """Take over the weights of a saved policy that have fewer columns than now, in place.

    A policy of an earlier version measured less of the salient region. What it did not measure starts with
    the weight zero.

    Args:
        model: a policy that was loaded from `folder`; weights of other sizes are not loaded yet.
        folder: a folder with `model.safetensors`.

    Raises:
        SaliencyError: if another size differs than the number of columns, or there are fewer now.
    """
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        return  # a policy of the hub, whose sizes are those of now
    now = dict(model.named_parameters())
    for name, before in load_file(path).items():
        if name not in now or now[name].shape == before.shape or name.startswith(_READER):
            continue
        rows, columns = before.shape[0], before.shape[-1]
        if before.ndim != 2 or now[name].shape[0] != rows or now[name].shape[1] < columns:
            raise SaliencyError(
                f"{path}: {name} is of the shape {tuple(before.shape)}, expected {tuple(now[name].shape)}"
            )
        now[name].zero_()
        now[name][:, :columns] = before.to(now[name].dtype)
