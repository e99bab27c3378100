"""A policy behind an endpoint: transformers serve, and servers that misbehave, all on loopback."""

from __future__ import annotations

import asyncio
import io
import json
import math
import re
import socket
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tiny_policies
from chat_server import Handler, Server, completion, dumped, serving
from saliency_r1.cli import main
from saliency_r1.errors import ImageError, SaliencyError
from saliency_r1.pipeline import SaliencyPipeline
from saliency_r1.policy.base import Policy
from saliency_r1.policy.endpoints.endpoint import CONCURRENT, Endpoint
from saliency_r1.policy.endpoints.openai import OpenAIPolicy
from saliency_r1.policy.endpoints.structured import pattern
from saliency_r1.policy.load_policy import load_policy
from saliency_r1.policy.options import PolicyOptions
from saliency_r1.policy.prompts import zero_shot_prompt
from saliency_r1.response import parse_strict
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.tasks import Task

GOOD = "<think>It glows.</think><answer><rg>the red lamp</rg></answer>"
PHOTO = Image.new("RGB", (64, 48), "red")
SOON = {"retry-after-ms": "5"}


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    # The client must not go through it to reach this machine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")


def served(*tokens: tuple[str, float], with_bytes: bool = False) -> dict[str, object]:
    entries = [
        {
            "token": text,
            "logprob": value,
            "bytes": list(text.encode()) if with_bytes else None,
            "top_logprobs": [],
        }
        for text, value in tokens
    ]
    return {"content": entries}


def policy_at(server: Server, timeout: float = 20.0, **options: Any) -> OpenAIPolicy:
    return OpenAIPolicy(Endpoint(server.url, "m", timeout=timeout, **options))


def test_a_question_travels_as_prompt_and_bounded_data_urls() -> None:
    with serving(lambda handler, _: handler.say(GOOD)) as server:
        policy = policy_at(server, max_pixels=5000)
        assert isinstance(policy, Policy)
        photos = [PHOTO, Image.new("RGB", (800, 400), "blue")]
        [output] = policy.respond([photos], Task.COSOD, max_new_tokens=77)
    assert output.text == GOOD
    assert (output.confidence, output.expression_confidences, output.token_logprobs) == (None, None, None)
    assert (output.token_ids, output.retries) == ([], 0)
    [request], [headers] = server.requests, server.headers
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("m", 77, 0)
    [message] = request["messages"]
    *images, text = message["content"]
    assert text == {"type": "text", "text": zero_shot_prompt(Task.COSOD)}
    sizes = []
    for part in images:
        kind, _, data = part["image_url"]["url"].partition(",")
        assert kind == "data:image/jpeg;base64"
        sizes.append(Image.open(io.BytesIO(b64decode(data))).size)
    assert sizes == [(64, 48), (100, 50)]
    assert headers["authorization"] == "Bearer none"
    told = {name for name in headers if "stainless" in name}
    assert not told & {"x-stainless-os", "x-stainless-arch", "x-stainless-runtime-version"}
    assert told, "the client has other names for what it tells of this machine: look again"


def test_eight_questions_are_under_way_at_a_time() -> None:
    together = threading.Barrier(8)

    def behave(handler: Handler, _: int) -> None:
        together.wait(10)
        handler.say(GOOD)

    with serving(behave) as server:
        outputs = policy_at(server).respond([[PHOTO]] * 16, Task.SOD)
    assert [output.text for output in outputs] == [GOOD] * 16


TOKENS = (
    *(("<think>", -0.1), ("It glows.", -0.5), ("</think>", 0.0), ("<answer>", 0.0), ("<rg>", 0.0)),
    *(("the red", -1.0), (" lamp", -3.0), ("</rg>", 0.0), ("</answer>", 0.0)),
)


