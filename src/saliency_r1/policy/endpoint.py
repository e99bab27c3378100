"""Asking a model behind an OpenAI-compatible endpoint: vLLM, transformers serve, Ollama, a commercial one."""

from __future__ import annotations

import asyncio
import math
import os
from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.policy.options import ENDPOINT, TIMEOUT_SECONDS
from saliency_r1.policy.photo_size import MAX_PIXELS, check_max_pixels, shrink, workable

if TYPE_CHECKING:
    from PIL import Image

KEY_VARIABLE = "OPENAI_API_KEY"
CONCURRENT = 8
"""Questions that are under way at a time."""
RETRIES = 3
"""Further tries of a request that failed for no fault of its own."""

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""A conversation, as the API takes it; see `Endpoint.question`."""

_JPEG_QUALITY = 90
_LONGEST_REASON = 300
_T = TypeVar("_T")

_FORMS: tuple[tuple[str, frozenset[str]], ...] = (
    ("max_tokens", frozenset({"temperature", "seed", "logprobs"})),
    ("max_tokens", frozenset({"temperature"})),
    ("max_completion_tokens", frozenset()),
)
"""How a request calls its limit of tokens, and which options it keeps, in the order they are tried: servers
and models differ in what they take, and refuse the rest."""


class EndpointError(SaliencyError):
    """A question to an endpoint that got no answer, or one that is none; the message names model and URL."""


@dataclass(frozen=True)
class Answer:
    """What a model behind an endpoint answered.

    Attributes:
        text: all of it; reasoning that the server split off is put back.
        logprobs: the log-probability of each token; empty where they are not served, or do not fit the text.
        pieces: the text of each of these tokens.
        prompt_tokens, completion_tokens: what the server counted, photos included; None where it does not.
    """

    text: str
    logprobs: list[float]
    pieces: list[str]
    prompt_tokens: int | None
    completion_tokens: int | None


class Endpoint:
    """A model that a server runs.

    Photos travel as JPEG data URLs. A request that gets no answer in half of `timeout`, or that fails with a
    connection error or HTTP 408, 409, 429 or 5xx, is repeated, at most three times and with growing pauses,
    until `timeout` is over. The API key is that in the environment variable OPENAI_API_KEY; without one a
    placeholder is sent.

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
        self.url, self._host = _checked(url)
        self.model = model
        self.timeout = timeout
        self.max_pixels = check_max_pixels(MAX_PIXELS if max_pixels is None else max_pixels)
        self._form = 0

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
            options: `temperature`, `seed` and `logprobs` as wanted; a server that refuses them is asked
                without them from then on.

        Raises:
            EndpointError: if the server gives no answer in time, or one that is none.
        """
        return _run(self._ask_all(conversations, max_new_tokens, options))

    async def _ask_all(
        self, conversations: Sequence[Messages], max_new_tokens: int, options: Mapping[str, Any]
    ) -> list[Answer]:
        turn = asyncio.Semaphore(CONCURRENT)
        async with self._client() as client:

            async def answer(messages: Messages) -> Answer:
                async with turn:
                    return await self._answer(client, messages, max_new_tokens, options)

            return list(await asyncio.gather(*(answer(messages) for messages in conversations)))

    def _client(self) -> Any:
        from openai import AsyncOpenAI, DefaultAsyncHttpx2Client

        class Client(AsyncOpenAI):
            # What machine and Python this is, is nobody's business.
            def platform_headers(self) -> dict[str, str]:
                return {}

        return Client(
            base_url=self.url,
            api_key=os.environ.get(KEY_VARIABLE) or "none",
            max_retries=RETRIES,
            timeout=self.timeout / 2,
            # A proxy has no way to this machine's own loopback.
            http_client=DefaultAsyncHttpx2Client(trust_env=not _is_loopback(self._host)),
        )

    async def _answer(
        self, client: Any, messages: Messages, max_new_tokens: int, options: Mapping[str, Any]
    ) -> Answer:
        """One question, with its deadline; whatever goes wrong is one clear error."""
        import openai

        try:
            async with asyncio.timeout(self.timeout):
                completion = await self._complete(client, messages, max_new_tokens, options)
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
            raise self._error(f"HTTP {error.status_code}: {_line(error)}") from None
        except (openai.OpenAIError, ValueError) as error:
            raise self._error(f"its answer is no chat completion ({_line(error)})") from None
        return self._read(completion)

    async def _complete(
        self, client: Any, messages: Messages, max_new_tokens: int, options: Mapping[str, Any]
    ) -> Any:
        """The completion, in the first form of request that the server takes."""
        import openai

        while True:
            form = self._form
            limit, known = _FORMS[form]
            kept = {name: value for name, value in options.items() if name in known}
            try:
                return await client.chat.completions.create(
                    model=self.model, messages=messages, **{limit: max_new_tokens}, **kept
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                if form + 1 == len(_FORMS):
                    raise
                self._form = max(self._form, form + 1)

    def _data_url(self, image: Image.Image) -> str:
        file = BytesIO()
        shrink(workable(image, self.max_pixels), self.max_pixels).save(
            file, format="JPEG", quality=_JPEG_QUALITY
        )
        return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode('ascii')}"

    def _read(self, completion: Any) -> Answer:
        """What the server answered, read with suspicion."""
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
        counts = (_count(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens"))
        return Answer(_with_reasoning(content, message), logprobs, pieces, *counts)

    def _error(self, what: str) -> EndpointError:
        return EndpointError(f"the model {self.model!r} at {self.url}: {what}")


def _checked(url: str) -> tuple[str, str]:
    """The URL without a slash at its end, and its host."""
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
    return url.rstrip("/"), host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end, also where a loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


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
