"""The reward for right names: what it pays, and where it has no say."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn_data import draw_groups, draw_pairs, real_data
from saliency_r1.cli import main
from saliency_r1.data.duts import load_synsets, write_synsets
from saliency_r1.data.prompt_examples import KnownNames, PromptExample, read_prompts, write_prompts
from saliency_r1.data.samples import Synset
from saliency_r1.data.true_instances import encode
from saliency_r1.errors import SaliencyError
from saliency_r1.language.accepted_names import known_names
from saliency_r1.language.naming import NameBook
from saliency_r1.language.tree_names import words_of
from saliency_r1.response import Response
from saliency_r1.rewards.combined import RewardWeights, SaliencyReward
from saliency_r1.rewards.naming import named
from saliency_r1.rewards.own import load_reward
from saliency_r1.rewards.segmenting import CachedSegmenter
from saliency_r1.segmenters.nano import NanoSegmenter
from saliency_r1.tasks import Task

BEAGLE = Synset("n1", "beagle", ("English hound",), ("hound", "hunting dog", "dog", "canine", "animal"))
CAT = Synset("n2", "tabby", ("tabby cat",), ("domestic cat", "cat", "feline", "animal", "object", "entity"))
BUS = Synset("n3", "bus", ("coach",), ("public transport", "conveyance", "vehicle", "artifact"))
MASK = np.zeros((40, 60), bool)
MASK[10:30, 5:25] = True


def question(task: Task, *synsets: Synset) -> PromptExample:
    masks = tuple(encode(MASK) for _ in (synsets if task is Task.SIS else "1"))
    names = tuple(known_names(synset) for synset in synsets)
    return PromptExample("a", task, task.spec.prompt(), ("a.png",), (masks,), names=names)


def paid(asked: PromptExample, *expressions: str) -> float | None:
    text = Response("Large.", expressions, asked.task.spec.tag).text
    [value] = named(completions=[text], task=[str(asked.task)], example=[asked], images=[[]])
    return value


@pytest.mark.parametrize("task", [Task.SOD, Task.COSOD])
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("the beagle", 1),
        ("the brown dog on the left", 1),  # what a viewer calls it
        ("the English hound", 1),
        ("Hounds", 1),  # one level up
        ("the hunting dog", 1),  # narrower than "dog"
        ("the canine", 0.6),
        ("the large animal", 0.6),
        ("the object", 0.3),
        ("the red thing at the top", 0.3),
        ("the cat", 0),
        ("the person with a dog", 0),
    ],
)
def test_the_more_precise_the_better_but_a_wrong_name_is_worth_nothing(
    task: Task, expression: str, expected: float
) -> None:
    assert paid(question(task, BEAGLE), expression) == expected


def test_an_answer_that_names_nothing_is_paid_nothing() -> None:
    assert paid(question(Task.SOD, BEAGLE)) == 0
    assert paid(question(Task.SIS, BEAGLE, CAT)) == 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("the dog", "the cat"), 1),
        (("the dog", "the animal"), 0.8),
        (("the dog", "the object"), 0.65),
        (("the dog", "the dog"), 0.5),
        (("the dog", "the bus"), 0.5),
        (("the dog",), 1),  # the masks count what is missed
        (("the dog", "the cat", "the bus"), 2 / 3),
        (("the dog", "the cat", "the cat", "the object"), 0.5),
    ],
)
def test_each_instance_is_named_once_in_any_order(said: tuple[str, ...], expected: float) -> None:
    for order in itertools.permutations(said):
        assert paid(question(Task.SIS, BEAGLE, CAT), *order) == pytest.approx(expected)
        assert paid(question(Task.SIS, CAT, BEAGLE), *order) == pytest.approx(expected)


def test_pairs_are_those_of_the_largest_sum() -> None:
    # Greedy would give the first word, true of both, the dog, and leave the cat to "the hound".
    assert paid(question(Task.SIS, BEAGLE, CAT), "the animal", "the hound") == pytest.approx(0.8)


def test_where_it_has_no_say() -> None:
    assert paid(replace(question(Task.SOD, BEAGLE), names=()), "the dog") is None
    assert named(["the dog"], ["sod"], [question(Task.SOD, BEAGLE)]) == [None]
    assert paid(PromptExample("a", Task.SOD, "What?", ("a.png",), ((),)), "the dog") is None


def test_a_name_pays_where_it_is_likelier_right_than_what_it_is_paid_less() -> None:
    """A policy that cannot tell a beagle from a tabby does best with "the animal"."""

    def mean(expression: str, *synsets: Synset) -> float:
        return float(np.mean([paid(question(Task.SOD, synset), expression) for synset in synsets]))

    pets, mixed = (BEAGLE, CAT), (BEAGLE, CAT, BUS, BUS, BUS)
    assert mean("the animal", *pets) > mean("the dog", *pets) > mean("the object", *pets)
    assert mean("the animal", *mixed) < mean("the object", *mixed) < mean("the bus", *mixed)


def test_words_of_real_synsets() -> None:
    synsets = load_synsets(real_data("DUTS"))
    book = NameBook(dict.fromkeys(synsets.values(), 8))
    for synset in synsets.values():
        names = known_names(synset)
        assert names.right
        assert not set(names.right) & set(names.wider)
        assert not {"object", "thing", "entity", "artifact"} & {*names.right, *names.wider}
        # What fine-tuning calls it is never wrong.
        known = {*names.right, *names.wider, "object"}
        assert {book.name(synset), *words_of(synset)} <= known
    terrier = next(synset for synset in synsets.values() if synset.name == "Lakeland terrier")
    assert {"terrier", "dog"} <= set(known_names(terrier).right)
    assert "animal" in known_names(terrier).wider


def test_a_recipe_finds_it_and_it_changes_the_reward() -> None:
    own = {"named": (load_reward("saliency_r1.rewards:named"), 0.2)}
    judge = SaliencyReward(CachedSegmenter(NanoSegmenter.from_pretrained()), RewardWeights(), own)
    picture = Image.fromarray(np.where(MASK[..., None], (220, 30, 30), (30, 160, 40)).astype(np.uint8))
    texts = [Response("", (f"the {word}",), "rg").text for word in ("dog", "animal", "cat")]
    scored = judge.score(texts, [question(Task.SOD, BEAGLE)] * 3, [[picture]] * 3)
    assert [one.parts["reward/own/named"] for one in scored] == [1, 0.6, 0]
    masks = [(one.parts["reward/sod/iou"] + one.parts["reward/sod/s_measure"]) / 2 for one in scored]
    for one, quality, paid_for in zip(scored, masks, (1, 0.6, 0), strict=True):
        assert one.reward == pytest.approx((0.1 + quality + 0.2 * paid_for) / 1.3, abs=1e-4)


def questions(folder: Path, *options: str) -> list[PromptExample]:
    assert main(["data", "prompts", str(folder / "made.jsonl"), *options]) == 0
    return read_prompts(folder / "made.jsonl")


def test_questions_know_the_names_of_their_data(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "sod", 2)
    draw_groups(tmp_path / "cosod" / "images", tmp_path / "cosod" / "masks", {"00000 dog": 2, "plain": 2})
    write_synsets(tmp_path / "sod", {"0000": BEAGLE})
    write_synsets(tmp_path / "cosod", {"00000 dog": BEAGLE})
    runs = encode(MASK)
    lengths = {"size": runs["size"], "counts": runs["counts"].decode()}
    marked = ({"synset": "n2"}, {"category_id": 1}, {"category_id": 1, "iscrowd": 1})
    content = {
        "images": [{"id": 1, "file_name": "two.png", "height": 40, "width": 60}],
        "annotations": [
            {"id": number, "image_id": 1, "segmentation": lengths, **more}
            for number, more in enumerate(marked)
        ],
        "categories": [{"id": 1, "name": "bus"}],
    }
    (tmp_path / "sis").mkdir()
    (tmp_path / "sis" / "instances.json").write_text(json.dumps(content))
    write_synsets(tmp_path / "sis", {"n2": CAT})

    folders = [f"--{task}={tmp_path / task}" for task in ("sod", "sis", "cosod")]
    rows = questions(tmp_path, *folders, "--group", "2")
    found = {row.name: row.names for row in rows}
    assert found["0000"] == found["00000 dog/0"] == (known_names(BEAGLE),)
    assert found["0001"] == found["plain/0"] == ()
    assert found["two"] == (known_names(CAT), KnownNames(("bus",), ("vehicle",)))
    write_prompts(tmp_path / "again.jsonl", rows)
    assert read_prompts(tmp_path / "again.jsonl") == rows
    # One that is not known silences the reward for the whole picture.
    del content["annotations"][1]["category_id"]
    (tmp_path / "sis" / "instances.json").write_text(json.dumps(content))
    assert [row.names for row in questions(tmp_path, folders[1])] == [()]


def test_as_many_names_as_things() -> None:
    with pytest.raises(SaliencyError, match="names of 1 things: expected 2, or none"):
        replace(question(Task.SIS, BEAGLE, CAT), names=(known_names(CAT),))
    with pytest.raises(SaliencyError, match="names of 2 things: expected 1"):
        replace(question(Task.COSOD, BEAGLE), names=(known_names(CAT),) * 2)
