"""A response calls its region by the name that was read of the photo."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_r1.language.read_name import rightly_named, with_read_name
from saliency_r1.nano.name_tree import NameTree

TREE = NameTree(
    ("n1", "n2", "n3", "n4", "n5"),
    (("stork", "bird"), ("vase",), ("flower pot",), ("red fox", "animal"), ("box",)),
)


def named(text: str, **probabilities: float) -> str:
    words = ("stork", "vase", "pot", "fox", "box")
    return with_read_name(text, TREE, np.array([probabilities.get(word, 0.0) for word in words]), 0.5)


def response(noun: str, expression: str | None = None) -> str:
    thought = f"What stands out is the {noun}, which is small. So the answer is the {noun}."
    return f"<think>{thought}</think><answer><rg>{expression or f'the {noun}'}</rg></answer>"


def test_another_name_is_replaced_everywhere() -> None:
    assert named(response("vase"), stork=0.9) == response("stork")
    assert named(response("flower pot"), fox=0.9) == response("red fox")


def test_what_tells_where_and_of_what_colour_it_is_stays() -> None:
    text = response("vase", "the small red vase on the left")
    assert named(text, stork=0.9) == response("stork", "the small red stork on the left")


@pytest.mark.parametrize(
    ("said", "read"), [("stork", "stork"), ("bird", "stork"), ("birds", "stork"), ("red fox", "fox")]
)
def test_a_name_that_is_probable_enough_stays(said: str, read: str) -> None:
    assert named(response(said), **{read: 0.9}) == response(said)


def test_a_name_that_only_the_texts_have_taught_stays() -> None:
    assert named(response("teapot"), stork=0.9) == response("teapot")
    assert named(response("object"), stork=0.9) == response("object")


def test_if_no_name_was_read_the_policy_s_own_stays() -> None:
    assert named(response("vase"), stork=0.4, fox=0.4) == response("vase")


def test_parts_of_words_stay() -> None:
    text = response("box").replace("which is small", "which is on a boxcar")
    assert named(text, stork=0.9) == response("stork").replace("which is small", "which is on a boxcar")


@pytest.mark.parametrize(
    "text",
    [
        "<answer></answer>",
        "<answer><rg>the vase</rg><rg>the box</rg></answer>",
        "<answer><ins>the left vase</ins><ins>the right vase</ins></answer>",
        "<think>the <rg>vase</rg></think><answer><rg> </rg></answer>",
        "no answer",
    ],
)
def test_answers_of_no_or_several_expressions_stay(text: str) -> None:
    assert named(text, stork=0.9) == text


def test_without_reasoning_the_answer_is_named() -> None:
    assert named("<answer><rg>the vase</rg></answer>", stork=0.9) == "<answer><rg>the stork</rg></answer>"


def test_a_single_instance_is_named() -> None:
    text = "<think>One instance: the vase.</think><answer><ins>the vase</ins></answer>"
    assert named(text, stork=0.9) == text.replace("vase", "stork")


def test_a_name_of_several_words_is_not_put_in_twice() -> None:
    tree = NameTree(("n1",), (("bottle of perfume", "bottle"),))
    text = response("bottle of perfume")
    assert with_read_name(text, tree, np.array([0.9]), 0.5) == text


GARBLED = "<think>It is the large large stork.</think><answer><rg>the stork</rg></answer>"
SURE = np.array([0.9, 0.0, 0.0, 0.0, 0.1])


def test_a_garbled_text_is_replaced_by_one_that_was_told_no_name() -> None:
    assert rightly_named(GARBLED, TREE, SURE, 0.5, lambda: response("object")) == response("stork")


def test_a_garbled_text_stays_if_there_is_no_better_one() -> None:
    assert rightly_named(GARBLED, TREE, SURE, 0.5, lambda: "<think>The the the</think>") == GARBLED
    assert rightly_named(GARBLED, TREE, SURE, 0.5, None) == GARBLED


def test_a_right_text_is_not_written_twice() -> None:
    def never() -> str:
        raise AssertionError("it was written again")

    assert rightly_named(response("vase"), TREE, SURE, 0.5, never) == response("stork")