@pytest.mark.parametrize("with_bytes", [False, True])
@pytest.mark.parametrize("end", [(), (("<|im_end|>", -0.2),)])
def test_served_logprobs_become_the_confidence(with_bytes: bool, end: tuple[tuple[str, float], ...]) -> None:
    logprobs = served(*TOKENS, *end, with_bytes=with_bytes)
    with serving(lambda handler, _: handler.say(GOOD, logprobs=logprobs)) as server:
        [output] = policy_at(server).respond([[PHOTO]], Task.SOD)
    assert server.requests[0]["logprobs"] is True
    assert output.confidence == pytest.approx(math.exp(-2))
    assert output.expression_confidences == (pytest.approx(math.exp(-2)),)
    assert output.token_logprobs == [value for _, value in (*TOKENS, *end)]


def test_a_character_in_two_tokens_is_put_together() -> None:
    text = "<think></think><answer><rg>café</rg></answer>"
    head, tail = text.split("é")
    parts = [head.encode(), b"\xc3", b"\xa9", tail.encode()]
    entries = [{"token": "?", "logprob": -1.0, "bytes": list(part), "top_logprobs": []} for part in parts]
    with serving(lambda handler, _: handler.say(text, logprobs={"content": entries})) as server:
        [output] = policy_at(server).respond([[PHOTO]], Task.SOD)
    assert output.confidence == pytest.approx(math.exp(-1))


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {"content": None},
        {"content": []},
        served(("another text", -1.0)),
        served((GOOD, 2.0)),
        {"content": [{"token": GOOD, "logprob": "sure", "bytes": None}]},
        {"content": [{"token": GOOD, "logprob": -1.0, "bytes": [999]}]},
        {"content": "all"},
    ],
)
def test_a_confidence_is_never_invented(logprobs: object) -> None:
    with serving(lambda handler, _: handler.say(GOOD, logprobs=logprobs)) as server:
        [output] = policy_at(server).respond([[PHOTO]], Task.SOD)
    assert output.text == GOOD
    assert output.confidence is None
    assert output.confidences(1) == [None]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_that_the_server_split_off_is_put_back(field: str) -> None:
    message = {
        "role": "assistant",
        "content": "\n<answer><rg>the red lamp</rg></answer>",
        field: "It glows.\n",
    }
    with serving(lambda handler, _: handler.say(None, message=message)) as server:
        [output] = policy_at(server).respond([[PHOTO]], Task.SOD)
    assert output.text == GOOD


def test_what_a_server_does_not_take_is_left_out_from_then_on() -> None:
    def behave(handler: Handler, number: int) -> None:
        request = handler.server.requests[number - 1]
        if refused := {"logprobs", "temperature", "max_tokens"} & request.keys():
            handler.answer({"error": {"message": f"unsupported: {sorted(refused)[0]}"}}, 400)
        else:
            handler.say(GOOD)

    with serving(behave) as server:
        policy = policy_at(server)
        for _ in range(2):
            assert policy.respond([[PHOTO]], Task.SOD)[0].text == GOOD
    assert len(server.requests) == 5
    assert server.requests[3].keys() == {"model", "messages", "max_completion_tokens"}


