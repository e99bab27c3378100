"""The nano policy's reader of names: of the salient region, of each instance and of a group.

The features that ImageNet's classifier reads are averaged under a region and read out over the classes of a
`NameTree` by one linear layer. A word is as probable as the classes below it together, and the word that is
handed on is the narrowest one that is probable enough ("Hedging your bets", Deng et al., CVPR 2012: there the
expected reward is maximised, here a threshold is kept). It enters the language model as the tokens that spell
it, so that the model only has to put it into a sentence.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_r1.nano.backbone import HEAD_CHANNELS
from saliency_r1.nano.configuration import NAME_TOKENS, SPELLED
from saliency_r1.nano.name_tree import NameTree

UNNAMED = "object"
"""The word for what has no name."""
KEEP, EMPTY = -1, -2
"""In place of a word's number: what the reader says, and no word at all."""
_SPREAD = 1.5
"""The distance from its middle, in cells, up to which the features of an instance are taken."""


class NameReader(nn.Module):
    """Reads names out of the features of ImageNet's classifier.

    Args:
        tree: the names to choose from.
        threshold: how probable a word must be to be handed on.
        width: width of the tokens.
    """

    spelling: Tensor
    temperature: Tensor

    def __init__(self, tree: NameTree, threshold: float, width: int) -> None:
        super().__init__()
        self.tree, self.threshold = tree, threshold
        self.head = nn.Linear(HEAD_CHANNELS, len(tree.classes))
        self.kind = nn.Embedding(NAME_TOKENS, width)
        self.blank = nn.Parameter(torch.zeros(width))
        # The last row spells "object"; -1 is no token.
        self.register_buffer("spelling", torch.full((len(tree.words) + 1, SPELLED), -1))
        self.register_buffer("temperature", torch.ones(()))
        self._below: Tensor | None = None

    @property
    def below(self) -> Tensor:
        """1 where a class is below a word, float32 (words, classes)."""
        device = self.temperature.device
        # No buffer: what loads a checkpoint would leave it without values.
        if self._below is None or self._below.device != device:
            # In numpy, because a graph that is traced would otherwise hold each assignment.
            below = np.zeros((len(self.tree.words), len(self.tree.classes)), np.float32)
            for row, word in enumerate(self.tree.words):
                below[row, list(self.tree.below[word])] = 1
            self._below = torch.from_numpy(below).to(device)
        return self._below

    @property
    def unnamed(self) -> int:
        """The number of the word "object", behind all others."""
        return len(self.tree.words)

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each word that can be spelled, that of "object" last."""
        spelled = (self.spelling[:, 0] >= 0).tolist()
        words = (*self.tree.words, UNNAMED)
        return {word: number for number, word in enumerate(words) if spelled[number]}

    def spell(self, tokenizer: Any) -> None:
        """Take the tokens of each word, and of "object", from a tokenizer."""
        for row, word in enumerate((*self.tree.words, UNNAMED)):
            tokens = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            self.spelling[row] = -1
            if len(tokens) <= SPELLED:
                self.spelling[row, : len(tokens)] = torch.tensor(tokens)

    def logits(self, pooled: Tensor) -> Tensor:
        """Return the logits, float32 (..., classes), of features (..., 1280) averaged under a region."""
        return self.head(pooled.to(self.head.weight.dtype)).float() / self.temperature

    def words(self, logits: Tensor) -> Tensor:
        """Probability of each word, (..., words); narrow and wide words are counted alike."""
        return logits.softmax(-1) @ self.below.T

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The narrowest word that is probable enough, and its probability.

        Returns:
            Numbers of words (...,), `unnamed` where none is, and probabilities (...,), 1 there.
        """
        words = self.words(logits)
        allowed = (words >= self.threshold) & (self.spelling[:-1, 0] >= 0)
        # Of words of one mass the more probable: a probability is less than 1, a class counts 1.
        narrow = torch.where(allowed, words - self.below.sum(1), -torch.inf)
        best = narrow.argmax(-1)
        none = ~allowed.any(-1)
        chosen = torch.where(none, self.unnamed, best)
        sure = words.gather(-1, best[..., None])[..., 0]
        return chosen, torch.where(none, 1.0, sure)

    def read(self, head: Tensor, shares: Tensor, orders: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the salient region and of the instances of images.

        Args:
            head: (B, cells, 1280), what ImageNet's classifier reads of each cell.
            shares: (B, cells) in [0, 1], how far each cell is salient.
            orders: (B, cells, 6), which instance, as they are read, has its middle in a cell.

        Returns:
            (B, `NAME_SLOTS`, classes), and which of them there are, bool (B, `NAME_SLOTS`).
        """
        pooled = torch.einsum("bsc,bcf->bsf", self.weights(shares, orders), head.float())
        return self.logits(pooled), F.pad(orders.sum(1) > 0, (1, 0), value=True)

    @staticmethod
    def weights(shares: Tensor, orders: Tensor) -> Tensor:
        """Return how much each cell counts for the salient region and each instance, as `read` takes them.

        Returns:
            float32 (B, 1 + instances, cells), the sum over the cells 1, or 0 where nothing is.
        """
        side = isqrt(shares.shape[1])
        line = torch.arange(side, device=shares.device).float()
        places = torch.stack([line.repeat_interleave(side), line.repeat(side)], dim=1)
        away = (places[:, None] - places).square().sum(-1)
        near = (-away / (2 * _SPREAD**2)).exp()
        pull = torch.einsum("bcm,cd->bmd", orders.float(), near) + 1e-6
        pull = pull * (orders.sum(1) > 0)[..., None]
        own = pull / pull.sum(1, keepdim=True).clamp(min=1e-6) * pull.clamp(max=1)
        weights = torch.cat([shares[:, None], own * (shares[:, None] + 0.05)], dim=1).float()
        return weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)

    def shared(self, logits: Tensor, there: Tensor, counts: Tensor) -> Tensor:
        """The evidence of the images of each group, multiplied.

        An image of a group speaks for a class as its likeliest thing of that class does, be it the salient
        region or an instance. A single image speaks as its salient region does.

        Args:
            logits, there: as `read` gives them.
            counts: (groups,), images of each, B together.

        Returns:
            (B, classes), each image's that of its group: the mean of the log-probabilities.
        """
        group = torch.repeat_interleave(torch.arange(len(counts), device=logits.device), counts)
        each = self.evidence(logits, there, counts[group])
        total = torch.zeros(len(counts), each.shape[-1], device=logits.device).index_add(0, group, each)
        return self.weighed(total, counts[:, None])[group]

    @staticmethod
    def evidence(logits: Tensor, there: Tensor, counts: Tensor) -> Tensor:
        """Return what each image says of each class, log-probabilities (B, classes); see `shared`.

        Args:
            logits, there: as `read` gives them.
            counts: (B,), how many images the group of each has.
        """
        likely = logits.log_softmax(-1)
        anything = likely.masked_fill(~there[..., None], -torch.inf).amax(1).log_softmax(-1)
        return torch.where(counts[:, None] > 1, anything, likely[:, 0])

    @staticmethod
    def weighed(total: Tensor, count: Tensor | int) -> Tensor:
        """The evidence of a group, of the sum of its images' log-probabilities."""
        # Photos of one group are not independent: half their number counts as so many observations.
        return total / count * ((1 + count) / 2)

    def forward(
        self, logits: Tensor, there: Tensor, embeddings: Tensor, given: Tensor | None = None
    ) -> Tensor:
        """The tokens to show for images.

        Args:
            logits, there: as of `read`, the first slot already the group's.
            embeddings: embeddings of the vocabulary, (V, width).
            given: numbers of words in place of what is read, (B, `NAME_SLOTS`): `KEEP` to keep it, `EMPTY`
                for none.

        Returns:
            (B, `NAME_TOKENS`, width).
        """
        chosen, _ = self.choose(logits)
        chosen = torch.where(there, chosen, EMPTY)
        if given is not None:
            chosen = torch.where(given == KEEP, chosen, given)
        tokens = torch.where(chosen[..., None] >= 0, self.spelling[chosen.clamp(min=0)], -1).flatten(1)
        x = embeddings[tokens.clamp(min=0)]
        x = torch.where(tokens[..., None] >= 0, x, self.blank.to(x.dtype))
        return x + self.kind.weight.to(x.dtype)
