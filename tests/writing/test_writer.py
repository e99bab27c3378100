"""Rationales by a writer model, asked over HTTP on loopback."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("openai", reason="an endpoint needs saliency-r1[endpoint]")

import tiny_segmenters
from chat_server import Handler, Server, completion, serving
from saliency_r1.cli import main
from saliency_r1.data.samples import Sample, Synset
from saliency_r1.errors import SaliencyError
from saliency_r1.language.cues import measure
from saliency_r1.language.naming import NameBook
from saliency_r1.policy.endpoints.endpoint import Endpoint
from saliency_r1.response import Response, parse_strict
from saliency_r1.tasks import Task
from saliency_r1.writing.review import Fault, review
from saliency_r1.writing.sft_set import Job, SFTCounts, read_examples, write_set
from saliency_r1.writing.writer_jobs import WriterSetting, writer_header, writer_jobs
from saliency_r1.writing.writer_model import Prices, WriterModel
from saliency_r1.writing.writer_prompt import clear_statements, show, writer_prompt
from stubs import SegmenterStub

BALL = Synset("n1", "ball", (), ("artifact",))
SIZE = (96, 64)
REST = (
    "Nothing else in the scene is set apart so clearly, and the eye returns to it again and again, "
    "because the ground around it is plain."
)
GOOD = f"<think>The ball on the left is mostly red. {REST}</think><answer><rg>the red ball</rg></answer>"
FALSE = GOOD.replace("on the left is mostly red", "on the right is mostly blue")
LOST = GOOD.replace("<rg>the red ball", "<rg>the ball at the right side")
PLAIN = WriterSetting(fast_share=0)
TALK = "Sure! Here is the reasoning."


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


class RedSegmenter(SegmenterStub):
    """Finds whatever is not green; nothing if the expression speaks of the right."""

    name = "red"

    def find(self, photo: np.ndarray, expression: str) -> np.ndarray:
        return (np.abs(photo - (0, 128, 0)).sum(-1) > 90) & ("right" not in expression)


def picture(number: int) -> tuple[Image.Image, Image.Image]:
    """A red disc at the left of a green ground, and its mask; each number has its own."""
    image, mask = Image.new("RGB", SIZE, "green"), Image.new("L", SIZE)
    x, y = 2 + number % 3, 14 + number // 3
    box = (x, y, x + 26, y + 26)
    ImageDraw.Draw(image).ellipse(box, fill="firebrick")
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return image, mask


def draw_duts(root: Path, count: int) -> list[Sample]:
    images, masks = root / "DUTS-TR" / "DUTS-TR-Image", root / "DUTS-TR" / "DUTS-TR-Mask"
    images.mkdir(parents=True)
    masks.mkdir()
    samples = []
    for number in range(count):
        image, mask = picture(number)
        image.save(images / f"p{number}.png")
        mask.save(masks / f"p{number}.png")
        samples.append(Sample(f"p{number}", images / f"p{number}.png", masks / f"p{number}.png", BALL))
    return samples


def usage(text: str | None) -> dict[str, Any]:
    counted = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    return {**completion(text), "usage": counted}


def writer_at(server: Server, folder: Path, **options: Any) -> WriterModel:
    return WriterModel(Endpoint(server.url, "m", timeout=options.pop("timeout", 20.0)), folder, **options)


def make(
    samples: list[Sample],
    writer: WriterModel,
    root: Path,
    setting: WriterSetting = PLAIN,
    workers: int = 1,
    track: Any = iter,
) -> SFTCounts:
    segmenter = RedSegmenter()
    jobs = writer_jobs(samples, writer, segmenter, root, NameBook({BALL: 9}), setting)
    header = writer_header(writer, segmenter, root, setting)
    written = write_set(jobs, root / "train.jsonl", header, track=track, workers=workers)
    return written[Task.SOD]


# What the writer sees and is told.


def test_the_mask_is_drawn_and_the_surroundings_stay_as_they_are() -> None:
    image, mask = picture(3)
    truth = np.asarray(mask) > 0
    shown = np.asarray(show(image, truth)).astype(int)
    change = np.abs(shown - np.asarray(image)).sum(-1)
    assert not change[:, 50:].any()
    edge = truth ^ np.roll(truth, 1, axis=0)
    assert (change[edge] > 60).all()


def test_clear_statements_are_told_and_read_back() -> None:
    image, mask = picture(3)
    cues = measure(image, np.asarray(mask) > 0)
    said = clear_statements(cues)
    assert {"on the left", "mostly red", "green background"} <= set(said)
    prompt = writer_prompt(cues, "ball")
    assert all(f"- {statement}\n" in prompt for statement in said)
    assert '"ball"' in prompt
    from saliency_r1.language.faithfulness import check

    result = check("\n".join(f"It is {statement}." for statement in said), cues)
    assert (result.total, result.holds) == (len(said), len(said))
    assert "mostly red" not in clear_statements(cues, "person in a hat")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TALK, "malformed"),
        ("", "malformed"),
        (GOOD.replace("<rg>the red ball</rg>", ""), "no expression"),
        (GOOD.replace(REST, ""), "length"),
        (GOOD.replace(REST, f"{REST} " * 4), "length"),
        (GOOD.replace("the red ball", "the red ball that lies on the wide green ground"), "long expression"),
        (GOOD.replace("plain.", "plain, and the outline shows it."), "leak"),
        (f"<think>{REST} {REST}</think><answer><rg>the ball</rg></answer>", "silent"),
        (FALSE, "unfaithful"),
        (LOST, "not found"),
    ],
)
def test_faults_are_told_apart(text: str, reason: str) -> None:
    image, mask = picture(3)
    truth = np.asarray(mask) > 0
    encoded = RedSegmenter().encode(image)

    def found(expression: str) -> np.ndarray:
        return RedSegmenter().segment(encoded, [expression]).probabilities[0] >= 0.5

    cues = measure(image, truth)
    limits = {"minimum_iou": 0.7, "minimum_faithful": 0.8}
    assert isinstance(review(GOOD, cues, found, truth, **limits), Response)
    verdict = review(text, cues, found, truth, **limits)
    assert isinstance(verdict, Fault)
    assert verdict.reason == reason
    lenient = review(text, cues, found, truth, minimum_iou=0, minimum_faithful=0)
    assert isinstance(lenient, Response) == (reason in ("unfaithful", "not found"))
    if reason == "unfaithful":
        assert "on the right; mostly blue" in verdict.advice


# Over HTTP.


def test_good_answers_become_examples_and_photos_travel_with_the_mask(tmp_path: Path) -> None:
    samples = draw_duts(tmp_path, 3)
    with serving(lambda handler, _: handler.answer(usage(GOOD))) as server:
        writer = writer_at(server, tmp_path / "answers", prices=Prices(2.0, 10.0))
        counts = make(samples, writer, tmp_path, WriterSetting(fast_share=1), workers=3)
    assert counts.to_dict() == {
        "photos": 3,
        "unused": 0,
        "examples": 6,
        "fast": 3,
        "outcomes": {"kept": 3},
    }
    examples = read_examples(tmp_path / "train.jsonl")
    assert [example.name for example in examples] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    for example, fast in zip(examples, (False, True) * 3, strict=True):
        response = parse_strict(example.response, "sod")
        assert response.expressions == ("the red ball",)
        assert (response.reasoning == "") == fast
        assert example.prompt == Task.SOD.spec.prompt(reasoning=not fast)
        assert (tmp_path / example.images[0]).is_file()
    report = writer.report()
    assert report["asked"]["cost"] == pytest.approx(3 * (1000 * 2 + 100 * 10) / 1e6)
    assert report["all answers in the cache"] == report["asked"]
    request = server.requests[0]
    assert (request["temperature"], request["seed"], request["max_tokens"]) == (0.7, 0, 512)
    image, text = request["messages"][0]["content"]
    sent = Image.open(io.BytesIO(b64decode(image["image_url"]["url"].partition(",")[2])))
    assert sent.size == SIZE
    assert "- on the left" in text["text"]


def test_a_fault_is_told_and_the_tries_are_bounded(tmp_path: Path) -> None:
    said = {1: TALK, 2: FALSE, 3: GOOD, 4: LOST, 5: FALSE, 6: None}
    samples = draw_duts(tmp_path, 2)
    with serving(lambda handler, number: handler.answer(usage(said[number]))) as server:
        counts = make(samples, writer_at(server, tmp_path / "answers"), tmp_path)
    assert counts.outcomes == {"malformed": 2, "unfaithful": 2, "kept": 1, "not found": 1}
    assert (counts.examples, counts.unused) == (1, 1)
    roles = [message["role"] for message in server.requests[2]["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert server.requests[2]["messages"][1]["content"] == TALK
    assert "on the right" in server.requests[2]["messages"][4]["content"]


def test_mirrored_photos_and_variants_are_asked_on_their_own(tmp_path: Path) -> None:
    other = GOOD.replace("on the left", "on the right")

    def behave(handler: Handler, number: int) -> None:
        prompt = handler.server.requests[number - 1]["messages"][0]["content"][1]["text"]
        handler.answer(usage(GOOD if "- on the left" in prompt else other))

    samples = draw_duts(tmp_path, 1)
    with serving(behave) as server:
        setting = WriterSetting(variants=2, mirror=True, fast_share=0)
        counts = make(samples, writer_at(server, tmp_path / "answers"), tmp_path, setting)
    assert counts.outcomes == {"kept": 4}
    assert [request["seed"] for request in server.requests] == [0, 1, 0, 1]
    examples = read_examples(tmp_path / "train.jsonl")  # equal ones of one photo are one
    assert [("left" in example.response, example.mirrored) for example in examples] == [
        (True, False),
        (False, True),
    ]


def test_a_run_that_broke_goes_on_for_free(tmp_path: Path) -> None:
    samples = draw_duts(tmp_path, 8)

    def breaking(jobs: Iterable[Job]) -> Iterator[Job]:
        for number, job in enumerate(jobs):
            if number == 2:
                raise KeyboardInterrupt
            yield job

    with serving(lambda handler, _: handler.answer(usage(GOOD))) as server:
        with pytest.raises(KeyboardInterrupt):
            make(samples, writer_at(server, tmp_path / "answers"), tmp_path, track=breaking)
        assert not (tmp_path / "train.jsonl").exists()
        assert 2 <= len(server.requests) < 8
        make(samples, writer_at(server, tmp_path / "answers"), tmp_path)
        assert len(server.requests) == 8
        whole = (tmp_path / "train.jsonl").read_bytes()
        # The whole set again, from the cache alone, and with another seed anew.
        writer = writer_at(server, tmp_path / "answers")
        make(samples, writer, tmp_path)
        assert len(server.requests) == 8
        assert (writer.new.answers, writer.from_cache.answers) == (0, 8)
        assert (tmp_path / "train.jsonl").read_bytes() == whole
        make(samples, writer_at(server, tmp_path / "answers", temperature=0.1), tmp_path)
        assert len(server.requests) == 16


def test_photos_without_an_answer_are_left_for_the_next_call(tmp_path: Path) -> None:
    samples = draw_duts(tmp_path, 3)
    failing = True

    def behave(handler: Handler, number: int) -> None:
        if failing and number == 2:
            handler.answer({"error": {"message": "content policy"}}, 403)
        else:
            handler.answer(usage(GOOD))

    with serving(behave) as server:
        counts = make(samples, writer_at(server, tmp_path / "answers"), tmp_path)
        assert counts.outcomes == {"kept": 2, "no answer": 1}
        assert (counts.photos, len(read_examples(tmp_path / "train.jsonl"))) == (2, 2)
        failing = False
        counts = make(samples, writer_at(server, tmp_path / "answers"), tmp_path)
        assert counts.outcomes == {"kept": 3}
        assert len(server.requests) == 4
    names = [example.name for example in read_examples(tmp_path / "train.jsonl")]
    assert names == ["p0", "p1", "p2"]
    assert not (tmp_path / "train.jsonl.part").exists()


def test_a_server_that_never_answers_ends_the_run(tmp_path: Path) -> None:
    samples = draw_duts(tmp_path, 24)
    with (
        serving(lambda handler, _: handler.answer({"error": {"message": "who?"}}, 401)) as server,
        pytest.raises(SaliencyError, match=r"does not accept the API key .* set OPENAI_API_KEY"),
    ):
        make(samples, writer_at(server, tmp_path / "answers"), tmp_path)
    assert 10 <= len(server.requests) < 24
    assert not (tmp_path / "train.jsonl").exists()


def test_a_budget_stops_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    samples = draw_duts(tmp_path, 4)
    options = {"prices": Prices(2.0, 10.0)}  # 0.003 an answer
    with serving(lambda handler, _: handler.answer(usage(GOOD))) as server:
        writer = writer_at(server, tmp_path / "answers", budget=0.005, **options)
        counts = make(samples, writer, tmp_path)
        assert counts.outcomes == {"kept": 2, "over the budget": 2}
        assert len(read_examples(tmp_path / "train.jsonl")) == 2
        writer = writer_at(server, tmp_path / "answers", budget=1.0, **options)
        assert make(samples, writer, tmp_path).outcomes == {"kept": 4}
        assert len(server.requests) == 4
        assert writer.report()["asked"]["cost"] == pytest.approx(0.006)
        assert writer.report()["all answers in the cache"]["cost"] == pytest.approx(0.012)
    with (
        serving(lambda handler, _: handler.say(GOOD)) as server,
        pytest.raises(SaliencyError, match="does not say how many tokens"),
    ):
        make(samples, writer_at(server, tmp_path / "others", budget=1.0, **options), tmp_path)


def test_an_empty_mask_is_not_asked_about(tmp_path: Path) -> None:
    [sample] = draw_duts(tmp_path, 1)
    assert sample.mask is not None
    Image.new("L", SIZE).save(sample.mask)
    with serving(lambda handler, _: handler.answer(usage(GOOD))) as server:
        counts = make([sample], writer_at(server, tmp_path / "answers"), tmp_path)
    assert (counts.outcomes, len(server.requests)) == ({"empty mask": 1}, 0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"budget": 1.0}, "a budget needs prices"),
        ({"budget": 0.0, "prices": Prices(1, 1)}, "budget is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"prices": Prices(-1, 0)}, "prompt is -1"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(SaliencyError, match=reason):
        WriterModel(Endpoint("http://localhost/v1", "m"), tmp_path, **options)
    with pytest.raises(SaliencyError, match="tries must be at least 1"):
        WriterSetting(tries=0)


# The command.


def command(data: Path, out: Path, url: str) -> list[str]:
    options = ["--data", str(data), "--out", str(out), "--split", "validation", "--device", "cpu"]
    # The embedded segmenter has not learnt drawn discs.
    return ["data", "rationales", "--writer", f"openai:{url}#m", *options, "--minimum-iou", "0"]


@pytest.mark.slow
def test_the_command_after_a_kill_asks_only_what_was_not_answered(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draw_duts(tmp_path, 5)
    answered: list[str] = []

    def photo(request: dict[str, Any]) -> str:
        return str(request["messages"][0]["content"][0]["image_url"]["url"])

    def behave(handler: Handler, number: int) -> None:
        if killed or number <= 3:
            handler.answer(usage(GOOD))
            answered.append(photo(handler.server.requests[number - 1]))
        else:
            handler.server.closing.wait(300)

    killed = False
    with serving(behave) as server:
        run = [*command(tmp_path, tmp_path / "out", server.url), "--concurrent", "1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "saliency_r1", *run], env=environment)
        deadline = time.monotonic() + 600
        while len(server.requests) < 4:
            assert process.poll() is None, "it ended before it asked four times"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed = True
        assert main(run) == 0
        assert len(server.requests) == 6  # the one that was cut off is asked again
    assert len(set(answered)) == len(answered) == 5
    assert len(read_examples(tmp_path / "out" / "validation.jsonl")) >= 5
    report = json.loads((tmp_path / "out" / "validation-counts.json").read_text())
    assert report["sod"]["outcomes"] == {"kept": 5}
    assert report["writer"]["all answers in the cache"]["answers"] == 5
    assert "the writer is m at 127.0.0.1" in re.sub(r"\s+", " ", capfd.readouterr().err)


def test_the_command_refuses_what_is_no_endpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "rationales", "--data", str(tmp_path), "--writer", "gpt"]) == 2
    assert "gpt: is not an endpoint; expected openai:http://HOST:PORT/v1#MODEL" in capfd.readouterr().err


def test_the_command_takes_any_segmenter(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    draw_duts(tmp_path, 1)
    folder = tiny_segmenters.save_clipseg(tmp_path / "tiny-clipseg")
    with serving(lambda handler, _: handler.answer(usage(GOOD))) as server:
        run = command(tmp_path, tmp_path / "out", server.url)
        assert main([*run, "--segmenter", f"clipseg:{folder}"]) == 0
        assert "The segmenter is tiny-clipseg, on cpu" in re.sub(r"\s+", " ", capfd.readouterr().err)
        assert main([*run, "--segmenter", "sam4"]) == 2
    assert "one of nano, clipseg" in capfd.readouterr().err
    assert read_examples(tmp_path / "out" / "validation.jsonl")