def sent_size(request: dict[str, Any]) -> tuple[int, int]:
    """The size of the first photo of a request."""
    data = request["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2]
    return Image.open(io.BytesIO(b64decode(data))).size


def test_a_server_that_refuses_one_photo_in_twenty_affects_no_other() -> None:
    photos = [Image.new("RGB", (64 + number, 48), "red") for number in range(40)]
    logprobs = served(*TOKENS)

    def behave(handler: Handler, number: int) -> None:
        request = handler.server.requests[number - 1]
        if sent_size(request)[0] % 20 == 10:
            handler.answer({"error": {"message": "this image is not allowed here"}}, 400)
        else:
            handler.say(GOOD, logprobs=logprobs if request.get("logprobs") else None)

    refused: list[str] = []
    with serving(behave) as server:
        pipe = SaliencyPipeline(policy_at(server), NanoSegmenter.from_pretrained(device="cpu"))
        results = list(pipe.stream(photos, on_error=lambda source, error: refused.append(str(error))))
        widths = [result.image.width for result in results]
        assert widths == [width for width in range(64, 104) if width % 20 != 10]
        assert [result.policy_confidence for result in results] == [pytest.approx(math.exp(-2))] * 38
        assert len(refused) == 2
        assert "HTTP 400: " in refused[0]
        assert "this image is not allowed here" in refused[0]
        assert server.connections <= CONCURRENT
        with pytest.raises(ImageError, match="HTTP 400") as error:
            pipe(photos[6])
        assert error.value.exit_code == 1


def test_one_client_serves_a_run() -> None:
    with serving(lambda handler, _: handler.say(GOOD)) as server:
        policy = policy_at(server)
        for _ in range(12):
            policy.respond([[PHOTO], [PHOTO]], Task.SOD)
        assert len(server.requests) == 24
        assert server.connections <= 2


def test_a_refusal_without_a_reason_changes_one_request_alone() -> None:
    logprobs = served(*TOKENS)

    def behave(handler: Handler, number: int) -> None:
        request = handler.server.requests[number - 1]
        if number == 1:
            handler.answer({"error": {"message": "max_tokens is too large for this photo"}}, 400)
        else:
            handler.say(GOOD, logprobs=logprobs if request.get("logprobs") else None)

    with serving(behave) as server:
        policy = policy_at(server)
        outputs = [policy.respond([[PHOTO]], Task.SOD)[0] for _ in range(2)]
    assert [output.text for output in outputs] == [GOOD, GOOD]
    assert [output.confidence for output in outputs] == [None, pytest.approx(math.exp(-2))]
    assert ["logprobs" in request for request in server.requests] == [True, False, True]


@pytest.mark.parametrize(
    ("body", "left_out"),
    [
        ({"message": "Bad value", "param": "temperature", "code": "unsupported_value"}, "temperature"),
        ({"message": "You are not allowed to request logprobs from this model"}, "logprobs"),
        ({"message": 'Invalid JSON. Unknown name "logprobs": Cannot find field.'}, "logprobs"),
        ({"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."}, "max_tokens"),
    ],
)
def test_what_servers_say_of_parameters_is_understood(body: dict[str, str], left_out: str) -> None:
    def behave(handler: Handler, number: int) -> None:
        if left_out in handler.server.requests[number - 1]:
            handler.answer({"error": body}, 400)
        else:
            handler.say(GOOD)

    with serving(behave) as server:
        policy = policy_at(server)
        for _ in range(2):
            assert policy.respond([[PHOTO]], Task.SOD)[0].text == GOOD
    first, *others = (request.keys() for request in server.requests)
    assert len(others) == 2
    assert {name for name in first if name not in others[1]} == {left_out}


@pytest.mark.parametrize("hidden", [None, "Let me see …"])
def test_a_model_that_spends_its_limit_on_hidden_reasoning_gets_a_larger_one(hidden: str | None) -> None:
    def behave(handler: Handler, number: int) -> None:
        if handler.server.requests[number - 1]["max_tokens"] < 400:
            message = {"role": "assistant", "content": None, "reasoning_content": hidden}
            handler.say(None, message=message, finish_reason="length")
        else:
            handler.say(GOOD)

    with serving(behave) as server:
        policy = policy_at(server)
        for _ in range(2):
            assert policy.respond([[PHOTO]], Task.SOD, max_new_tokens=50)[0].text == GOOD
        assert [request["max_tokens"] for request in server.requests] == [50, 400, 400]
        with pytest.raises(ImageError, match="tokens on hidden reasoning and wrote no answer; allow more"):
            policy_at(server).respond([[PHOTO]], Task.SOD, max_new_tokens=2)
    assert [request["max_tokens"] for request in server.requests[3:]] == [2, 16]


def test_an_answer_that_is_withheld_is_said() -> None:
    with (
        serving(lambda handler, _: handler.say(None, finish_reason="content_filter")) as server,
        pytest.raises(ImageError, match="its content filter withheld the answer"),
    ):
        policy_at(server).respond([[PHOTO]], Task.SOD)


def test_no_photo_waits_for_the_slowest_of_a_batch() -> None:
    many = threading.Event()

    def behave(handler: Handler, number: int) -> None:
        if number >= 14:
            many.set()
        if sent_size(handler.server.requests[number - 1]) == (65, 48) and not many.wait(20):
            handler.answer({"error": {"message": "the others wait"}}, 401)
        else:
            handler.say(GOOD)

    photos = [Image.new("RGB", (65 + number, 48), "red") for number in range(16)]
    with serving(behave) as server:
        pipe = SaliencyPipeline(policy_at(server), NanoSegmenter.from_pretrained(device="cpu"))
        assert [result.image.width for result in pipe.stream(photos)] == list(range(65, 81))


def test_the_photos_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_r1.policy.answering.PIXELS_UNDER_WAY", 2 * 64 * 48)
    taken: list[int] = []

    def photos() -> Iterator[Image.Image]:
        for number in range(6):
            taken.append(number)
            yield PHOTO

    with serving(lambda handler, _: handler.say(GOOD)) as server:
        pipe = SaliencyPipeline(policy_at(server), NanoSegmenter.from_pretrained(device="cpu"))
        for count, _ in enumerate(pipe.stream(photos()), start=1):
            assert len(taken) <= count + 1


def test_the_chunks_of_a_group_are_asked_side_by_side() -> None:
    together = threading.Barrier(5)

    def behave(handler: Handler, _: int) -> None:
        together.wait(20)
        handler.say(GOOD)

    with serving(behave) as server:
        pipe = SaliencyPipeline(policy_at(server), NanoSegmenter.from_pretrained(device="cpu"))
        results = pipe([PHOTO] * 10, Task.COSOD, group_images=2)
    assert len(results) == 10
    assert len(server.requests) == 5


def test_a_refused_chunk_has_no_vote() -> None:
    def behave(handler: Handler, number: int) -> None:
        if sent_size(handler.server.requests[number - 1]) == (64, 48):
            handler.answer({"error": {"message": "not this one"}}, 400)
        else:
            handler.say(GOOD)

    other = Image.new("RGB", (80, 48), "red")
    with serving(behave) as server:
        pipe = SaliencyPipeline(policy_at(server), NanoSegmenter.from_pretrained(device="cpu"))
        results = pipe([PHOTO, PHOTO, other, other], Task.COSOD, group_images=2)
        assert [result.text for result in results] == [GOOD] * 4
        with pytest.raises(ImageError, match="not this one"):
            pipe([PHOTO, PHOTO], Task.COSOD)


@pytest.mark.parametrize(("kind", "key"), [("vllm", "structured_outputs"), ("sglang", "regex")])
def test_structured_output_asks_a_server_that_can_for_the_tags(kind: str, key: str) -> None:
    with serving(lambda handler, _: handler.say(GOOD)) as server:
        server.kind = kind
        policy = load_policy(f"openai:{server.url}#m", options=PolicyOptions(structured=True))
        assert policy.respond([[PHOTO]], Task.SOD)[0].text == GOOD
    [request] = server.requests
    asked = request[key]["regex"] if kind == "vllm" else request[key]
    assert asked == pattern(Task.SOD)


def test_structured_output_is_left_out_where_it_is_refused_and_an_error_where_it_is_not_known() -> None:
    def behave(handler: Handler, number: int) -> None:
        if "structured_outputs" in handler.server.requests[number - 1]:
            handler.answer({"error": {"message": "structured_outputs is not supported here"}}, 400)
        else:
            handler.say(GOOD)

    with serving(behave) as server:
        policy = OpenAIPolicy(Endpoint(server.url, "m"), structured=True)
        for _ in range(2):
            assert policy.respond([[PHOTO]], Task.SOD)[0].text == GOOD
        assert ["logprobs" in request for request in server.requests] == [True] * 3
        server.kind = "library"
        policy = OpenAIPolicy(Endpoint(server.url, "m"), structured=True)
        with pytest.raises(SaliencyError, match="calls itself 'library': structured output is known of vllm"):
            policy.respond([[PHOTO]], Task.SOD)
    with pytest.raises(SaliencyError, match="structured output is the work of a server"):
        load_policy(None, options=PolicyOptions(structured=True))


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("reasoning", [True, False])
def test_the_pattern_takes_the_form_and_nothing_else(task: Task, reasoning: bool) -> None:
    tag = task.spec.tag
    takes = re.compile(pattern(task, reasoning=reasoning)).fullmatch
    why = "It glows.\nTwice." if reasoning else ""
    for expressions in ((), ("the red lamp",), ("the red lamp", "a café")):
        inside = "".join(f"<{tag}>{one}</{tag}>" for one in expressions)
        text = f"<think>{why}</think><answer>{inside}</answer>"
        good = len(expressions) < 2 or task.spec.several_expressions
        assert bool(takes(text)) == good
        if good:
            assert parse_strict(text, task).expressions == expressions
    assert not takes(f"<think>{why}</think><answer><{tag}></{tag}></answer>")
    assert not takes(f"Sure! <think>{why}</think><answer></answer>")


def test_text_without_the_form_gets_a_second_try() -> None:
    said = ["¯\\_(ツ)_/¯", GOOD]
    with serving(lambda handler, number: handler.say(said[number - 1])) as server:
        [output] = policy_at(server).respond([[PHOTO]], Task.SOD)
    assert (output.text, output.retries) == (GOOD, 1)
    again = server.requests[1]["messages"][0]["content"][-1]["text"]
    assert again == zero_shot_prompt(Task.SOD, again=True)


# A server that fails, stalls, answers nonsense or cuts the stream


def fail(handler: Handler, _: int) -> None:
    handler.answer({"error": {"message": "out of\nmemory"}}, 503, **SOON)


def stall(handler: Handler, _: int) -> None:
    handler.server.closing.wait(30)


def drip(handler: Handler, _: int) -> None:
    """A byte at a time: no single read takes long, and it never ends."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.end_headers()
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def cut(handler: Handler, _: int) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "5000")
    handler.end_headers()
    handler.wfile.write(dumped(completion(GOOD))[:60])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def hang_up(handler: Handler, _: int) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("trouble", [fail, cut, hang_up])
def test_trouble_that_passes_ends_in_a_result(trouble: Callable[[Handler, int], object]) -> None:
    def behave(handler: Handler, number: int) -> None:
        handler.say(GOOD) if number == 2 else trouble(handler, number)

    with serving(behave) as server:
        [output] = policy_at(server).respond([[PHOTO]], Task.SOD)
    assert output.text == GOOD
    assert len(server.requests) == 2
    assert output.retries == 0, "that is a second try of the words, not of the wire"


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (fail, "HTTP 503: .*out of"),
        (stall, "no answer within 1.2 seconds"),
        (drip, "no answer within 1.2 seconds"),
        (cut, "broke off its answer|no answer within"),
        (hang_up, "broke off its answer|no answer within"),
    ],
)
def test_trouble_that_stays_is_one_clear_error_in_time(
    trouble: Callable[[Handler, int], object], reason: str
) -> None:
    with serving(trouble) as server:
        policy = policy_at(server, timeout=1.2)
        start = time.monotonic()
        with pytest.raises(SaliencyError, match=reason) as error:
            policy.respond([[PHOTO]] * 3, Task.SOD)
    # A pause for this machine, which may be busy; the work itself ends at 1.2 s.
    assert time.monotonic() - start < 1.2 + 3
    assert "\n" not in str(error.value)
    assert server.url in str(error.value)


def test_nobody_at_the_address_is_one_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        policy = OpenAIPolicy(Endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "m", timeout=1.5))
        with pytest.raises(SaliencyError, match=r"cannot be reached|no answer within"):
            policy.respond([[PHOTO]], Task.SOD)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("<html>It works!</html>", "text/html"),
        ("", "application/json"),
        ("{", "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        ("[1, 2]", "application/json"),
        ("null", "application/json"),
        ("7", "application/json"),
        ("{}", "application/json"),
        ({"choices": []}, "application/json"),
        ({"choices": "all"}, "application/json"),
        ({"choices": ["yes"]}, "application/json"),
        ({"choices": [None]}, "application/json"),
        ({"choices": [{"message": None}]}, "application/json"),
        ({"choices": [{"message": "hi"}]}, "application/json"),
        ({"choices": [{"message": {"content": 7}}]}, "application/json"),
        ({"error": {"message": "no"}}, "application/json"),
    ],
)
def test_nonsense_is_one_clear_error(body: object, kind: str) -> None:
    with (
        serving(lambda handler, _: handler.answer(body, kind=kind)) as server,
        pytest.raises(SaliencyError, match="its answer is no chat completion") as error,
    ):
        policy_at(server).respond([[PHOTO]], Task.SOD)
    assert "\n" not in str(error.value)


def test_the_key_comes_from_the_environment_and_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    with (
        serving(lambda handler, _: handler.answer({"error": {"message": "who?"}}, 401)) as server,
        pytest.raises(SaliencyError, match=r"does not accept the API key .* set OPENAI_API_KEY") as error,
    ):
        policy_at(server).respond([[PHOTO]], Task.SOD)
    assert server.headers[0]["authorization"] == "Bearer key-of-the-test"
    assert "key-of-the-test" not in str(error.value)


def test_an_unknown_model_is_said() -> None:
    with (
        serving(lambda handler, _: handler.answer({"error": {"message": "no model m"}}, 404)) as server,
        pytest.raises(SaliencyError, match=r"no such model.*no model m"),
    ):
        policy_at(server).respond([[PHOTO]], Task.SOD)


def test_it_works_inside_a_running_loop() -> None:
    async def inside(policy: OpenAIPolicy) -> str:
        return policy.respond([[PHOTO]], Task.SOD)[0].text

    with serving(lambda handler, _: handler.say(GOOD)) as server:
        assert asyncio.run(inside(policy_at(server))) == GOOD


# Addresses and options


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("openai:http://localhost:8000/v1", "no model; expected openai:http://HOST:PORT/v1#MODEL"),
        ("openai:http://localhost:8000/v1#", "no model"),
        ("openai:#m", "no address of a server"),
        ("openai:localhost:8000/v1#m", "no address of a server"),
        ("openai:ftp://localhost/v1#m", "no address of a server"),
        ("openai:http://localhost:port/v1#m", "no address of a server"),
        ("openai:http://me:secret@localhost/v1#m", "OPENAI_API_KEY"),
        ("openai:http://localhost/v1?key=secret#m", "OPENAI_API_KEY"),
    ],
)
def test_addresses_that_are_none(address: str, reason: str) -> None:
    with pytest.raises(SaliencyError, match=reason) as error:
        load_policy(address, options=PolicyOptions())
    assert "secret" not in str(error.value)


def test_an_address_holds_url_and_model() -> None:
    policy = OpenAIPolicy.from_address("openai:https://models.example/v1/#Qwen/Qwen2.5-VL-7B-Instruct")
    assert (policy.endpoint.url, policy.endpoint.model) == (
        "https://models.example/v1",
        "Qwen/Qwen2.5-VL-7B-Instruct",
    )
    assert policy.name == "Qwen/Qwen2.5-VL-7B-Instruct at models.example"
    assert policy.zero_shot
    assert not OpenAIPolicy.from_address("openai:http://localhost/v1#m", prompting="plain").zero_shot


def test_options_of_local_models_and_bad_numbers_are_refused() -> None:
    address = "openai:http://localhost:8000/v1#m"
    with pytest.raises(SaliencyError, match=r"dtype is 'bfloat16': the server of .* chooses it"):
        load_policy(address, options=PolicyOptions(dtype="bfloat16"))
    with pytest.raises(SaliencyError, match="timeout is 0"):
        load_policy(address, options=PolicyOptions(timeout=0))
    with pytest.raises(SaliencyError, match="max_new_tokens is 0"):
        PolicyOptions(max_new_tokens=0)
    with pytest.raises(SaliencyError, match="max_pixels is 9"):
        load_policy(address, options=PolicyOptions(max_pixels=9))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(SaliencyError, match=r"pip install 'saliency-r1\[endpoint\]'"):
        load_policy("openai:http://localhost:8000/v1#m", options=PolicyOptions())


# The whole path


def test_predict_asks_the_endpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    PHOTO.save(tmp_path / "photo.png")
    command = ["predict", str(tmp_path / "photo.png"), "--device", "cpu", "--policy"]
    said = ["No idea.", GOOD, "No idea.", GOOD]
    with serving(lambda handler, number: handler.say(said[number - 1])) as server:
        address = f"openai:{server.url}#m"
        assert main([*command, address, "--json"]) == 0
        content = json.loads(capfd.readouterr().out)
        more = ["--out", str(tmp_path / "out"), "--max-new-tokens", "99"]
        assert main([*command, address, *more]) == 0
    assert [request["max_tokens"] for request in server.requests] == [512, 512, 99, 99]
    assert content["expressions"] == ["the red lamp"]
    assert (content["policy_confidence"], content["retries"]) == (None, 1)
    assert content["model"].startswith("m at 127.0.0.1")
    assert "asked a second time 1x" in capfd.readouterr().err
    with serving(stall) as server:
        assert main([*command, f"openai:{server.url}#m", "--timeout", "0.5"]) == 2
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("saliency-r1:")]
    assert len(error) == 1
    assert "no answer within 0.5 seconds" in error[0]


def test_a_group_votes_without_confidences() -> None:
    with serving(lambda handler, _: handler.say(GOOD)) as server:
        pipe = SaliencyPipeline(policy_at(server), NanoSegmenter.from_pretrained(device="cpu"))
        results = pipe([PHOTO] * 7, Task.COSOD)
    assert {result.policy_confidence for result in results} == {None}
    # The chunks are asked side by side, so either may arrive first.
    assert sorted(len(request["messages"][0]["content"]) - 1 for request in server.requests) == [3, 4]


def test_against_transformers_serve(tmp_path: Path) -> None:
    """A real server with a real, if random, model: it serves text and no log-probabilities."""
    pytest.importorskip("uvicorn", reason="transformers serve needs transformers[serving]")
    pytest.importorskip("fastapi", reason="transformers serve needs transformers[serving]")
    from transformers.cli.serve import Serve

    folder = tiny_policies.llava(tmp_path / "llava")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Serve(
        force_model=str(folder), device="cpu", dtype="float32", host="127.0.0.1", port=port, non_blocking=True
    )
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        address = f"openai:http://127.0.0.1:{port}/v1#{folder}"
        policy = OpenAIPolicy.from_address(address, prompting="plain", timeout=60)
        first, second = policy.respond([[PHOTO], [PHOTO, PHOTO]], Task.COSOD, max_new_tokens=6)
        assert first.text
        assert second.text
        assert first.confidence is None
        [alone] = policy.respond([[PHOTO]], Task.COSOD, max_new_tokens=6)
        assert alone.text == first.text
        wrong = OpenAIPolicy.from_address(address + "x", timeout=60)
        with pytest.raises(SaliencyError, match="HTTP 4"):
            wrong.respond([[PHOTO]], Task.SOD)
    finally:
        server.kill_server()
