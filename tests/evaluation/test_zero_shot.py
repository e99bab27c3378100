"""`saliency-r1 evaluate` of a model behind an endpoint: costs, second tries, refusals, resuming."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_server import Handler, completion, serving
from drawn_data import draw_groups, draw_pairs
from evaluate_runs import draw_instances, run, summary
from saliency_r1.response import Response
from saliency_r1.tasks import Task

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PRICES = ("--price-in", 10, "--price-out", 40)


USAGE = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}


def say(handler: Handler, text: str) -> None:
    handler.answer({**completion(text), "usage": USAGE})


def saying(text: str) -> Callable[[Handler, int], None]:
    """A server that says one text, and counts 1000 and 50 tokens."""
    return lambda handler, number: say(handler, text)


def photo_of(handler: Handler, number: int) -> str:
    """The photo that a request asks about."""
    content = handler.server.requests[number - 1]["messages"][-1]["content"]
    return next(part["image_url"]["url"] for part in content if part["type"] == "image_url")


def response(task: Task) -> str:
    return Response("It is large.", ("the disc",), task.spec.tag).text


def evaluated(url: str, root: Path, *more: object, task: str = "sod", data: str = "mine") -> int:
    given = ("--data", root / data, "--model", f"openai:{url}#m", "--out", root / "run", "--device", "cpu")
    workers = () if task == "sis" else ("--workers", 0)
    return run("evaluate", task, *given, *workers, *more)


def test_costs_second_tries_and_unparsed_answers_are_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_pairs(tmp_path / "mine", 6)
    good = response(Task.SOD)
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def behave(handler: Handler, number: int) -> None:
        with lock:
            photo = photo_of(handler, number)
            again = photo in seen
            place = seen.setdefault(photo, len(seen))
        if place == 0:  # is mended by its second try
            say(handler, good if again else "A disc.")
        elif place == 1:  # never parses
            say(handler, "<answer><rg>the disc")
        else:  # thoughts of its own are no fault
            say(handler, f"<think>Which?</think>{good}")

    with serving(behave) as server:
        assert evaluated(server.url, tmp_path, *PRICES) == 0
        assert len(server.requests) == 8
    cost = 8 * (1000 * 10 + 50 * 40) / 1e6
    assert summary(tmp_path / "run")["answers"] == {
        "questions": 6,
        "second tries": 2,
        "unparsed": 1,
        "prompt tokens": 8000,
        "completion tokens": 400,
        "cost": pytest.approx(cost),
    }
    printed = capsys.readouterr()
    assert f"6 questions, 2 second tries, 1 unparsed, 8,000 + 400 tokens, cost {cost:g}" in printed.out
    assert "1 of 6 responses did not parse and were read leniently" in printed.err


def test_a_group_is_one_question(tmp_path: Path) -> None:
    root = tmp_path / "CoMine"
    draw_groups(root / "images", root / "masks", {"disc": 3, "ring": 2})
    with serving(saying(response(Task.COSOD))) as server:
        assert evaluated(server.url, tmp_path, *PRICES, task="cosod", data="CoMine") == 0
        assert len(server.requests) == 2
    found = summary(tmp_path / "run")["answers"]
    assert (found["questions"], found["prompt tokens"]) == (2, 2000)


def test_a_run_goes_on_and_asks_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_r1.policy.endpoints.endpoint.CONCURRENT", 1)
    monkeypatch.setattr("saliency_r1.policy.endpoints.openai.OpenAIPolicy.concurrent", 1)
    draw_pairs(tmp_path / "mine", 6)

    def failing(handler: Handler, number: int) -> None:
        if number > 3:
            handler.answer({"error": {"message": "no such key"}}, status=401)
        else:
            say(handler, response(Task.SOD))

    with serving(failing) as server:
        assert evaluated(server.url, tmp_path) == 2
        server.behave = saying(response(Task.SOD))
        server.requests.clear()
        assert evaluated(server.url, tmp_path, "--timeout", 100) == 0
        assert len(server.requests) == 3
        assert summary(tmp_path / "run")["answers"]["questions"] == 6
        server.requests.clear()
        assert (
            evaluated(server.url, tmp_path, "--max-new-tokens", 99, "--overwrite") == 0
        )  # another way to ask
        assert len(server.requests) == 6


@pytest.mark.parametrize("task", ["sod", "sis"])
def test_a_refused_photo_is_scored_as_empty_if_asked(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_pairs(tmp_path / "mine", 6)
    draw_instances(tmp_path)
    data = {"sod": "mine", "sis": "ILSO"}[task]
    refused: list[str] = []

    def behave(handler: Handler, number: int) -> None:
        photo = photo_of(handler, number)
        if not refused:
            refused.append(photo)
        if photo in refused:
            handler.answer({"error": {"message": "image refused by the filter"}}, status=400)
        else:
            say(handler, response(Task.parse(task)))

    with serving(behave) as server:
        assert evaluated(server.url, tmp_path, task=task, data=data) == 2
        assert "image refused by the filter" in capsys.readouterr().err
        assert evaluated(server.url, tmp_path, "--missing", "empty", task=task, data=data) == 0
    found = summary(tmp_path / "run")
    assert found["answers"]["questions"] == 5
    assert any("1 of 6" in note for note in found["notes"])


def test_compare_sets_it_beside_the_embedded_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_pairs(tmp_path / "mine", 5)
    with serving(saying(response(Task.SOD))) as server:
        assert evaluated(server.url, tmp_path) == 0
    given = ("--data", tmp_path / "mine", "--model", "nano", "--out", tmp_path / "nano", "--device", "cpu")
    assert run("evaluate", "sod", *given, "--workers", 0) == 0
    capsys.readouterr()
    assert run("compare", tmp_path / "nano", tmp_path / "run") == 0
    assert "(second) against nano (first), 5 photos" in capsys.readouterr().out
