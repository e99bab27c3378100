"""A policy that names what a person asks for: the segmenter alone is asked then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saliency_r1.errors import ResponseError, SaliencyError
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.response import Response
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

LONGEST_PHRASE = 200
"""Characters of a phrase, at most."""


class GivenPhrase:
    """Answer every question with one phrase and without reasoning.

    Args:
        phrase: what to find, such as `the cat on the left`. White space around it does not count.

    Raises:
        SaliencyError: if the phrase is empty, longer than `LONGEST_PHRASE` or holds a tag of responses.

    Example:
        >>> GivenPhrase("the cat on the left").respond([[]], Task.SOD)[0].text
        '<think></think><answer><rg>the cat on the left</rg></answer>'
    """

    name = "given phrase"

    def __init__(self, phrase: str) -> None:
        phrase = " ".join(phrase.split())
        if not phrase:
            raise SaliencyError("the phrase to find is empty: give words such as 'the cat on the left'")
        if len(phrase) > LONGEST_PHRASE:
            raise SaliencyError(
                f"the phrase to find has {len(phrase)} characters: give at most {LONGEST_PHRASE}"
            )
        try:
            self._text = Response("", (phrase,), Task.SOD.spec.tag).text
        except ResponseError as error:
            raise SaliencyError(f"the phrase to find cannot be used: {error}") from error

    def respond(
        self,
        batch: Sequence[Sequence[Image.Image]],
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> list[PolicyOutput]:
        """Answer each question of the batch with the phrase; see `Policy.respond`.

        Raises:
            SaliencyError: if the task is not SOD. A phrase names one region of one photo.
        """
        if task != Task.SOD:
            raise SaliencyError(f"a phrase is found with the task 'sod', not {str(task)!r}")
        return [PolicyOutput(self._text, []) for _ in batch]
