"""The textual interface between policy and segmenter: converts response text to `Response` and back.

A response first reasons and then names what is salient:

    <think>The dog is large and sharp.</think><answer><rg>brown dog</rg></answer>

`<rg>` holds the one region of SOD and CoSOD. `<ins>` holds an instance of SIS; there may be any number.
`<answer></answer>` means, in every task, that nothing is salient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from saliency_r1.errors import ResponseError
from saliency_r1.tasks import Task

_EXPRESSION_TAGS = ("rg", "ins")
# The possessive quantifiers keep the scan linear. The names are ASCII only, because lower() must not see "ſ"
# or the Kelvin sign.
_TAG = re.compile(r"<\s*+(/?)\s*+((?ai:think|answer|rg|ins))\s*+>")
_EXCERPT = 40


class MissingTagError(ResponseError):
    """An expected tag is missing."""


class WrongTagError(ResponseError):
    """A tag is the expression tag of another task, or is not written exactly (`<THINK>`, `< rg>`)."""


class NestedTagError(ResponseError):
    """A tag is inside the reasoning or inside an expression."""


class RepeatedTagError(ResponseError):
    """There is a second reasoning or answer, or a second expression where the task has only one."""


class EmptyExpressionError(ResponseError):
    """An expression has no text."""


class StrayTextError(ResponseError):
    """There is text outside the reasoning and the expressions."""


@dataclass(frozen=True)
class Response:
    """A response in parts. Every valid one reads back the same: `parse_strict(response.text, task)`.

    White space around the reasoning is removed; in an expression each run of white space becomes one space.

    Attributes:
        reasoning: the explanation; empty if the policy is asked only for the answer.
        expressions: a referring expression for each salient object; empty if nothing is salient. At most one
            for the tag `rg`.
        tag: the tag of the expressions, `rg` or `ins`.

    Raises:
        ResponseError: if the text could not be read back: a part with a tag, an empty expression, a second
            region, an unknown tag.
        TypeError: if the expressions are one string.
    """

    reasoning: str
    expressions: tuple[str, ...]
    tag: str

    def __post_init__(self) -> None:
        expressions: object = self.expressions
        if isinstance(expressions, str):
            raise TypeError(f"expressions must be a sequence of strings, not one string: {expressions!r}")
        object.__setattr__(self, "reasoning", self.reasoning.strip())
        object.__setattr__(self, "expressions", tuple(" ".join(text.split()) for text in self.expressions))
        if self.tag not in _EXPRESSION_TAGS:
            raise WrongTagError(f"found the expression tag {self.tag!r}, expected one of rg, ins")
        if self.tag == "rg" and len(self.expressions) > 1:
            raise RepeatedTagError(f"found {len(self.expressions)} expressions, expected at most one <rg>")
        for part in (self.reasoning, *self.expressions):
            if match := _TAG.search(part):
                raise NestedTagError(f"found {match[0]!r} in {_excerpt(part)}, expected text without tags")
        if not all(self.expressions):
            raise EmptyExpressionError("found an empty expression, expected text that names what is salient")

    @property
    def text(self) -> str:
        """The response as the policy writes it, without white space between the tags."""
        inner = "".join(f"<{self.tag}>{expression}</{self.tag}>" for expression in self.expressions)
        return f"<think>{self.reasoning}</think><answer>{inner}</answer>"


def parse_strict(text: str, task: Task | str) -> Response:
    """Read a response that has exactly the task's form, as training and rewards require.

    The form is `<think>…</think><answer>…</answer>` with the tags in lower case and in the answer one
    `<rg>…</rg>` (SOD, CoSOD) or any number of `<ins>…</ins>` (SIS); `<answer></answer>` is allowed in every
    task. White space around tags is allowed, because it has no meaning and chat models write it; any other
    text outside the reasoning and the expressions is an error. The reasoning may be empty, an expression may
    not.

    Args:
        text: the response.
        task: the task that was asked.

    Raises:
        ResponseError: `MissingTagError`, `WrongTagError`, `NestedTagError`, `RepeatedTagError`,
            `EmptyExpressionError` or `StrayTextError`; the message says what was found and what was expected.
        SaliencyError: if there is no such task.

    Example:
        >>> parse_strict("<think>Large.</think><answer><rg>brown dog</rg></answer>", "sod").expressions
        ('brown dog',)
    """
    spec = Task.parse(task).spec
    reader = _Reader(text)
    reader.take("<think>")
    reasoning = reader.take("</think>")
    reader.take("<answer>")
    opening, closing = f"<{spec.tag}>", f"</{spec.tag}>"
    expressions: list[str] = []
    while reader.upcoming != "</answer>":
        if expressions and not spec.several_expressions:
            if reader.upcoming == opening:
                raise RepeatedTagError(f"found a second {opening}, expected </answer> after one expression")
            break
        reader.take(opening, instead="</answer>")
        expression = reader.take(closing)
        if not expression.strip():
            raise EmptyExpressionError(f"found {opening}{closing} without text, expected an expression in it")
        expressions.append(expression)
    reader.take("</answer>")
    reader.finish()
    return Response(reasoning, tuple(expressions), spec.tag)


def parse_lenient(text: str, task: Task | str) -> Response:
    """Read any response as well as possible, as inference requires. It never raises for a string.

    If `parse_strict` succeeds, the result is the same. Otherwise:

    - Tags count in any case and with white space inside the brackets; a tag cut off at the end of the text is
      dropped.
    - A thinking model's own thoughts before its response are dropped; see `own_thoughts_end`.
    - The reasoning starts after the first `<think>`, or at the start of the text if there is none, and runs
      to the `</think>` that closes it if an answer follows that, with any quoted tags between; otherwise to
      the first `</think>` that an answer follows, or to the first `<answer>` or expression tag, or to the
      end.
    - The answer runs from the first `<answer>` outside the reasoning to the next `</answer>`, `<answer>` or
      `<think>`, or to the end. Without an `<answer>` everything outside the reasoning counts.
    - Both expression tags are read as the task's own. An expression runs to the next tag or the end; empty
      ones are dropped; SOD and CoSOD keep the first. An `<answer>` with text but without expression tags is
      one expression.
    - A text without any tag is a reasoning that names nothing.

    Args:
        text: the response, which may be cut off or malformed.
        task: the task that was asked.

    Raises:
        SaliencyError: if there is no such task.

    Example:
        >>> parse_lenient("Sure! <ANSWER> <rg> brown  dog </answer>", "sod")
        Response(reasoning='Sure!', expressions=('brown dog',), tag='rg')
    """
    spec = Task.parse(task).spec
    pieces = _pieces(text[own_thoughts_end(text) :])
    thought = _reasoning_span(pieces)
    reasoning = " ".join(piece.content for piece in pieces[thought.start : thought.stop])
    if _TAG.search(reasoning):  # "<" and "rg>" were on either side of a tag
        reasoning = reasoning.replace("<", "")
    outside = [piece for index, piece in enumerate(pieces) if index not in thought]

    answer_at = next((index for index, piece in enumerate(outside) if piece.tag == "<answer>"), None)
    if answer_at is not None:
        end = answer_at + 1
        while end < len(outside) and outside[end].tag not in ("</answer>", "<answer>", "<think>"):
            end += 1
        outside = outside[answer_at:end]
    named = [piece.content for piece in outside if piece.tag in ("<rg>", "<ins>")]
    if not named and answer_at is not None:
        named = [outside[0].content]

    expressions = [expression for expression in named if expression.strip()]
    if not spec.several_expressions:
        expressions = expressions[:1]
    return Response(reasoning, tuple(expressions), spec.tag)


def own_thoughts_end(text: str) -> int:
    """Find the beginning of a response after a thinking model's own thoughts.

    Args:
        text: the model's text, unchanged.

    Returns:
        The position of the second `<think>` of `<think>…</think><think>…`, where tags within the first pair
        are not counted; 0 if the text does not begin like that.

    Example:
        >>> own_thoughts_end("<think>Which format? ...</think><think>Large.</think><answer></answer>")
        32
    """
    matches = list(_TAG.finditer(text))
    close = _closing([_plain(match) for match in matches])
    if close is None or close + 1 == len(matches) or text[: matches[0].start()].strip():
        return 0
    following = matches[close + 1]
    between = text[matches[close].end() : following.start()]
    return following.start() if _plain(following) == "<think>" and not between.strip() else 0


def _closing(tags: Sequence[str]) -> int | None:
    """Return the index of the `</think>` that closes a `<think>` at the start, counting pairs between."""
    depth = 0
    for index, tag in enumerate(tags):
        depth += {"<think>": 1, "</think>": -1}.get(tag, 0)
        if depth <= 0:
            return index if index else None
    return None


class _Piece(NamedTuple):
    """A tag in its plain spelling ("" before the first one) and the text up to the next tag."""

    tag: str
    content: str


class _Reader:
    """Step through a text from tag to tag, and report an unexpected one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._matches: Iterator[re.Match[str]] = _TAG.finditer(text)
        self._match = next(self._matches, None)
        self._position = 0
        self._last = ""
        self._opened: set[str] = set()

    @property
    def upcoming(self) -> str | None:
        """Return the next tag as it is written, None at the end."""
        return self._match[0] if self._match else None

    def take(self, expected: str, instead: str | None = None) -> str:
        """Step over the next tag, which must be `expected`; the text before it.

        Before an opening tag and before `</answer>` there may be only white space. `instead` is only for the
        message.
        """
        inside = expected.startswith("</") and expected != "</answer>"
        wanted = f"{expected} or {instead}" if instead else expected
        if self._match is None:
            where = f" after {self._last}" if self._last else ""
            raise MissingTagError(f"found the end of the text{where}, expected {wanted}")
        if self._match[0] != expected:
            raise self._fault(self._match, wanted, inside)
        before = self._text[self._position : self._match.start()]
        if not inside and before.strip():
            raise StrayTextError(f"found the text {_excerpt(before)}, expected {wanted}")
        self._opened.add(expected)
        self._last = expected
        self._position = self._match.end()
        self._match = next(self._matches, None)
        return before

    def finish(self) -> None:
        """Check that there is no more text."""
        rest = self._text[self._position :]
        if self._match:
            raise self._fault(self._match, "the end of the text", inside=False)
        if rest.strip():
            raise StrayTextError(f"found the text {_excerpt(rest)}, expected the end after {self._last}")

    def _fault(self, match: re.Match[str], wanted: str, inside: bool) -> ResponseError:
        found, plain = match[0], _plain(match)
        message = (
            f"found {_excerpt(found)}"
            + (f" after {self._last}" if self._last else "")
            + f", expected {wanted}"
        )
        if found != plain:
            return WrongTagError(f"{message}, written exactly so")
        other = {"rg": "ins", "ins": "rg"}.get(match[2])
        if other and f"{other}>" in wanted:
            return WrongTagError(message)
        if inside and not match[1] and self._text.find(wanted, match.end()) >= 0:
            return NestedTagError(message)
        if plain in self._opened and not other:
            return RepeatedTagError(message)
        return MissingTagError(message)


