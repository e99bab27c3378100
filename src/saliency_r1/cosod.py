"""Find what a large group of images shares, by a vote of its chunks.

The policy sees only a few images at a time. So it is asked about a large group chunk by chunk, and each chunk
votes for what it found. The rules of the vote are ours:

1. The weight of a ballot is the number of its chunk's images times the policy's confidence in the expression,
   and times the probability of its name where that is known (1 if unknown).
2. Ballots whose expressions are equal after `normalised` are pooled.
3. "Nothing is shared" wins only with more than half of all weight: chunks that disagree on the name still
   agree that there is something.
4. Among the expressions the pool with the largest weight wins, or the one named first if two are equal. The
   segmenter looks for the wording of its most confident ballot in every image.
5. The segmenter checks the expressions: it looks for each one in a few images spread over the group, and the
   weight of a pool is multiplied by how well its expressions are found. If a winner is hardly found, "the
   object" is used instead.

Often the shared object is simply what stands out in each image, and "the object" finds it with a better
outline than a name does. So if the masks of the winner and of "the object" agree over the checked images,
each image gets the mask of "the object", and the segmenter is asked for what stands out of the name: see
`Ballot.stands_out` and `settled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING

from saliency_r1.wording import normalised

if TYPE_CHECKING:
    import numpy as np

    from saliency_r1.segmenters.base import Segmentation

GROUP_IMAGES = 5
"""Default number of images of a group that the policy sees at a time."""

BELIEVED = 0.4
"""Least mean score over the checked images with which an expression is used."""

AGREED = 0.6
"""Least mean IoU at which the shared object is taken to be what stands out: composed groups with distractors
have at most .50, groups of photos at least .66."""

ABSENT = 0.75
"""Least score with which the segmenter's empty mask for an expression is believed."""


@dataclass(frozen=True)
class Ballot:
    """The vote of one chunk.

    Attributes:
        expression: what its images share; empty if nothing.
        images: number of images of the chunk, at least 1.
        confidence: the policy's confidence in the expression, in [0, 1]; None if unknown.
        found: how well the segmenter finds the expression in the checked images: the mean of its scores, 0
            where it finds nothing; in [0, 1].
        stands_out: the mean IoU of its masks there with those of "the object"; in [0, 1].
    """

    expression: str
    images: int
    confidence: float | None = None
    found: float = 1.0
    stands_out: float = 0.0

    @property
    def weight(self) -> float:
        """The weight of the vote: images times confidence."""
        return self.images * (1.0 if self.confidence is None else self.confidence)


@dataclass(frozen=True)
class Verdict:
    """The result of a vote.

    Attributes:
        index: index of the ballot whose wording is used.
        confidence: the weight of its pool divided by the number of images, in [0, 1]: the confidence of the
            agreeing chunks times their share of the images. With one chunk it is the policy's own. None if a
            ballot of the pool has none.
        believed: whether its expression, if it has one, is found well enough to be used.
    """

    index: int
    confidence: float | None
    believed: bool = True


def chunk_sizes(count: int, most: int = GROUP_IMAGES) -> list[int]:
    """Return the sizes of the fewest chunks of at most `most` images; they differ by at most one.

    Example:
        >>> chunk_sizes(11, 5)
        [4, 4, 3]
    """
    chunks = -(-count // most)
    return [count // chunks + (index < count % chunks) for index in range(chunks)]


def overlap(found: Segmentation) -> np.ndarray:
    """Return the IoU of each mask with the last one, at 0.5: float64 (N - 1,), 0 where both are empty."""
    masks = found.probabilities >= 0.5
    both = (masks[:-1] & masks[-1]).sum((1, 2))
    either = (masks[:-1] | masks[-1]).sum((1, 2))
    return both / either.clip(min=1)


def settled(named: np.ndarray, score: float, salient: np.ndarray) -> bool:
    """Whether an image of a group that shares what stands out gets the mask of what stands out.

    It does if most of the mask of the name is inside it, or if the name finds nothing and the segmenter is
    not sure of that. Otherwise the name found another object or nothing, and its mask is kept.

    Args:
        named: the probabilities for the name, float32 (H, W).
        score: the segmenter's score for that mask.
        salient: the probabilities for what stands out, float32 (H, W).
    """
    inside = named >= 0.5
    area = int(inside.sum())
    if not area:
        return score < ABSENT
    return bool((inside & (salient >= 0.5)).sum() >= area / 2)


def elect(ballots: Sequence[Ballot]) -> Verdict:
    """Count the vote of the chunks by the rules of this module.

    Args:
        ballots: the ballots, at least one.

    Raises:
        ValueError: if there is no ballot.

    Example:
        >>> elect([Ballot("the dog", 5, 0.4), Ballot("a ball", 5, 0.5), Ballot("Dog", 5, 0.6)]).index
        2
    """
    if not ballots:
        raise ValueError("a vote without a ballot: give at least one")
    pools: dict[str, list[int]] = {}
    for index, ballot in enumerate(ballots):
        pools.setdefault(normalised(ballot.expression), []).append(index)
    # fsum: the order of the chunks must not decide by rounding.
    weights = {key: fsum(ballots[index].weight for index in pool) for key, pool in pools.items()}
    total = fsum(ballot.weight for ballot in ballots)
    names = [key for key in pools if key]
    nothing = not names or weights.get("", 0.0) > total / 2
    standing = {
        key: fsum(ballots[index].weight * ballots[index].found for index in pools[key]) for key in names
    }
    winner = "" if nothing else max(names, key=standing.__getitem__)
    pool = pools[winner]
    sure = [ballots[index].confidence for index in pool]
    images = sum(ballot.images for ballot in ballots)
    index = max(pool, key=lambda index: ballots[index].confidence or 0.0)
    return Verdict(
        index=index,
        confidence=None if None in sure else min(1.0, weights[winner] / images),
        believed=not winner or ballots[index].found >= BELIEVED,
    )
