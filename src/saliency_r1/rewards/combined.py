"""The reward that the trainers call: one number in [0, 1] for each response of a batch of any task."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from saliency_r1.data.prompt_examples import PromptExample
from saliency_r1.device import moved
from saliency_r1.errors import SaliencyError
from saliency_r1.memory import BoundedMemory
from saliency_r1.response import Response
from saliency_r1.rewards.format import parsed
from saliency_r1.rewards.own import RewardFunction
from saliency_r1.rewards.segmenting import CachedSegmenter, GreyMasks, Question, compared_size
from saliency_r1.rewards.sis import matched
from saliency_r1.rewards.sod import weighted_mean
from saliency_r1.rewards.tensors import overlaps, sod_parts_of
from saliency_r1.segmenters.base import answer_texts
from saliency_r1.tasks import Task

TRUTH_BYTES = 128 * 1024**2
"""Memory for true masks, decoded and resized to the size at which masks are compared."""


@dataclass(frozen=True)
class RewardWeights:
    """The weights of the parts of a reward; each weight is at least 0.

    Attributes:
        format: weight of the form, relative to 1 for the masks. A response without the form always gets 0.
        iou: weight of the IoU in the masks' part of SOD and CoSOD.
        s_measure: weight of the S-measure in that part.

    Raises:
        ValueError: if a weight is negative, or those of IoU and S-measure are both 0.

    Example:
        >>> RewardWeights(format=0.2).iou
        0.5
    """

    format: float = 0.1
    iou: float = 0.5
    s_measure: float = 0.5

    def __post_init__(self) -> None:
        if min(self.format, self.iou, self.s_measure) < 0 or self.iou + self.s_measure <= 0:
            raise ValueError(f"{self}: expected weights of at least 0, and iou and s_measure not both 0")


@dataclass(frozen=True)
class Scored:
    """The reward of one response.

    Attributes:
        reward: in [0, 1].
        response: its parts; None if it is not of the form.
        parts: the parts of the reward and a user's own rewards, by name; empty without the right form.
    """

    reward: float
    response: Response | None = None
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def parsed(self) -> bool:
        """Whether the response has the task's form."""
        return self.response is not None


