"""Faithfulness: the share of the cue statements in a reasoning that hold for the mask it led to.

A statement is checked against what is measured on the mask, with the limits of `saliency_r1.language.cues`. A
rationale is written only where a cue is a whole margin inside its limits; it is checked with half a margin of
tolerance (`Level.TOLERANT`), because a mask drawn a little differently, and a viewer's habits, move each
measurement by about that much. `Level.PLAIN` checks against the limits themselves. The definition is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from saliency_r1.cue_limits import Level
from saliency_r1.language.cues import Cues, measure
from saliency_r1.language.statements import Kind, Statement, parse_statements

__all__ = ["Faithfulness", "FaithfulnessSummary", "aggregate", "check", "faithfulness", "parse_statements"]


@dataclass(frozen=True)
class Faithfulness:
    """The statements of one reasoning, and whether each holds.

    Attributes:
        statements: as parsed, each with its verdict.
    """

    statements: tuple[tuple[Statement, bool], ...]

    @property
    def holds(self) -> int:
        """The number of statements that hold."""
        return sum(verdict for _, verdict in self.statements)

    @property
    def total(self) -> int:
        """The number of statements."""
        return len(self.statements)

    @property
    def share(self) -> float | None:
        """Statements that hold over all, 0 to 1; None if nothing is stated."""
        return self.holds / self.total if self.total else None


@dataclass(frozen=True)
class FaithfulnessSummary:
    """Faithfulness over a set of reasonings.

    Attributes:
        holds, total: statements over the whole set.
        silent: reasonings that state nothing.
        by_kind: share of the statements that hold, for each kind that was stated.
        by_value: statements that hold and all statements, for each kind and value.
    """

    holds: int
    total: int
    silent: int
    by_kind: dict[Kind, float]
    by_value: dict[tuple[Kind, str], tuple[int, int]]

    @property
    def share(self) -> float | None:
        """Statements that hold over all statements of the set; None if nothing is stated."""
        return self.holds / self.total if self.total else None


def faithfulness(
    reasoning: str, image: np.ndarray | Image.Image, mask: np.ndarray, level: Level = Level.TOLERANT
) -> Faithfulness:
    """Check the cue statements of a reasoning against a mask.

    Args:
        reasoning: any text.
        image: RGB, uint8 (H, W, 3) or a PIL image.
        mask: (H, W), bool or probabilities (the object from 0.5).
        level: how strictly.

    Raises:
        SaliencyError: if the image or the mask cannot be measured.

    Example:
        >>> picture = np.zeros((60, 90, 3), np.uint8)
        >>> mask = np.zeros((60, 90), bool)
        >>> mask[20:40, 5:25] = True
        >>> faithfulness("A small ball on the left.", picture, mask).share
        1.0
    """
    return check(reasoning, measure(image, mask), level)


def check(reasoning: str, cues: Cues, level: Level = Level.TOLERANT) -> Faithfulness:
    """Check the cue statements of a reasoning against cues already measured.

    A denied statement holds if what it denies
    does not, by the plain limits.
    """
    return Faithfulness(
        tuple(
            (
                statement,
                not cues.holds(statement.kind, statement.value)
                if statement.negated
                else cues.holds(statement.kind, statement.value, level),
            )
            for statement in parse_statements(reasoning)
        )
    )


def aggregate(results: Iterable[Faithfulness]) -> FaithfulnessSummary:
    """Count over a set: every statement weighs the same."""
    holds: Counter[tuple[Kind, str]] = Counter()
    total: Counter[tuple[Kind, str]] = Counter()
    silent = 0
    for result in results:
        silent += not result.statements
        for statement, verdict in result.statements:
            total[statement.kind, statement.value] += 1
            holds[statement.kind, statement.value] += verdict
    by_kind = {}
    for kind in Kind:
        stated = sum(count for (of, _), count in total.items() if of is kind)
        if stated:
            by_kind[kind] = sum(count for (of, _), count in holds.items() if of is kind) / stated
    return FaithfulnessSummary(
        holds=holds.total(),
        total=total.total(),
        silent=silent,
        by_kind=by_kind,
        by_value={key: (holds[key], count) for key, count in sorted(total.items())},
    )
