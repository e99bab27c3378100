"""How near the pipeline comes to what an endpoint could do: photos against a server of a fixed latency.

    python benchmarks/endpoint_rate.py                    # 40 photos, 0.5 s an answer, 8 at once

The server is on loopback and answers after its latency, as many questions side by side as it is asked; the
photos are 1024x768, and the nano segmenter makes the masks. The ideal is photos / 8 * latency.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from PIL import Image
from skimage import data

from chat_server import Handler, serving
from saliency_r1.pipeline import SaliencyPipeline
from saliency_r1.policy.answering import answers
from saliency_r1.policy.endpoints.endpoint import CONCURRENT, Endpoint
from saliency_r1.policy.endpoints.openai import OpenAIPolicy
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.tasks import Task

SAID = "<think>It is white.</think><answer><rg>the white cup</rg></answer>"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds for one answer")
    options = parser.parse_args()
    photo = Image.fromarray(data.coffee()).resize((1024, 768))
    photos = [photo] * options.photos
    ideal = -(-options.photos // CONCURRENT) * options.latency

    def behave(handler: Handler, _: int) -> None:
        time.sleep(options.latency)
        handler.say(SAID)

    print(f"{options.photos} photos, {options.latency} s an answer, {CONCURRENT} at once\n")
    print("| what | seconds | of the ideal rate | connections |\n|---|---|---|---|")
    with serving(behave) as server:
        policy = OpenAIPolicy(Endpoint(server.url, "m"))
        policy.respond([[photo]], Task.SOD)  # warm up
        questions = ((number, [one]) for number, one in enumerate(photos))
        start = time.perf_counter()
        count = sum(1 for _ in answers(policy, questions, Task.SOD, reasoning=True, batch_questions=8))
        show("policy alone", time.perf_counter() - start, ideal, server.connections)
        assert count == options.photos
        pipe = SaliencyPipeline(policy, NanoSegmenter.from_pretrained())
        pipe(photo)
        start = time.perf_counter()
        count = sum(1 for _ in pipe.stream(photos))
        show("photos to masks", time.perf_counter() - start, ideal, server.connections)
        assert count == options.photos


def show(what: str, seconds: float, ideal: float, connections: int) -> None:
    """Print a row of the table."""
    print(f"| {what} | {seconds:.2f} | {ideal / seconds:.2f} | {connections} |", flush=True)


if __name__ == "__main__":
    main()
