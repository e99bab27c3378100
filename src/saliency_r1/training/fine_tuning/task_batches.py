"""Batches of one kind: examples of one task, with as many photos each, so that little is padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from random import Random

from torch.utils.data import Sampler


class KindsApart(Sampler[int]):
    """An order in which the examples of a batch are of one kind, on all processes of a step.

    What is left of each kind when its batches are full comes last, the kinds one after the other. The order
    hangs on seed and epoch alone, so that a run that is resumed finds it again.

    Args:
        kinds: that of each example.
        batch: examples a pass, over all processes.
        seed: random seed of the order.

    Example:
        >>> order = list(KindsApart(["a", "b", "a", "b", "a"], 2, seed=0))
        >>> sorted(order[:2]) in ([0, 2], [0, 4], [2, 4], [1, 3]), len(order)
        (True, 5)
    """

    def __init__(self, kinds: Sequence[Hashable], batch: int, seed: int = 0) -> None:
        self._members: dict[Hashable, list[int]] = defaultdict(list)
        for number, kind in enumerate(kinds):
            self._members[kind].append(number)
        self._batch, self._seed, self._epoch = batch, seed, 0
        self._count = len(kinds)

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the examples is to begin."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = Random(f"{self._seed} {self._epoch}")
        whole: list[list[int]] = []
        rest: list[int] = []
        for members in self._members.values():
            order = random.sample(members, len(members))
            full = len(order) - len(order) % self._batch
            whole += [order[start : start + self._batch] for start in range(0, full, self._batch)]
            rest += order[full:]
        random.shuffle(whole)
        yield from (number for batch in whole for number in batch)
        yield from rest

    def __len__(self) -> int:
        return self._count
