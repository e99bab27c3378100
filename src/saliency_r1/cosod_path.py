"""The path of a group: ask about its chunks, check the expressions and count the vote; see `cosod`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, sqrt
from time import perf_counter

import numpy as np
from PIL import Image

from saliency_r1.cosod import AGREED, Ballot, chunk_sizes, elect, overlap, settled
from saliency_r1.errors import ImageError
from saliency_r1.pictures.image_sources import ImageSource, LoadedSource
from saliency_r1.policy.answering import BATCH_PIXELS, answers
from saliency_r1.policy.asking import total
from saliency_r1.policy.base import Policy, PolicyOutput
from saliency_r1.response import Response, parse_lenient
from saliency_r1.segmenters.base import Encoded, Segmentation, Segmenter, encode_many
from saliency_r1.tasks import Task
from saliency_r1.wording import UNNAMED


@dataclass(frozen=True)
class GroupAnswer:
    """The shared object of a group, by the vote of its chunks.

    Attributes:
        readable: the images that could be read, in order.
        output: the output of the winning ballot, with the confidence of the vote.
        response: the parsed output, or "the object" if its expression is not believed.
        policy_seconds: seconds of the policy, for one image.
        seconds: seconds until the vote, for one image.
        stands_out: whether what is shared is what stands out in each image.
    """

    readable: list[ImageSource]
    output: PolicyOutput
    response: Response
    policy_seconds: float
    seconds: float
    stands_out: bool


def ask_group(
    policy: Policy,
    segmenter: Segmenter,
    sources: Sequence[ImageSource],
    task: Task,
    *,
    reasoning: bool,
    batch_questions: int,
    group_images: int,
    load: Callable[[Iterable[ImageSource]], Iterator[LoadedSource]],
) -> GroupAnswer | None:
    """Let the chunks of a group vote; return None if no image can be read.

    Args:
        policy: the policy, which sees `group_images` images at a time.
        segmenter: the segmenter that checks the expressions.
        sources: sources of the whole group.
        task: the task.
        reasoning: whether the policy reasons.
        batch_questions: number of chunks in a batch of the policy.
        group_images: at least 2.
        load: reads sources one by one and skips those that cannot be read.

    Raises:
        ImageError: if the policy refused every chunk.
    """
    readable: list[ImageSource] = []
    witnesses: list[Image.Image] = []
    looked_at = {index * len(sources) // group_images for index in range(group_images)}

    def chunks() -> Iterator[tuple[int, list[Image.Image]]]:
        loaded = load(sources)
        for size in chunk_sizes(len(sources), group_images):
            chunk = []
            for item in islice(loaded, size):
                chunk.append(reduced(item.image, BATCH_PIXELS // group_images))
                if len(readable) in looked_at:
                    witnesses.append(chunk[-1])
                readable.append(item.source)
            if chunk:
                yield len(chunk), chunk

    answered: list[tuple[PolicyOutput, Response]] = []
    ballots: list[Ballot] = []
    refused: list[ImageError] = []
    start, policy_seconds = perf_counter(), 0.0
    for one in answers(policy, chunks(), task, reasoning=reasoning, batch_questions=batch_questions):
        policy_seconds += one.seconds
        if isinstance(one.output, ImageError):
            refused.append(one.output)
        elif one.output is not None:
            response = parse_lenient(one.output.text, task)
            answered.append((one.output, response))
            ballots.append(Ballot("".join(response.expressions), one.item, one.output.belief))
    if not ballots:
        if refused:
            raise refused[0]
        return None
    ballots = witnessed(segmenter, ballots, witnesses)
    verdict = elect(ballots)
    output, response = answered[verdict.index]
    return GroupAnswer(
        readable,
        replace(
            output,
            confidence=verdict.confidence,
            expression_confidences=None,
            name_probability=None,  # it is in the confidence of the vote
            retries=sum(each.retries for each, _ in answered),
            prompt_tokens=total(*(each.prompt_tokens for each, _ in answered)),
            completion_tokens=total(*(each.completion_tokens for each, _ in answered)),
        ),
        response if verdict.believed else replace(response, expressions=(UNNAMED,)),
        policy_seconds / len(readable),
        (perf_counter() - start) / len(readable),
        ballots[verdict.index].stands_out >= AGREED,
    )


def witnessed(segmenter: Segmenter, ballots: Sequence[Ballot], images: Sequence[Image.Image]) -> list[Ballot]:
    """Return the ballots with the scores of their expressions in these images."""
    expressions = list(dict.fromkeys(ballot.expression for ballot in ballots if ballot.expression))
    if not expressions:
        return list(ballots)
    found = np.zeros((2, len(images), len(expressions)))
    for row, encoded in enumerate(encode_many(segmenter, images)):
        masks = segmenter.segment(encoded, [*expressions, UNNAMED])
        seen = (masks.probabilities[:-1] >= 0.5).any((1, 2))
        found[:, row] = masks.scores[:-1] * seen, overlap(masks)
    means = dict(zip(expressions, found.mean(1).T.tolist(), strict=True))
    return [
        replace(ballot, found=means[ballot.expression][0], stands_out=means[ballot.expression][1])
        if ballot.expression
        else ballot
        for ballot in ballots
    ]


def settle(segmenter: Segmenter, encoded: Encoded, found: Segmentation) -> Segmentation:
    """Return the masks of an image; they show what stands out where `saliency_r1.cosod.settled` says so."""
    salient = segmenter.segment(encoded, [UNNAMED])
    chosen = [
        settled(mask, float(own), salient.probabilities[0])
        for mask, own in zip(found.probabilities, found.scores, strict=True)
    ]
    return Segmentation(
        np.where(np.array(chosen)[:, None, None], salient.probabilities, found.probabilities),
        np.where(chosen, salient.scores, found.scores),
    )


def reduced(image: Image.Image, pixels: int) -> Image.Image:
    """Return the image, reduced by a whole factor if it has more than that many pixels."""
    factor = ceil(sqrt(image.width * image.height / pixels))
    return image.reduce(factor) if factor > 1 else image
