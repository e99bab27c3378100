"""Ask a model behind an OpenAI-compatible endpoint: vLLM, transformers serve, Ollama, a commercial one."""

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
"""Maximum number of concurrent questions."""
RETRIES = 3
"""Further tries of a request after a temporary failure."""
LARGER = 8
"""Factor for the limit of tokens if a model used all of them before it wrote an answer."""

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""A conversation in the form of the API; see `Endpoint.question`."""

_JPEG_QUALITY = 90
_LONGEST_REASON = 300
_T = TypeVar("_T")


class EndpointError(SaliencyError):
    """A question to an endpoint got no valid answer; the message names model and URL."""


class RefusedQuestionError(EndpointError, ImageError):
    """A server refused or did not finish a question; others are not affected."""


@dataclass(frozen=True)
class Answer:
    """The answer of a model behind an endpoint.

    Attributes:
        text: the whole text; reasoning that the server split off is put back.
        logprobs: the log-probability of each token; empty if not served, or if they do not fit the text.
        pieces: the text of each of these tokens.
        prompt_tokens, completion_tokens: the server's counts, photos included; None if it has none.
        finish_reason: why it ended: `stop`, `length` if it was cut, or another reason of the server.
    """

    text: str
    logprobs: list[float]
    pieces: list[str]
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None = None


class Endpoint:
    """A model that a server runs.

    Photos are sent as JPEG data URLs. All questions share one HTTP client, and up to eight run at a time,
    from any thread. A request that gets no answer in half of `timeout`, or that fails with a
    connection error or HTTP 408, 409, 429 or 5xx, is repeated, at most three times and with growing pauses,
    until `timeout` is over. A request that is refused with HTTP 400 or 422 is repeated in simpler forms. A
    parameter is left out permanently only if the server says that it does not accept it. The API key is read
    from the environment variable OPENAI_API_KEY; without one a placeholder is sent.

    Args:
        url: address of the API, `http://localhost:8000/v1`.
        model: the server's name of the model.
        timeout: seconds for one question, including retries.
        max_pixels: maximum pixels of a photo.

    Raises:
        SaliencyError: if an argument is invalid, or the package openai is not installed.
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
        """Create the endpoint of an address.

        Args:
            address: `openai:URL#MODEL`, as in `openai:http://localhost:8000/v1#Qwen2.5-VL-7B`.
            timeout, max_pixels: see the class.

        Raises:
            SaliencyError: if the address is invalid; otherwise see the class.
        """
        url, _, model = address.removeprefix(ENDPOINT).partition("#")
        if not model.strip():
            raise SaliencyError(f"{address}: no model; expected {ENDPOINT}http://HOST:PORT/v1#MODEL")
        return cls(url, model.strip(), timeout=timeout, max_pixels=max_pixels)

    @property
    def name(self) -> str:
        """The names of model and server."""
        return f"{self.model} at {urlsplit(self.url).netloc}"

    def question(self, images: Sequence[Image.Image], text: str) -> dict[str, Any]:
        """Return a user's message with images (RGB) and a question about them."""
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": self._data_url(image)}} for image in images
        ]
        return {"role": "user", "content": [*content, {"type": "text", "text": text}]}

    def ask(
        self, conversations: Sequence[Messages], max_new_tokens: int, options: Mapping[str, Any]
    ) -> list[Answer]:
        """The answer to each conversation; up to eight questions run at a time.

        Args:
            conversations: messages, the last one the user's.
            max_new_tokens: maximum tokens of an answer.
            options: `temperature`, `seed` and `logprobs`, and `structured`, which is added to the request's
                body unchanged; an option that the server does not know is left out from then on.

        Raises:
            RefusedQuestionError: if the server refuses a question, withholds its answer, or spends all
                tokens before it writes anything.
            EndpointError: if the server gives no valid answer in time.
        """

        async def every() -> list[Answer]:
            return await asyncio.gather(
                *(self.answer(messages, max_new_tokens, options) for messages in conversations)
            )

        return self.connection.run(every())

    async def answer(self, messages: Messages, max_new_tokens: int, options: Mapping[str, Any]) -> Answer:
        """Return the answer to one conversation, in the loop of `connection`; see `ask`."""
        async with self.connection.turn:
            return await self._in_time(self._written(messages, max_new_tokens, options))

    async def server(self) -> str:
        """Return the server's name as the owner of its model, in lower case; asked for once."""
        if self._server is None:
            models = await self._in_time(self.connection.client.models.list())
            entries = models.data if isinstance(getattr(models, "data", None), list) else []
            owners = {getattr(one, "id", None): str(getattr(one, "owned_by", "")).lower() for one in entries}
            self._server = owners.get(self.model) or next(iter(owners.values()), "")
        return self._server

    async def _in_time(self, work: Awaitable[_T]) -> _T:
        """Ask one question with its deadline; every failure becomes one clear error."""
        import openai

        try:
            async with asyncio.timeout(self.timeout):
                return await work
        except (TimeoutError, openai.OpenAIError, ValueError) as error:
            refused = isinstance(error, openai.APIStatusError) and error.status_code in (400, 413, 422)
            raise self._error(self._reason(error), refused=refused) from None

    def _reason(self, error: Exception) -> str:
        """Return why a question got no answer, and what to do."""
        import openai

        match error:
            case TimeoutError() | openai.APITimeoutError():
                return f"no answer within {self.timeout:g} seconds; is the server busy? Or give it more time"
            case openai.APIConnectionError():
                return f"it cannot be reached, or broke off its answer ({_line(error.__cause__ or error)})"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"it does not accept the API key (HTTP {error.status_code}); set {KEY_VARIABLE}"
            case openai.NotFoundError():
                return f"HTTP 404, no such model, or the URL does not end as it should (/v1): {_line(error)}"
            case openai.APIStatusError():
                return f"HTTP {error.status_code}: {_line(error)}"
            case _:
                return f"its answer is no chat completion ({_line(error)})"

    async def _written(self, messages: Messages, max_new_tokens: int, options: Mapping[str, Any]) -> Answer:
        """Return the answer; if it was cut before anything was written, ask once more with a larger limit."""
        limit = self._reach * max_new_tokens
        answer, content = self._read(await self._complete(messages, limit, options))
        if not content and answer.finish_reason == "length" and limit == max_new_tokens:
            limit = LARGER * max_new_tokens
            answer, content = self._read(await self._complete(messages, limit, options))
            if content:
                self._reach = LARGER  # it reasons invisibly, and will do so again
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
        """Return the completion, in the first form of request that the server accepts."""
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
        """Read the server's answer defensively; return it with the part that the server calls its answer."""
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
    """Return the URL without a slash at its end."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # an invalid port raises
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
    """Return an error's text on one line, shortened."""
    text = one_line(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _with_reasoning(content: str, message: Any) -> str:
    """Return the response; put back reasoning that the server split off."""
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if isinstance(reasoning, str) and reasoning.strip() and "think>" not in content:
        return f"<think>{reasoning.strip()}</think>{content.strip()}"
    return content


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _tokens(logprobs: Any) -> tuple[list[float], list[str]]:
    """Return log-probability and text of each token; nothing if they are not served or invalid."""
    entries = getattr(logprobs, "content", None)
    if not isinstance(entries, list) or not entries:
        return [], []
    values: list[Any] = [getattr(entry, "logprob", None) for entry in entries]
    if not all(isinstance(value, int | float) and value <= 1e-3 for value in values):  # False for NaN
        return [], []
    raw: list[Any] = [getattr(entry, "bytes", None) for entry in entries]
    if all(isinstance(part, list) for part in raw):
        # A character may have several tokens, which then have no text of their own.
        decode = getincrementaldecoder("utf-8")("replace").decode
        try:
            return [min(0.0, float(value)) for value in values], [decode(bytes(part)) for part in raw]
        except ValueError:
            return [], []
    pieces = [getattr(entry, "token", None) for entry in entries]
    if not all(isinstance(piece, str) for piece in pieces):
        return [], []
    return [min(0.0, float(value)) for value in values], [str(piece) for piece in pieces]