def _plain(match: re.Match[str]) -> str:
    return f"<{match[1]}{match[2].lower()}>"


def _excerpt(text: str) -> str:
    """Return the text on one line, shortened."""
    return repr(text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…")


def _pieces(text: str) -> list[_Piece]:
    pieces, tag, start = [], "", 0
    for match in _TAG.finditer(text):
        pieces.append(_Piece(tag, text[start : match.start()]))
        tag, start = _plain(match), match.end()
    pieces.append(_Piece(tag, _without_cut_tag(text[start:])))
    return pieces


def _without_cut_tag(text: str) -> str:
    """Drop the rest of a tag in which a generation stopped: `…</ans`."""
    at = text.rfind("<")
    if at < 0:
        return text
    rest = "".join(text[at : at + 2 * _EXCERPT].split()).lower()
    tags = ("<think>", "</think>", "<answer>", "</answer>", "<rg>", "</rg>", "<ins>", "</ins>")
    return text[:at] if any(tag.startswith(rest) for tag in tags) else text


def _reasoning_span(pieces: list[_Piece]) -> range:
    """Select the pieces that are the reasoning, as `parse_lenient` defines it."""
    tags = [piece.tag for piece in pieces]
    start = tags.index("<think>") if "<think>" in tags else 0
    answers = [i for i in range(start, len(tags)) if tags[i] in ("<answer>", "<rg>", "<ins>")]
    own = _closing(tags[start:])
    if own is not None and answers and start + own < answers[-1]:
        return range(start, start + own)
    close = next((i for i in range(start, len(tags)) if tags[i] == "</think>"), len(tags))
    if not answers or close < answers[-1]:
        return range(start, close)
    return range(start, answers[0])