class SaliencyReward:
    """Compute the rewards of a mixed batch: parse strictly, segment together, compare with the true masks.

    Masks are compared in torch on the segmenter's device, at the size of its masks, and the numbers of the
    whole batch are copied at once.

    If the response has the task's form, r = (w_format + q + sum_k w_k r_k) / (w_format + 1 + sum_k w_k),
    otherwise 0, where q is the masks' part (`sod_reward`, `sis_reward` or `cosod_reward`) and r_k are a
    user's own rewards. It is rounded to four decimals, because the grouping of segmenter calls changes the
    last digits.

    It is a reward function of TRL: it takes the columns `example` and `photos` of the data set that
    `training.reinforcement.questions` makes.

    Args:
        segmenter: the frozen segmenter, with its cache.
        weights: weights of the parts.
        own: a user's rewards and their weights, by name. Each is called with `completions` (texts), `task`
            (names), `example` and `images`, each a list, and returns a number in [0, 1] for every completion,
            or None if it does not apply.

    Example:
        >>> from saliency_r1.segmenters.nano import NanoSegmenter
        >>> reward = SaliencyReward(CachedSegmenter(NanoSegmenter.from_pretrained()))
        >>> photo = Image.new("RGB", (40, 40))
        >>> question = PromptExample("a", Task.SOD, Task.SOD.spec.prompt(), ("a.png",), ((),))
        >>> nothing = "<think>Nothing stands out.</think><answer></answer>"
        >>> reward([nothing, "no tags"], example=[question] * 2, photos=[[photo]] * 2)
        [1.0, 0.0]
    """

    def __init__(
        self,
        segmenter: CachedSegmenter,
        weights: RewardWeights | None = None,
        own: Mapping[str, tuple[RewardFunction, float]] | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.weights = weights or RewardWeights()
        self.own = dict(own or {})
        self._truths = BoundedMemory(TRUTH_BYTES)
        self.__name__ = "saliency"

    def __call__(
        self,
        completions: Sequence[Any],
        example: Sequence[PromptExample],
        photos: Sequence[Sequence[Image.Image]],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Return the reward of each completion, and log its parts with `log_metric`; see the class."""
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        scored = self.score(texts, example, photos)
        for one, asked in zip(scored, example, strict=True):
            if log_metric is not None:
                log_metric("parse_rate", float(one.parsed))
                log_metric(f"reward/{asked.task}", one.reward)
                for name, value in one.parts.items():
                    log_metric(name, value)
        return [one.reward for one in scored]

    def score(
        self,
        texts: Sequence[str],
        examples: Sequence[PromptExample],
        images: Sequence[Sequence[Image.Image]],
    ) -> list[Scored]:
        """Compute the rewards and their parts.

        Args:
            texts: the responses.
            examples: the question of each.
            images: the images of each question, mode RGB, mirrored if the question says so.

        Raises:
            SaliencyError: if a mask does not have its image's size, or a user's reward is out of range.
        """
        responses = [parsed(text, example.task) for text, example in zip(texts, examples, strict=True)]
        questions, owners = [], []
        for row, (response, example) in enumerate(zip(responses, examples, strict=True)):
            if response is not None:
                for key, image in zip(example.keys, images[row], strict=True):
                    questions.append(self._question(key, image, response.expressions, example.task))
                    owners.append(row)
        found: dict[int, list[GreyMasks]] = defaultdict(list)
        for row, masks in zip(owners, self.segmenter.find(questions), strict=True):
            found[row].append(masks)
        own = self._own(texts, examples, images)
        answers = {
            row: (id(examples[row]), response.expressions)
            for row, response in enumerate(responses)
            if response
        }
        # The samples of a group are often equal.
        distinct = {answer: row for row, answer in answers.items()}
        judged = self._judged([(examples[row], images[row], found[row]) for row in distinct.values()])
        known = dict(zip(distinct, judged, strict=True))
        scored = []
        for row, response in enumerate(responses):
            if response is None:
                scored.append(Scored(0.0))
                continue
            quality, parts = known[answers[row]]
            said = {name: value for name in own if (value := own[name][row]) is not None}
            named = {f"reward/own/{name}": value for name, value in said.items()}
            scored.append(Scored(self._joined(quality, said), response, parts | named))
        return scored

    def _judged(
        self, answers: Sequence[tuple[PromptExample, Sequence[Image.Image], Sequence[GreyMasks]]]
    ) -> list[tuple[float, dict[str, float]]]:
        """Return the masks' part of each reward, in [0, 1], and its own parts."""
        compared = [self._compared(*answer) for answer in answers]
        if not compared:
            return []
        # Only here the code waits for the device.
        numbers = (
            torch.cat([tensor.flatten() for tensor in compared])
            .cpu()
            .split([one.numel() for one in compared])
        )
        judged = []
        for (example, _, _), tensor, values in zip(answers, compared, numbers, strict=True):
            table = values.view(tensor.shape).numpy()
            if example.task is Task.SIS:
                quality = matched(table)
                judged.append((quality, {"reward/sis/matching": quality}))
            else:  # SOD is a group of one image
                overlap, structure = table.mean(0).tolist()
                quality = weighted_mean(overlap, structure, self.weights.iou, self.weights.s_measure)
                names = f"reward/{example.task}/iou", f"reward/{example.task}/s_measure"
                judged.append((quality, dict(zip(names, (overlap, structure), strict=True))))
        return judged

    def _compared(
        self, example: PromptExample, images: Sequence[Image.Image], found: Sequence[GreyMasks]
    ) -> torch.Tensor:
        """For SIS return the IoU of masks and instances, (P, T); else IoU and S-measure, (images, 2)."""
        device = getattr(self.segmenter.segmenter, "device", torch.device("cpu"))
        truths = [self._truth(example, number, image, device) for number, image in enumerate(images)]
        if example.task is Task.SIS:
            return overlaps(found[0].values.to(device), truths[0])
        parts = []
        for masks, truth in zip(found, truths, strict=True):
            nothing = truth.new_zeros((1, *truth.shape[1:]))
            union = torch.cat([masks.values.to(device), nothing.byte()]).amax(0)
            parts.append(sod_parts_of(union, torch.cat([truth, nothing]).any(0)))
        return torch.stack(parts)

    def _truth(
        self, example: PromptExample, number: int, image: Image.Image, device: torch.device
    ) -> torch.Tensor:
        """Return the true masks of an image at the size of comparison, bool (T, h, w), none empty."""
        lengths = example.masks[number]
        for mask in lengths:
            if tuple(mask["size"]) != (image.height, image.width):
                raise SaliencyError(
                    f"{example.name}: a mask of {mask['size'][1]}x{mask['size'][0]} pixels for a photo of "
                    f"{image.width}x{image.height}; make the prompts again from masks that fit"
                )
        key = example.mirrored, image.size, tuple(mask["counts"] for mask in lengths)
        known = self._truths.get(key)
        if known is None:
            size = compared_size(image.height, image.width, self.segmenter.longest)
            masks = [reduced(mask, size) for mask in example.truths(number) if mask.any()]
            known = torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), bool))
            known = moved(known, device)
            self._truths.put(key, known)
        return known

    def _joined(self, quality: float, own: Mapping[str, float]) -> float:
        """Combine the masks' part and a user's own rewards."""
        weighed = [(self.weights.format, 1.0), (1.0, quality)]
        weighed += [(self.own[name][1], value) for name, value in own.items()]
        reward = sum(weight * value for weight, value in weighed) / sum(weight for weight, _ in weighed)
        return round(min(1.0, reward), 4)

    def _question(
        self, key: Hashable, image: Image.Image, expressions: Sequence[str], task: Task
    ) -> Question:
        """Return what the segmenter is asked, in the words in which the pipeline asks it."""
        asked = answer_texts(self.segmenter.segmenter, expressions, task)
        return Question(key, image, asked, task.spec.several_expressions)

    def _own(
        self,
        texts: Sequence[str],
        examples: Sequence[PromptExample],
        images: Sequence[Sequence[Image.Image]],
    ) -> dict[str, list[float | None]]:
        """Compute and check a user's own rewards; NaN counts as None."""
        rewards: dict[str, list[float | None]] = {}
        tasks = [str(example.task) for example in examples]
        for name, (function, _) in self.own.items():
            values = list(
                function(completions=list(texts), task=tasks, example=list(examples), images=list(images))
            )
            if len(values) != len(texts):
                raise SaliencyError(
                    f"reward {name!r} returned {len(values)} values for {len(texts)} completions: "
                    "return one for each"
                )
            checked: list[float | None] = []
            for value in values:
                if value is None or math.isnan(value):
                    checked.append(None)
                elif 0 <= value <= 1:
                    checked.append(float(value))
                else:
                    raise SaliencyError(
                        f"reward {name!r} returned {value}: expected 0 to 1, or None if it does not apply"
                    )
            rewards[name] = checked
        return rewards


def reduced(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduce a true mask that is not empty: a pixel is inside if at least half of it is covered.

    A smaller object keeps the pixel that it covers most.

    Args:
        mask: bool (H, W).
        size: height and width.

    Returns:
        bool (h, w), not empty.
    """
    if mask.shape == size:
        return np.ascontiguousarray(mask)
    # Decoded run lengths lie column by column, so the mask on its side is read in the order of its memory.
    grey = Image.fromarray(np.ascontiguousarray(mask.T).view(np.uint8) * np.uint8(255))
    covered = np.asarray(grey.resize(size, Image.Resampling.BOX)).T
    most = int(covered.max())
    if most == 0:  # less than a 510th of any pixel
        row, column = (int(places.mean()) for places in np.nonzero(mask))
        covered = np.zeros(size, np.uint8)
        covered[row * size[0] // mask.shape[0], column * size[1] // mask.shape[1]] = most = 255
    return covered >= min(128, most)
