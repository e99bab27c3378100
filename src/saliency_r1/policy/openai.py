"""A policy behind an OpenAI-compatible endpoint: vLLM, transformers serve, Ollama, a commercial model."""

from __future__ import annotations

import asyncio
import math
import os
from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from saliency_r1.errors import SaliencyError
from saliency_r1.policy.asking import Questions, ask
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.confidence import confidence, expression_confidences
from saliency_r1.policy.loading import ENDPOINT, TIMEOUT_SECONDS
from saliency_r1.policy.pixels import MAX_PIXELS, check_max_pixels, shrink, workable
from saliency_r1.policy.prompts import Prompting
from saliency_r1.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

KEY_VARIABLE = "OPENAI_API_KEY"
CONCURRENT = 8
"""Questions that are under way at a time."""
RETRIES = 3
"""Further tries of a request that failed for no fault of its own."""

_JPEG_QUALITY = 90
_LONGEST_REASON = 300
_T = TypeVar("_T")

_FORMS: tuple[dict[str, Any], ...] = (
    {"limit": "max_tokens", "temperature": 0, "logprobs": True},
    {"limit": "max_tokens", "temperature": 0},
    {"limit": "max_completion_tokens"},
)
"""What a request asks for besides an answer, in the order they are tried: servers and models differ in what
they take, and refuse the rest."""


class OpenAIPolicy:
    """Writes responses with a model that a server runs.

    Photos travel as JPEG data URLs. A request that gets no answer in half of `timeout`, or that fails with a
    connection error or HTTP 408, 409, 429 or 5xx, is repeated, at most three times and with growing pauses,
    until `timeout` is over. The API key is that in the environment variable OPENAI_API_KEY; without one a
    placeholder is sent.

    Args:
        url: of the API, `http://localhost:8000/v1`.
        model: what the server calls it.
        timeout: seconds for one question, all tries together.
        max_pixels: pixels of a photo at most.
        zero_shot: whether the response format must be explained to it, see `saliency_r1.policy.asking`.

    Raises:
        SaliencyError: if an argument cannot be worked with, or the package openai is not installed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_pixels: int = MAX_PIXELS,
        zero_shot: bool = True,
    ) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise SaliencyError(f"timeout is {timeout}: give seconds, more than 0")
        try:
            import openai  # noqa: F401
        except ImportError:
            raise SaliencyError(
                "a policy behind an endpoint needs the package openai: pip install 'saliency-r1[endpoint]'"
            ) from None
        self.url, self._host = _checked(url)
        self.model = model
        self.timeout = timeout
        self.max_pixels = check_max_pixels(max_pixels)
        self.zero_shot = zero_shot
        self._form = 0

    @classmethod
    def from_address(
        cls,
        address: str,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_pixels: int | None = None,
        prompting: Prompting | str = Prompting.AUTO,
    ) -> OpenAIPolicy:
        """The policy at an address.

        Args:
            address: `openai:URL#MODEL`, as in `openai:http://localhost:8000/v1#Qwen2.5-VL-7B`.
            timeout: see the class.
            max_pixels: see the class; None for 1,003,520.
            prompting: see `Prompting`; `auto` is zero-shot, since a server does not say what it was taught.

        Raises:
            SaliencyError: if it is no such address; else see the class.
        """
        url, _, model = address.removeprefix(ENDPOINT).partition("#")
        if not model.strip():
            raise SaliencyError(f"{address}: no model; expected {ENDPOINT}http://HOST:PORT/v1#MODEL")
        return cls(
            url,
            model.strip(),
            timeout=timeout,
            max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
            zero_shot=Prompting.parse(prompting) is not Prompting.PLAIN,
        )

    @property
    def name(self) -> str:
        """The model and the server."""
        return f"{self.model} at {urlsplit(self.url).netloc}"

    def respond(
        self,
        batch: Questions,
        task: Task,
        *,
        reasoning: bool = True,
        max_new_tokens: int | None = None,
    ) -> list[PolicyOutput]:
        """Answer one question for each item of the batch; see `saliency_r1.policy.base.Policy`.

        Up to eight questions are under way at a time.

        Raises:
            SaliencyError: if the server gives no answer in time, or one that is none.
        """
        return ask(
            self._write,
            batch,
            task,
            zero_shot=self.zero_shot,
            reasoning=reasoning,
            max_new_tokens=max_new_tokens,
        )

    def _write(self, batch: Questions, prompt: str, max_new_tokens: int) -> list[PolicyOutput]:
        return _run(self._write_all(batch, prompt, max_new_tokens))

    async def _write_all(self, batch: Questions, prompt: str, max_new_tokens: int) -> list[PolicyOutput]:
        turn = asyncio.Semaphore(CONCURRENT)
        async with self._client() as client:

            async def answer(images: list[Image.Image]) -> PolicyOutput:
                async with turn:
                    return await self._answer(client, images, prompt, max_new_tokens)

            return list(await asyncio.gather(*(answer(list(images)) for images in batch)))

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
        self, client: Any, images: list[Image.Image], prompt: str, max_new_tokens: int
    ) -> PolicyOutput:
        """One question, with its deadline; whatever goes wrong is one clear error."""
        import openai

        try:
            async with asyncio.timeout(self.timeout):
                completion = await self._complete(client, images, prompt, max_new_tokens)
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
        return self._output(completion)

    async def _complete(
        self, client: Any, images: list[Image.Image], prompt: str, max_new_tokens: int
    ) -> Any:
        """The completion, in the first form of request that the server takes."""
        import openai

        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": self._data_url(image)}} for image in images
        ]
        content.append({"type": "text", "text": prompt})
        request = {"model": self.model, "messages": [{"role": "user", "content": content}]}
        while True:
            form = self._form
            options = dict(_FORMS[form])
            options[options.pop("limit")] = max_new_tokens
            try:
                return await client.chat.completions.create(**request, **options)
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

    def _output(self, completion: Any) -> PolicyOutput:
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
        text = _with_reasoning(content, message)
        logprobs, pieces = _tokens(getattr(choice, "logprobs", None))
        if not logprobs or content.strip() not in "".join(pieces):
            return PolicyOutput(text, token_ids=[])
        return PolicyOutput(
            text, [], logprobs, confidence(logprobs, pieces), expression_confidences(logprobs, pieces)
        )

    def _error(self, what: str) -> SaliencyError:
        return SaliencyError(f"the policy {self.model!r} at {self.url}: {what}")


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
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _with_reasoning(content: str, message: Any) -> str:
    """The response; a server may have split off what stands between the tags of the reasoning."""
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if isinstance(reasoning, str) and reasoning.strip() and "think>" not in content:
        return f"<think>{reasoning.strip()}</think>{content.strip()}"
    return content


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
