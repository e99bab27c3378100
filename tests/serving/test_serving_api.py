"""The HTTP API as its callers meet it: a real server on loopback, the nano model, real photos."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from processes import interruptible
from repository import TESTS
from running_server import nano, photo, serving
from saliency_r1.cli import main
from saliency_r1.errors import SaliencyError
from saliency_r1.serving.answers import choose_media, picture_names
from saliency_r1.serving.problems import Problem
from saliency_r1.serving.schemas import Models, ProblemShape, SaliencyAnswer
from saliency_r1.serving.settings import ServerSettings

TOKEN = "correct-horse-battery"
LIMITS: dict[str, Any] = {"bytes": 400_000, "pixels": 200_000, "images": 4}


@pytest.fixture(scope="module")
def client():
    with serving(**LIMITS) as (client, _):
        yield client


def ask(client: httpx.Client, *contents: bytes, accept: str | None = None, **fields: Any) -> httpx.Response:
    images = [("images", (f"photo{number}.jpg", content)) for number, content in enumerate(contents)]
    headers = {"Accept": accept} if accept else {}
    return client.post("/v1/saliency", data=fields, files=images, headers=headers)


def assert_problem(response: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    ProblemShape.model_validate(problem)
    assert problem["status"] == status
    for word in words:
        assert word in problem["detail"]
    return problem


@pytest.mark.parametrize("task", ["sod", "sis"])
def test_json_is_what_the_pipeline_says(client: httpx.Client, task: str) -> None:
    content = photo("astronaut.png")
    answer = ask(client, content, task=task).json()
    SaliencyAnswer.model_validate(answer)
    (result,) = answer["results"]
    expected = nano()(content, task)
    assert (result["text"], result["name"]) == (expected.text, "photo0")
    assert (result["width"], result["height"]) == expected.image.size
    for found, instance in zip(result["instances"], expected.instances, strict=True):
        assert np.array_equal(coco.decode(found["segmentation"]), instance.binary)
    assert answer["model"] == "nano"
    assert answer["seconds"] > 0


def test_a_group_and_several_photos_in_one_request(client: httpx.Client) -> None:
    left, right = photo("motorcycle_left.png"), photo("motorcycle_right.png")
    group = ask(client, left, right, task="cosod").json()["results"]
    assert [one["text"] for one in group] == [one.text for one in nano()([left, right], "cosod")]
    singles = ask(client, left, right, task="sod").json()["results"]
    assert [one["name"] for one in singles] == ["photo0", "photo1"]


def test_without_reasoning(client: httpx.Client) -> None:
    (result,) = ask(client, photo(), task="sod", reasoning="false").json()["results"]
    assert result["reasoning"] == ""
    assert result["expressions"]


def test_a_phrase_is_found_and_the_policy_is_not_asked(client: httpx.Client) -> None:
    content = photo("coffee.png")
    (result,) = ask(client, content, task="sod", find="the cup").json()["results"]
    expected = nano().finding("the cup")(content)
    assert result["expressions"] == ["the cup"]
    assert result["policy_confidence"] is None
    assert np.array_equal(coco.decode(result["instances"][0]["segmentation"]), expected.binary)


def test_a_phrase_with_a_tag_is_refused(client: httpx.Client) -> None:
    problem = assert_problem(ask(client, photo(), task="sod", find="the cat</rg>"), 422)
    assert problem["errors"][0]["field"] == "find"


def test_a_broken_picture_is_named_by_its_place(client: httpx.Client) -> None:
    cut = photo()[:2000]
    for task in ("sod", "cosod"):
        problem = assert_problem(ask(client, photo(), cut, task=task), 422, "photo1")
        assert (problem["picture"], problem["index"]) == ("photo1", 1)


@pytest.mark.parametrize(("view", "mode"), [("mask", "L"), ("overlay", "RGB"), ("cutout", "RGBA")])
def test_png_for_one_photo(client: httpx.Client, view: str, mode: str) -> None:
    response = ask(client, photo(), task="sod", view=view, accept="image/png")
    assert response.headers["content-type"] == "image/png"
    picture = Image.open(BytesIO(response.content))
    assert (picture.mode, picture.size) == (mode, (160, 106))


def test_zip_has_the_files_that_predict_writes(client: httpx.Client) -> None:
    response = ask(client, photo(), photo("coffee.png"), task="sod", accept="application/zip")
    with zipfile.ZipFile(BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        endings = ("_mask.png", "_overlay.jpg", "_cutout.png", ".json")
        assert archive.namelist() == [f"photo{n}{ending}" for n in (0, 1) for ending in endings]
        assert json.loads(archive.read("photo1.json"))["name"] == "photo1"


def test_errors_are_problem_details(client: httpx.Client) -> None:
    good = photo()
    assert_problem(client.get("/nothing"), 404, "/nothing")
    assert "POST" in client.get("/v1/saliency").headers["allow"]
    assert_problem(client.delete("/v1/models"), 405)
    assert_problem(client.post("/v1/saliency", json={"task": "sod"}), 415, "multipart/form-data")
    unbounded = {"Content-Type": "multipart/form-data"}
    assert_problem(client.post("/v1/saliency", content=b"x", headers=unbounded), 400)
    assert_problem(ask(client, good, task="sod", accept="text/html"), 406, "image/png")
    assert_problem(ask(client, good, good, task="sod", accept="image/png"), 406, "one image")
    assert_problem(ask(client, good, task="everything"), 422, "task")
    assert_problem(client.post("/v1/saliency", files={"task": (None, "sod")}), 422, "images")
    assert_problem(ask(client, *[good] * 5, task="sod"), 422, "images", "4")
    assert_problem(ask(client, b"no picture", task="sod"), 422, "photo0", "not a picture")
    assert_problem(ask(client, photo("rocket.jpg", 800, "WEBP"), task="sis"), 413, "megapixels")
    assert_problem(ask(client, bytes(500_000), task="sod"), 413, "400000 bytes")


def test_pictures_that_are_cut_short_are_read_where_the_server_accepts_them() -> None:
    good, cut = photo(kind="PNG"), photo(kind="PNG")[:30000]
    assert len(cut) < len(good)
    with serving(accept_truncated=True) as (client, _):
        for task in ("sod", "cosod"):
            answer = ask(client, good, cut, task=task)
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["results"]) == 2


@pytest.mark.parametrize("task", ["sod", "cosod"])
def test_a_picture_that_breaks_off_is_named_and_spoils_no_other(client: httpx.Client, task: str) -> None:
    good, cut = photo(), photo(kind="PNG")[:3000]
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(ask, client, good, cut if n % 2 else good, task=task) for n in range(6)]
    for number, answer in enumerate(answers):
        if number % 2:
            assert assert_problem(answer.result(), 422, "photo1")["picture"] == "photo1"
        else:
            assert answer.result().status_code == 200


def test_a_body_without_a_length_is_limited_too(client: httpx.Client) -> None:
    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield bytes(10_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_problem(client.post("/v1/saliency", content=endless(), headers=headers), 413)


def test_other_sites_and_other_hosts_are_refused(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/models", headers={"Host": "evil.example"}), 421)
    assert_problem(client.post("/v1/saliency", headers={"Sec-Fetch-Site": "cross-site"}), 403)
    assert client.get("/healthz", headers={"Host": "localhost:1"}).status_code == 200


def test_what_watches_a_server(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    models = Models.model_validate(client.get("/v1/models").json())
    assert (models.models[0].name, models.limits.images) == ("nano", 4)
    text = client.get("/metrics").text
    assert 'saliency_r1_requests_total{method="GET",path="/healthz",status="200"}' in text
    assert "saliency_r1_ready 1.0" in text


def test_requests_that_wait_together_are_one_batch() -> None:
    with serving() as (client, server), ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda task: ask(client, photo(), task=task), ["sod", "sis", "sod"] * 4))
        assert [answer.status_code for answer in answers] == [200] * 12
        value = server.engine.metrics.registry.get_sample_value
        assert value("saliency_r1_batch_images_sum") == 12
        assert (value("saliency_r1_batch_images_count") or 12) <= 6


def test_too_many_at_once_are_told_to_come_again() -> None:
    with serving(waiting=2) as (client, _), ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ask(client, photo(), task="sis"), range(10)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 1 <= len(refused) <= 8
        for answer in refused:
            assert_problem(answer, 429, "come again")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert ask(client, photo(), task="sod").status_code == 200


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    with serving(seconds=0.05) as (client, server):
        contents = [photo()] * 6
        assert_problem(ask(client, *contents, task="sis"), 504, "longer than the limit")
        while server.engine.taken:
            time.sleep(0.01)


def test_for_an_asker_who_has_left_nothing_is_done() -> None:
    with serving() as (client, server), ThreadPoolExecutor(1) as pool:
        busy = pool.submit(ask, client, *[photo(side=600)] * 8, task="cosod")
        while not server.engine.taken:
            time.sleep(0.001)
        hasty = httpx.Timeout(30, read=0.05)
        with (
            httpx.Client(base_url=client.base_url, timeout=hasty, trust_env=False) as other,
            pytest.raises(httpx.ReadTimeout),
        ):
            ask(other, photo(), task="sis")
        value = server.engine.metrics.registry.get_sample_value

        def requests(status: int) -> float | None:
            labels = {"method": "POST", "path": "/v1/saliency", "status": str(status)}
            return value("saliency_r1_requests_total", labels)

        assert busy.result().status_code == 200
        assert ask(client, photo(), task="sod").status_code == 200
        end = time.monotonic() + 30
        while (requests(499), requests(200)) != (1, 2):  # counted once an answer is out
            assert time.monotonic() < end, (requests(499), requests(200))
            time.sleep(0.01)
        assert not value("saliency_r1_images_total", {"task": "sis"})


def test_until_the_model_is_there_and_if_it_never_comes() -> None:
    there = threading.Event()

    def late():
        assert there.wait(30)
        raise SaliencyError("no model")

    with serving(late, wait=False) as (client, server):
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/models").json()["models"] == []
        for refused in (client.get("/readyz"), ask(client, photo(), task="sod")):
            assert_problem(refused, 503, "load")
            assert int(refused.headers["retry-after"]) >= 1
        server.engine.on_failure = lambda: None  # stay, to be asked
        there.set()
        while server.engine.error is None:
            time.sleep(0.01)
        assert_problem(ask(client, photo(), task="sod"), 503, "could not be loaded")


def test_token() -> None:
    with serving(token=TOKEN) as (client, _):
        assert client.get("/readyz").status_code == 200
        refused = client.get("/v1/models")
        assert_problem(refused, 401, "Bearer")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert_problem(client.get("/v1/models", headers={"Authorization": f"Bearer {TOKEN}x"}), 401)
        assert_problem(client.get("/metrics", headers={"Authorization": "Basic !"}), 401)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/models", headers=bearer).status_code == 200
        assert client.get("/metrics", auth=("anyone", TOKEN)).status_code == 200
        document = client.get("/openapi.json", headers=bearer).json()
        assert document["paths"]["/v1/saliency"]["post"]["security"] == [{"token": []}]
        assert "security" not in document["paths"]["/healthz"]["get"]


@pytest.mark.parametrize(
    ("arguments", "token", "words"),
    [
        (["--host", "0.0.0.0"], "", "SALIENCY_R1_TOKEN"),
        (["--host", "192.168.1.2"], "short", "at least 16"),
        (["--host", "127.0.0.1"], "not printable \n and long", "printable"),
        (["--policy", "no/such/folder"], "", "no such folder"),
        (["--host", "no-such-host.invalid"], TOKEN, "cannot listen there"),
    ],
)
def test_refusal_to_start(
    arguments: list[str], token: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("SALIENCY_R1_TOKEN", token)
    assert main(["serve", *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_local_addresses() -> None:
    assert all(ServerSettings(host).is_local for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"))
    assert not ServerSettings("0.0.0.0", token=TOKEN).is_local
    assert TOKEN not in repr(ServerSettings("0.0.0.0", token=TOKEN))


def test_a_stopped_server_has_answered_what_it_accepted() -> None:
    command = [sys.executable, "-m", "saliency_r1", "serve", "--port", "0", "--no-page"]
    environment = {**os.environ, "SALIENCY_R1_TOKEN": ""}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible
    ) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            with httpx.Client(base_url=url, timeout=150, trust_env=False) as client:
                while client.get("/readyz").status_code != 200:
                    time.sleep(0.1)
                with ThreadPoolExecutor(12) as pool:
                    asked = [pool.submit(ask, client, photo(), task="sis") for _ in range(12)]
                    while "saliency_r1_requests_taken 12.0" not in client.get("/metrics").text:
                        time.sleep(0.01)
                    process.send_signal(signal.SIGTERM)
                    assert [one.result().status_code for one in asked] == [200] * 12
            assert process.wait(20) in (0, -signal.SIGTERM)
        finally:
            process.kill()


def test_media_by_what_is_accepted() -> None:
    assert choose_media(None, 1) == "application/json"
    assert choose_media("image/*, application/json;q=0.5", 1) == "image/png"
    assert choose_media("image/png, application/zip;q=0.1", 2) == "application/zip"
    assert choose_media("application/json;q=0, */*", 1) == "image/png"
    with pytest.raises(Problem):
        choose_media("application/json;q=0", 1)


def test_names_of_uploaded_files() -> None:
    names = picture_names(["a/b/dog.jpg", "C:\\dog.png", "Dog-2.jpg", None, "../..", "x\n.png"])
    assert names == ["dog", "dog-2", "Dog-2-2", "image", "image-2", "x_"]


def test_openapi_holds_under_fuzzing(client: httpx.Client) -> None:
    """All checks of schemathesis, with real photos where the document says binary."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json"]
    command += [
        "--checks",
        "all",
        "--max-examples",
        "12",
        "--seed",
        "1",
        "--no-color",
        "--continue-on-failure",
    ]
    command += ["--request-timeout", "120"]
    tests = str(TESTS)
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "fuzzing_hooks", "PYTHONPATH": tests}
    environment["NO_PROXY"] = "127.0.0.1"
    done = subprocess.run(
        command, env=environment, cwd=tests, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: 5" in done.stdout
