"""Many clients at once against `saliency-r1 serve`: what is lost, what it answers, its memory and its rate.

    python benchmarks/serve_load.py                              # 50 clients for 60 s, about two minutes
    python benchmarks/serve_load.py --clients 8 --seconds 10     # a try

It starts a server of its own on a free port of loopback and ends it. The photos are scikit-image's, at
several sizes and crops; tasks are mixed, and one request in twenty brings a broken picture. The rate is
compared with `SaliencyPipeline.stream`, which `saliency-r1 predict --json` runs: the seconds that it needs
for as many pictures of each kind, measured on the same photos before the load and after it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import httpx
import psutil
from PIL import Image

from saliency_r1.cli.models import set_up_hub

GROUP = 3
# Kind of request, share, task, whether the policy reasons.
KINDS = (
    ("sod", 0.40, "sod", True),
    ("sod, without reasoning", 0.15, "sod", False),
    ("sis", 0.35, "sis", True),
    (f"cosod, groups of {GROUP}", 0.10, "cosod", True),
)
BROKEN = 0.05
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
CROPS = ((0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.8, 0.8), (0.2, 0.1, 1.0, 0.9))
SIDES = (256, 384, 512)


@dataclass
class Tally:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0
    pictures: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return self.statuses.total() + self.lost


def photos() -> list[bytes]:
    """JPEG files of several sizes and crops."""
    folder = Path(str(files("skimage.data")))
    made = []
    for name in PHOTOS:
        with Image.open(folder / name) as image:
            for left, top, right, bottom in CROPS:
                width, height = image.size
                box = (int(left * width), int(top * height), int(right * width), int(bottom * height))
                for side in SIDES:
                    part = image.convert("RGB").crop(box)
                    part.thumbnail((side, side))
                    buffer = BytesIO()
                    part.save(buffer, "JPEG", quality=90)
                    made.append(buffer.getvalue())
    return made


def predict_seconds(contents: list[bytes], budget: float) -> dict[str, float]:
    """Seconds a picture that `predict` needs, by kind, the JSON included, within about `budget` seconds."""
    from saliency_r1.pipeline import SaliencyPipeline

    pipe = SaliencyPipeline.from_pretrained()
    needed = {}
    for kind, _, task, reasoning in KINDS:
        group = task == "cosod"
        step = GROUP if group else 16
        done, spent, at = 0, 0.0, 0
        list(pipe.stream(contents[:step], task, reasoning=reasoning))  # not the first call's costs
        while spent < budget / len(KINDS):
            batch = [contents[(at + index) % len(contents)] for index in range(step)]
            start = time.perf_counter()
            for result in pipe.stream(batch, task, reasoning=reasoning):
                result.to_json()
                done += 1
            spent += time.perf_counter() - start
            at += step
        needed[kind] = spent / done
    return needed


@contextmanager
def server() -> Iterator[tuple[str, psutil.Process]]:
    """A server as a user starts it: its address once it is ready, and its process."""
    command = [sys.executable, "-m", "saliency_r1", "serve", "--port", "0"]
    environment = {**os.environ, "SALIENCY_R1_TOKEN": ""}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            end = time.monotonic() + 300
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
                while client.get("/readyz").status_code != 200:
                    if time.monotonic() > end:
                        raise SystemExit("the server was not ready within 300 s")
                    time.sleep(0.2)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()


async def client(
    http: httpx.AsyncClient, contents: list[bytes], end: float, chance: random.Random, tally: Tally
) -> None:
    """Ask, and again, until the time is over."""
    shares = [share for _, share, _, _ in KINDS]
    while time.monotonic() < end:
        kind, _, task, reasoning = chance.choices(KINDS, shares)[0]
        chosen = chance.sample(contents, GROUP if task == "cosod" else 1)
        broken = chance.random() < BROKEN
        if broken:
            chosen[0] = chance.choice([b"no picture", chosen[0][: len(chosen[0]) // 2], b""])
        sent = [("images", (f"{index}.jpg", content)) for index, content in enumerate(chosen)]
        fields = {"task": task, "reasoning": str(reasoning).lower()}
        start = time.monotonic()
        try:
            response = await http.post("/v1/saliency", data=fields, files=sent)
        except httpx.HTTPError as error:
            print(f"lost: {error!r}", file=sys.stderr)
            tally.lost += 1
            continue
        tally.seconds.append(time.monotonic() - start)
        tally.statuses[response.status_code] += 1
        if response.status_code == 200:
            tally.pictures[kind] += len(response.json()["results"])
            tally.wrong += broken
        elif response.status_code == 422:
            tally.wrong += not broken
        elif response.status_code in (429, 503):
            await asyncio.sleep(float(response.headers["retry-after"]))


async def load(
    url: str, contents: list[bytes], clients: int, seconds: float, seed: int
) -> tuple[Tally, float]:
    """Let so many clients ask for so long; what they saw, and the seconds until the last answer."""
    tally = Tally()
    limits = httpx.Limits(max_connections=clients)
    start = time.monotonic()
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120, limits=limits) as http:
        chances = [random.Random(f"{seed} {number}") for number in range(clients)]
        await asyncio.gather(*(client(http, contents, start + seconds, one, tally) for one in chances))
    return tally, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--warm-up", type=float, default=20.0, help="seconds of load before memory is measured"
    )
    parser.add_argument("--predict", type=float, default=20.0, help="seconds for timing predict, twice")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_up_hub(online=False)
    contents = photos()

    before = predict_seconds(contents, options.predict)
    with server() as (url, process):
        asyncio.run(load(url, contents, options.clients, options.warm_up, options.seed + 1))
        warm = process.memory_info().rss
        tally, seconds = asyncio.run(load(url, contents, options.clients, options.seconds, options.seed))
        after = process.memory_info().rss
    behind = predict_seconds(contents, options.predict)

    pictures = tally.pictures.total()
    alone = sum(count * (before[kind] + behind[kind]) / 2 for kind, count in tally.pictures.items())
    faults = sum(count for status, count in tally.statuses.items() if status >= 500 and status != 503)
    ordered = sorted(tally.seconds) or [0.0]
    rows = [
        (f"requests of {options.clients} clients in {seconds:.0f} s", f"{tally.sent}", ""),
        ("answers lost", f"{tally.lost}", "0"),
        ("answers by status", ", ".join(f"{s}: {n}" for s, n in sorted(tally.statuses.items())), ""),
        ("5xx other than 503", f"{faults}", "0"),
        ("broken pictures taken, or good ones refused", f"{tally.wrong}", "0"),
        (
            "seconds to an answer, median / 95 of 100",
            f"{ordered[len(ordered) // 2]:.2f} / {ordered[int(0.95 * (len(ordered) - 1))]:.2f}",
            "",
        ),
        ("memory after warm-up, MB", f"{warm / 1e6:.0f}", ""),
        ("memory after, MB", f"{after / 1e6:.0f} ({after / warm - 1:+.1%})", "within 10 %"),
        ("pictures", ", ".join(f"{kind}: {count}" for kind, count in sorted(tally.pictures.items())), ""),
        ("pictures a second, server", f"{pictures / seconds:.2f}", ""),
        ("pictures a second, predict, the same mix", f"{pictures / alone:.2f}" if alone else "", ""),
        ("server / predict", f"{alone / seconds:.2f}", "≥ 0.9"),
    ]
    print("| what | measured | target |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
