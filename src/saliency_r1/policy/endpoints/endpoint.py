"""Asking a model behind an OpenAI-compatible endpoint: vLLM, transformers serve, Ollama, a commercial one."""

from __future__ import annotations

import asyncio
import math
import os
from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from saliency_r1.errors import ImageError, SaliencyError, one_line
from saliency_r1.policy.endpoints.connection import Connection
from saliency_r1.policy.endpoints.request_form import PLAINER, parameters, refused_parameters
from saliency_r1.policy.options import ENDPOINT, TIMEOUT_SECONDS
from saliency_r1.policy.photo_size import MAX_PIXELS, check_max_pixels, shrink, workable

if TYPE_CHECKING:
    from PIL import Image

KEY_VARIABLE = "OPENAI_API_KEY"
CONCURRENT = 8
"""Questions that are under way at a time."""
RETRIES = 3
"""Further tries of a request that failed for no fault of its own."""
LARGER = 8
"""By how much the limit of tokens grows for a model that spent it before it wrote anything."""

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""A conversation, as the API takes it; see `Endpoint.question`."""

_JPEG_QUALITY = 90
_LONGEST_REASON = 300
_T = TypeVar("_T")


class EndpointError(SaliencyError):
    """A question to an endpoint that got no answer, or one that is none; the message names model and URL."""


class RefusedQuestionError(EndpointError, ImageError):
    """A question that a server refused or did not finish; others are not affected."""


@dataclass(frozen=True)
class Answer:
    """What a model behind an endpoint answered.

    Attributes:
        text: all of it; reasoning that the server split off is put back.
        logprobs: the log-probability of each token; empty where they are not served, or do not fit the text.
        pieces: the text of each of these tokens.
        prompt_tokens, completion_tokens: what the server counted, photos included; None where it does not.
        finish_reason: why it ended: `stop`, `length` where it was cut, or what else the server says.
    """

    text: str
    logprobs: list[float]
    pieces: list[str]
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None = None


class Endpoint:
    """A model that a server runs.

    Photos travel as JPEG data URLs. All questions share one HTTP client, and up to eight are under way at a
    time, whichever threads ask. A request that gets no answer in half of `timeout`, or that fails with a
    connection error or HTTP 408, 409, 429 or 5xx, is repeated, at most three times and with growing pauses,
    until `timeout` is over. One that is refused with HTTP 400 or 422 is repeated in plainer forms; a
    parameter is left out for good only if the server says that it does not take it. The API key is that in
    the environment variable OPENAI_API_KEY; without one a placeholder is sent.

    Args:
        url: of the API, `http://localhost:8000/v1`.
        model: what the server calls it.
        timeout: seconds for one question, all tries together.
        max_pixels: pixels of a photo at most.

    Raises:
        SaliencyError: if an argument cannot be worked with, or the package openai is not installed.
    """

    def __init__(
        self, url: str, model: str, *, timeout: float = TIMEOUT_SECONDS, max_pixels: int | None = None
    ) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise SaliencyError(f"timeout is {timeout}: give seconds, more than 0")
        try:
            import openai  # noqa: F401
        except ImportError:
            raise SaliencyError(
                "a model behind an endpoint needs the package openai: pip install 'saliency-r1[endpoint]'"
            ) from None
        self.url = _checked(url)
        self.model = model
        self.timeout = timeout
        self.max_pixels = check_max_pixels(MAX_PIXELS if max_pixels is None else max_pixels)
        self._without: frozenset[str] = frozenset()
        self._reach = 1
        self._server: str | None = None
        self.connection = Connection(
            self.url,
            os.environ.get(KEY_VARIABLE) or "none",
            concurrent=CONCURRENT,
            retries=RETRIES,
            timeout=timeout / 2,
        )

    @classmethod
    def from_address(
        cls, address: str, *, timeout: float = TIMEOUT_SECONDS, max_pixels: int | None = None
    ) -> Endpoint:
        """The model at an address.

        Args:
            address: `openai:URL#MODEL`, as in `openai:http://localhost:8000/v1#Qwen2.5-VL-7B`.
            timeout, max_pixels: see the class.

        Raises:
            SaliencyError: if it is no such address; else see the class.
        """
        url, _, model = address.removeprefix(ENDPOINT).partition("#")
        if not model.strip():
            raise SaliencyError(f"{address}: no model; expected {ENDPOINT}http://HOST:PORT/v1#MODEL")
        return cls(url, model.strip(), timeout=timeout, max_pixels=max_pixels)

    @property
    def name(self) -> str:
        """The model and the server."""
        return f"{self.model} at {urlsplit(self.url).netloc}"

    def question(self, images: Sequence[Image.Image], text: str) -> dict[str, Any]:
        """The message of a user who shows images (RGB) and asks something about them."""
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": self._data_url(image)}} for image in images
        ]
        return {"role": "user", "content": [*content, {"type": "text", "text": text}]}

    def ask(
        self, conversations: Sequence[Messages], max_new_tokens: int, options: Mapping[str, Any]
    ) -> list[Answer]:
        """The answer to each conversation; up to eight questions are under way at a time.

        Args:
            conversations: messages, the last one the user's.
            max_new_tokens: where an answer ends at the latest.
            options: `temperature`, `seed` and `logprobs` as wanted, and `structured`, which goes into the
                request's body as it is; a server that says it does not know one is asked without it from
                then on.

        Raises:
            RefusedQuestionError: if the server refuses a question, withholds its answer, or spends all
                tokens before it writes anything.
            EndpointError: if the server gives no answer in time, or one that is none.
        """

        async def every() -> list[Answer]:
            return await asyncio.gather(
                *(self.answer(messages, max_new_tokens, options) for messages in conversations)
            )

        return self.connection.run(every())

    async def answer(self, messages: Messages, max_new_tokens: int, options: Mapping[str, Any]) -> Answer:
        """The answer to one conversation, in the loop of `connection`; see `ask`."""
        async with self.connection.turn:
            return await self._in_time(self._written(messages, max_new_tokens, options))

    async def server(self) -> str:
        """What the server calls itself as the owner of its model, in lower case; asked for once."""
        if self._server is None:
            models = await self._in_time(self.connection.client.models.list())
            entries = models.data if isinstance(getattr(models, "data", None), list) else []
            owners = {getattr(one, "id", None): str(getattr(one, "owned_by", "")).lower() for one in entries}
            self._server = owners.get(self.model) or next(iter(owners.values()), "")
        return self._server

    async def _in_time(self, work: Awaitable[_T]) -> _T:
        """One question, with its deadline; whatever goes wrong is one clear error."""
        import openai

        try:
            async with asyncio.timeout(self.timeout):
                return await work
        except (TimeoutError, openai.APITimeoutError):
            raise self._error(
                f"no answer within {self.timeout:g} seconds; is the server busy? Or give it more time"
            ) from None
        except openai.APIConnectionError as error:
            raise self._error(
                f"it cannot be reached, or broke off its answer ({_line(error.__cause__ or error)})"
            ) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._error(
                f"it does not accept the API key (HTTP {error.status_code}); set {KEY_VARIABLE}"
            ) from None
        except openai.NotFoundError as error:
            raise self._error(
                f"HTTP 404, no such model, or the URL does not end as it should (/v1): {_line(error)}"
            ) from None
        except openai.APIStatusError as error:
            refused = error.status_code in (400, 413, 422)
            raise self._error(f"HTTP {error.status_code}: {_line(error)}", refused=refused) from None
        except (openai.OpenAIError, ValueError) as error:
            raise self._error(f"its answer is no chat completion ({_line(error)})") from None

    async def _written(self, messages: Messages, max_new_tokens: int, options: Mapping[str, Any]) -> Answer:
        """The answer; one that was cut before anything was written is asked for with a larger limit, once."""
        limit = self._reach * max_new_tokens
        answer, content = self._read(await self._complete(messages, limit, options))
        if not content and answer.finish_reason == "length" and limit == max_new_tokens:
            limit = LARGER * max_new_tokens
            answer, content = self._read(await self._complete(messages, limit, options))
            if content:
                self._reach = LARGER  # it reasons unseen, and will again
        if not content and answer.finish_reason == "length":
            spent = answer.completion_tokens or limit
            raise self._error(
                f"it spent {spent} tokens on hidden reasoning and wrote no answer; allow more "
                "(--max-new-tokens), or have it reason less",
                refused=True,
            )
        if not content and answer.finish_reason == "content_filter":
            raise self._error("its content filter withheld the answer", refused=True)
        return answer

    async def _complete(self, messages: Messages, limit: int, options: Mapping[str, Any]) -> Any:
        """The completion, in the first form of request that the server takes."""
        import openai

        first: openai.APIStatusError | None = None
        here: frozenset[str] = frozenset()
        plainer = iter(PLAINER)
        while True:
            without = self._without | here
            sent = parameters(limit, options, without)
            try:
                return await self.connection.client.chat.completions.create(
                    model=self.model, messages=messages, **sent
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                first = first or error
                if unknown := refused_parameters(error, sent):
                    self._without |= unknown
                    continue
                known = {*options, "max_tokens"}
                step = next((step for step in plainer if step & known - without), None)
                if step is None:
                    raise first from None
                here |= step

    def _data_url(self, image: Image.Image) -> str:
        file = BytesIO()
        shrink(workable(image, self.max_pixels), self.max_pixels).save(
            file, format="JPEG", quality=_JPEG_QUALITY
        )
        return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode('ascii')}"

    def _read(self, completion: Any) -> tuple[Answer, str]:
        """What the server answered, read with suspicion; and the part that it calls its answer."""
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        content = getattr(message, "content", choice)
        if message is None or not (content is None or isinstance(content, str)):
            raise self._error(
                "its answer is no chat completion; look whether the URL ends as it should (/v1)"
            )
        content = content or ""
        logprobs, pieces = _tokens(getattr(choice, "logprobs", None))
        if content.strip() not in "".join(pieces):
            logprobs, pieces = [], []
        usage = getattr(completion, "usage", None)
        asked, written = (
            _count(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens")
        )
        reason = getattr(choice, "finish_reason", None)
        reason = reason if isinstance(reason, str) else None
        return Answer(
            _with_reasoning(content, message), logprobs, pieces, asked, written, reason
        ), content.strip()

    def _error(self, what: str, *, refused: bool = False) -> EndpointError:
        kind = RefusedQuestionError if refused else EndpointError
        return kind(f"the model {self.model!r} at {self.url}: {what}")


def _checked(url: str) -> str:
    """The URL without a slash at its end."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is none raises
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise SaliencyError(f"{url!r} is no address of a server: expected http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query:
        raise SaliencyError(
            f"the address of the server {host!r} holds more than a place: a key belongs in the environment "
            f"variable {KEY_VARIABLE}"
        )
    return url.rstrip("/")


def _line(error: object) -> str:
    """An error's text on one line, shortened."""
    text = one_line(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _with_reasoning(content: str, message: Any) -> str:
    """The response; a server may have split off what stands between the tags of the reasoning."""
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if isinstance(reasoning, str) and reasoning.strip() and "think>" not in content:
        return f"<think>{reasoning.strip()}</think>{content.strip()}"
    return content


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _tokens(logprobs: Any) -> tuple[list[float], list[str]]:
    """Log-probability and text of each token; nothing where they are not served, or cannot be such."""
    entries = getattr(logprobs, "content", None)
    if not isinstance(entries, list) or not entries:
        return [], []
    values: list[Any] = [getattr(entry, "logprob", None) for entry in entries]
    if not all(isinstance(value, int | float) and value <= 1e-3 for value in values):  # false for NaN
        return [], []
    raw: list[Any] = [getattr(entry, "bytes", None) for entry in entries]
    if all(isinstance(part, list) for part in raw):
        # A character may take several tokens, which then have no text of their own.
        decode = getincrementaldecoder("utf-8")("replace").decode
        try:
            return [min(0.0, float(value)) for value in values], [decode(bytes(part)) for part in raw]
        except ValueError:
            return [], []
    pieces = [getattr(entry, "token", None) for entry in entries]
    if not all(isinstance(piece, str) for piece in pieces):
        return [], []
    return [min(0.0, float(value)) for value in values], [str(piece) for piece in pieces]
