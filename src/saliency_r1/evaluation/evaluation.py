"""The findings of an evaluation, before they are written to files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from saliency_r1.data.groups import group_of
from saliency_r1.errors import ResponseError
from saliency_r1.evaluation.predictions import Problem
from saliency_r1.evaluation.sod_scores import SodResult
from saliency_r1.response import own_thoughts_end, parse_strict
from saliency_r1.tasks import Task


@dataclass(frozen=True)
class Words:
    """A model's response to a photo.

    Attributes:
        expressions: the names of what is salient.
        reasoning: the explanation.
        confidence: the expected IoU of the mask, in [0, 1], if the model gave one.
        parsed: whether the response has the task's form; None if unknown.
        retries: number of second tries.
        prompt_tokens, completion_tokens: the server's counts over all tries; None if it counted none.
    """

    expressions: tuple[str, ...] = ()
    reasoning: str = ""
    confidence: float | None = None
    parsed: bool | None = None
    retries: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Row:
    """The values of one photo.

    Attributes:
        name: the sample's name.
        values: the metrics; NaN where one is not defined.
        image, truth, prediction: paths; None if the photo has no such file of its own.
        words: the model's response; None for predictions without words.
        problem: why an empty mask was scored instead; None if the prediction was scored.
    """

    name: str
    values: dict[str, float]
    image: Path | None = None
    truth: Path | None = None
    prediction: Path | None = None
    words: Words | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a set.

    Attributes:
        task: the task of the set.
        metrics: the metrics over the set, in the order of tables; None where one is not defined.
        rows: one for each photo, sorted by name.
        ranked_by: the metric of `rows` that defines the worst and the best photos.
        fingerprint: SHA-256 over the names and the content of the ground truth.
        result: the result with its curves, for SOD and CoSOD.
        groups: the metrics of each group, for CoSOD.
        problems: reasons of predictions that were scored as empty masks.
        extra: predictions that belong to no photo.
        counts: numbers of photos, groups or instances by what they are.
        notes: remarks that a reader of the numbers must know.
    """

    task: Task
    metrics: dict[str, float | None]
    rows: list[Row]
    ranked_by: str
    fingerprint: str
    result: SodResult | None = None
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    extra: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def words_beside(prediction: Path | None) -> Words | None:
    """Read the words from the JSON that `saliency-r1 predict` writes beside a mask; None if there is none."""
    if prediction is None:
        return None
    path = prediction.with_name(prediction.stem.removesuffix("_mask") + ".json")
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        return words_in(content) if isinstance(content, dict) and "expressions" in content else None
    except (OSError, ValueError, TypeError):
        return None  # another JSON file, which the metrics do not need


def words_in(content: dict) -> Words:
    """Return the words in a dict of `SaliencyResult.to_dict`."""
    confidence = content.get("confidence")
    tokens = content.get("tokens") or {}
    return Words(
        tuple(map(str, content["expressions"])),
        str(content.get("reasoning", "")),
        None if confidence is None else float(confidence),
        _parsed(content),
        int(content.get("retries", 0)),
        tokens.get("prompt"),
        tokens.get("completion"),
    )


def _parsed(content: dict) -> bool | None:
    """Whether the response has its task's form; a model's own thoughts before it are ignored."""
    if not isinstance(content.get("text"), str) or content.get("task") not in list(Task):
        return None
    text = content["text"]
    try:
        parse_strict(text[own_thoughts_end(text) :], content["task"])
    except ResponseError:
        return False
    return True


def answers_of(evaluation: Evaluation, prices: tuple[float, float]) -> dict[str, int | float | None] | None:
    """Count questions, second tries, responses that did not parse, and tokens with their price.

    A CoSOD group counts as one question, even if the policy was asked several. Tokens are the server's
    counts; None if it counted none.

    Args:
        evaluation: an evaluation with its rows.
        prices: prices per million prompt and completion tokens, in any currency.

    Returns:
        None for predictions without responses.
    """
    said = {group_of(row.name) or row.name: row.words for row in evaluation.rows if row.words is not None}
    if evaluation.task is not Task.COSOD:
        said = {row.name: row.words for row in evaluation.rows if row.words is not None}
    known = [words for words in said.values() if words.parsed is not None]
    if not known:
        return None
    counted = [words for words in known if words.prompt_tokens is not None]
    prompt = sum(words.prompt_tokens or 0 for words in counted)
    completion = sum(words.completion_tokens or 0 for words in counted)
    return {
        "questions": len(known),
        "second tries": sum(words.retries for words in known),
        "unparsed": sum(not words.parsed for words in known),
        "prompt tokens": prompt if counted else None,
        "completion tokens": completion if counted else None,
        "cost": round((prompt * prices[0] + completion * prices[1]) / 1e6, 6) if counted else None,
    }
