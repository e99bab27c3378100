"""Answers whose expressions are all different."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

import tiny_policies
from saliency_r1.policy.distinct import rewrite_repeats
from saliency_r1.policy.prompts import Prompting
from saliency_r1.policy.repeats import first_repeat
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.response import parse_strict
from saliency_r1.tasks import Task

TWICE = "<think>Two cups.</think><answer><ins>the left cup</ins><ins>the left cup</ins></answer>"


@pytest.fixture(scope="module")
def nano() -> TransformersPolicy:
    return TransformersPolicy.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(data.coffee())


def test_a_repeat_is_found_whatever_its_case_and_article() -> None:
    text = (
        "<think>the dog; the dog</think><answer><ins>the dog</ins><ins>the cat</ins><ins>Dog.</ins></answer>"
    )
    repeat = first_repeat(text)
    assert repeat is not None
    assert text[repeat.start :].startswith("Dog.")
    assert repeat.earlier == {"dog", "cat"}
    assert first_repeat(text.replace("Dog.", "the left dog")) is None
    assert first_repeat("") is None
    assert first_repeat("<answer><ins>a") is None


def rewritten(policy: TransformersPolicy, photo: Image.Image, text: str, room: int = 96):
    tokenizer = policy.processor.tokenizer
    inputs = policy._inputs([[photo]], Task.SIS.spec.prompt())
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        found = rewrite_repeats(
            policy.model, tokenizer, inputs, ids, policy._settings(room, do_sample=False, temperature=1.0)
        )
    return inputs, found


def test_the_embedded_policy_says_something_else_in_its_place(
    nano: TransformersPolicy, photo: Image.Image
) -> None:
    inputs, found = rewritten(nano, photo, TWICE)
    assert found is not None
    ids, logprobs = found
    text = nano._decode(ids)
    first, second, *_ = parse_strict(text, Task.SIS).expressions
    assert first == "the left cup" != second
    assert text.startswith(TWICE[: TWICE.index("</ins>") + len("</ins><ins>")])
    whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
    with torch.no_grad():
        logits = nano.model(
            input_ids=whole, attention_mask=torch.ones_like(whole), pixel_values=inputs["pixel_values"]
        ).logits[0, -len(ids) - 1 : -1]
    expected = logits.log_softmax(-1)[range(len(ids)), ids]
    assert logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_no_other_way_on_is_likelier(nano: TransformersPolicy, photo: Image.Image) -> None:
    """The new expression beats whatever the policy itself samples there, repeats left out."""
    inputs, found = rewritten(nano, photo, TWICE)
    start = TWICE.index("</ins>") + len("</ins><ins>")
    tokenizer = nano.processor.tokenizer
    prefix = tokenizer(TWICE[:start], add_special_tokens=False)["input_ids"]

    def likelihood(expression: str) -> float:
        ids = tokenizer(TWICE[:start] + expression + "</ins>", add_special_tokens=False)["input_ids"]
        whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
        with torch.no_grad():
            logits = nano.model(
                input_ids=whole, attention_mask=torch.ones_like(whole), pixel_values=inputs["pixel_values"]
            ).logits[0, -len(ids) - 1 : -1]
        chosen = logits.log_softmax(-1)[range(len(ids)), ids][len(prefix) :]
        return float(chosen.mean())

    said = parse_strict(nano._decode(found[0]), Task.SIS).expressions[1]
    for other in ("the object on the right", "the tree frog", "the zebra at the bottom", "the third dog"):
        assert likelihood(said) >= likelihood(other)


def test_without_a_repeat_nothing_is_written_anew(nano: TransformersPolicy, photo: Image.Image) -> None:
    once = TWICE.replace("<ins>the left cup</ins></answer>", "<ins>the right cup</ins></answer>")
    assert rewritten(nano, photo, once)[1] is None


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_any_family_goes_on_behind_what_it_wrote(tmp_path: Path, family: str, photo: Image.Image) -> None:
    """Random weights write no expressions; what they write must still be no repeat, and their own."""
    folder = tiny_policies.FAMILIES[family](tmp_path / family)
    policy = TransformersPolicy.from_pretrained(
        folder, device="cpu", max_pixels=20_000, prompting=Prompting.PLAIN
    )
    _, found = rewritten(policy, photo, TWICE, room=120)
    assert found is not None
    ids, logprobs = found
    text = policy._decode(ids)
    assert text.startswith(TWICE[: TWICE.index("</ins>") + len("</ins><ins>")])
    assert text.count("<ins>the left cup</ins>") == 1
    assert len(ids) == len(logprobs) <= 120
    assert all(value <= 0 for value in logprobs)
