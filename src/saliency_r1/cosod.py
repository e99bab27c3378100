"""What a large group of images shares: the group in chunks, and the vote of the chunks.

The policy sees a few images at a time, so a large group is asked about chunk by chunk, and each chunk votes
for what it found. The vote, ours:

1. A ballot counts with the images of its chunk, each times the policy's confidence in the expression (1 where
   the policy tells none).
2. Ballots whose expressions are equal after `normalised` are pooled.
3. That nothing is shared wins only with more than half of all weight: chunks that disagree on the name still
   agree that there is something.
4. Among the expressions the heaviest pool wins, the one named first if two are equal, and the surest ballot
   in it speaks for the group: its wording is what the segmenter looks for in every image.
5. The segmenter is a witness: it looks for each expression in a few images spread over the group, and a pool
   weighs as much as its expressions are found there. A winner that is hardly found is not believed, and
   "the object" is looked for in its place.

What is shared is often just what stands out in each image, and that is found with a better outline than any
name gives. So where the masks of the winner and of "the object" agree over the images that are looked at,
each image has the latter's: see `Ballot.stands_out` and `settled`.
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
"""How many images of a group the policy sees at a time, unless it is told otherwise."""

BELIEVED = 0.4
"""How well an expression must be found, in the mean over the images that are looked at."""

AGREED = 0.6
"""From which mean IoU on what a group shares is what stands out: composed groups with distractors have at
most .50, groups of photos at least .66."""

ABSENT = 0.75
"""From which score on the segmenter is believed that an expression finds nothing."""


@dataclass(frozen=True)
class Ballot:
    """What one chunk found.

    Attributes:
        expression: what its images share; empty if nothing.
        images: how many images the chunk holds, at least 1.
        confidence: the policy's in the expression, in [0, 1]; None if it tells none.
        found: how well the segmenter finds the expression in images of the group: the mean of its scores, 0
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
        """Images times confidence."""
        return self.images * (1.0 if self.confidence is None else self.confidence)


@dataclass(frozen=True)
class Verdict:
    """Which ballot speaks for the group.

    Attributes:
        index: of the ballot.
        confidence: the weight of its pool over all images, in [0, 1]: how sure the agreeing chunks are, times
            the share of the images that they hold. With one chunk it is the policy's own. None if a ballot of
            the pool has none.
        believed: whether its expression, if it has one, is found well enough to be looked for.
    """

    index: int
    confidence: float | None
    believed: bool = True


def chunk_sizes(count: int, most: int = GROUP_IMAGES) -> list[int]:
    """As few chunks as hold `count` images with at most `most` each, of sizes that differ by at most one.

    Example:
        >>> chunk_sizes(11, 5)
        [4, 4, 3]
    """
    chunks = -(-count // most)
    return [count // chunks + (index < count % chunks) for index in range(chunks)]


def overlap(found: Segmentation) -> np.ndarray:
    """The IoU of each mask of an image with the last, at 0.5: float64 (N - 1,), 0 where both are empty."""
    masks = found.probabilities >= 0.5
    both = (masks[:-1] & masks[-1]).sum((1, 2))
    either = (masks[:-1] | masks[-1]).sum((1, 2))
    return both / either.clip(min=1)


def settled(named: np.ndarray, score: float, salient: np.ndarray) -> bool:
    """Whether an image of a group that shares what stands out has the mask of what stands out.

    So if most of what the name finds lies in it, or if the name finds nothing and the segmenter does not
    believe that there is nothing. Else the name has found another thing, or none, and that is kept.

    Args:
        named: the probabilities for the name, float32 (H, W).
        score: the segmenter's of them.
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
        ballots: at least one.

    Raises:
        ValueError: if there is none.

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
