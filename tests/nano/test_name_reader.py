"""What the nano policy reads of names: words of a tree, hedged, of regions, instances and groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from saliency_r1.nano.configuration import NAME_SLOTS, NAME_TOKENS
from saliency_r1.nano.name_reader import EMPTY, KEEP, NameReader
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.nano.vision import FEATURES, Adapter
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.confidence import with_names

TREE = NameTree(
    ("n1", "n2", "n3", "n4"),
    (("tabby", "cat", "animal"), ("lynx", "cat", "animal"), ("pug", "dog", "animal"), ("mug",)),
)
CELLS = 16


class Spelling:
    """A tokenizer of one token for each letter of a word."""

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text.strip()]}


def reader(threshold: float = 0.6) -> NameReader:
    torch.manual_seed(0)
    made = NameReader(TREE, threshold, 8)
    made.spelling[:, 0] = torch.arange(len(TREE.words) + 1)
    return made


def logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def word(made: NameReader, *probabilities: float) -> str:
    number, _ = made.choose(logits(*probabilities))
    return (*TREE.words, "object")[int(number)]


def test_the_narrowest_word_that_is_probable_enough() -> None:
    made = reader(0.6)
    assert word(made, 0.9, 0.05, 0.03, 0.02) == "tabby"
    assert word(made, 0.5, 0.3, 0.1, 0.1) == "cat"
    assert word(made, 0.4, 0.1, 0.4, 0.1) == "animal"
    assert word(made, 0.2, 0.1, 0.2, 0.5) == "object"


def test_a_wide_word_has_the_probability_of_all_below_it() -> None:
    words = dict(zip(TREE.words, reader().words(logits(0.4, 0.1, 0.2, 0.3))[0].tolist(), strict=True))
    assert words["cat"] == pytest.approx(0.5)
    assert words["animal"] == pytest.approx(0.7)
    assert words["mug"] == pytest.approx(0.3)


def test_a_tree_chooses_as_the_reader_does() -> None:
    made = reader()
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        values = 2.5 * torch.randn(len(TREE.classes), generator=generator)
        number, _ = made.choose(values)
        named = TREE.narrowest_of(values.softmax(-1).numpy(), made.threshold)
        assert named == (TREE.words[number] if number < len(TREE.words) else None)


def test_the_best_names_are_the_narrow_ones_in_order() -> None:
    best = TREE.best(np.array([0.4, 0.1, 0.2, 0.3]), 3)
    assert [name for name, _ in best] == ["tabby", "mug", "pug"]
    assert [value for _, value in best] == pytest.approx([0.4, 0.3, 0.2])


@pytest.mark.parametrize(
    ("expression", "probability"),
    [
        ("the tabby", 0.4),
        ("The cats on the left", 0.5),
        ("the brown dog", 0.2),
        ("the animal near the mug", 0.7),
        ("the object", None),
        ("the zebra", None),
    ],
)
def test_how_probable_the_name_in_an_expression_is(expression: str, probability: float | None) -> None:
    found = TREE.probability(expression, np.array([0.4, 0.1, 0.2, 0.3]))
    assert found == (None if probability is None else pytest.approx(probability))


def test_an_answer_gets_the_probability_of_its_name() -> None:
    classes = np.array([0.4, 0.1, 0.2, 0.3])
    said = PolicyOutput("<think>A mug?</think><answer><rg>the cat</rg></answer>", [], confidence=0.8)
    output = with_names(said, TREE, classes)
    assert output.name_probability == pytest.approx(0.5)
    assert output.belief == pytest.approx(0.4)
    assert output.names[0] == ("tabby", 0.4)
    two = replace(said, text="<think></think><answer><ins>the cat</ins><ins>the mug</ins></answer>")
    assert with_names(two, TREE, classes).belief == 0.8
    assert PolicyOutput("", [], name_probability=0.5).belief is None


def test_a_word_that_takes_too_many_tokens_is_not_used() -> None:
    made = NameReader(TREE, 0.6, 8)
    made.spell(Spelling())  # three letters fit, "tabby" and "lynx" do not
    assert word(made, 0.9, 0.05, 0.03, 0.02) == "cat"
    assert set(made.numbers) == {"cat", "pug", "dog", "mug"}


def test_an_instance_is_read_where_it_is() -> None:
    made = reader()
    torch.nn.init.zeros_(made.head.bias)
    torch.nn.init.zeros_(made.head.weight)
    made.head.weight.data[0, 0] = made.head.weight.data[2, 1] = 30.0
    head = torch.zeros(1, CELLS, 1280)
    head[0, :8, 0] = 1.0  # a tabby in the upper half, a pug in the lower one
    head[0, 8:, 1] = 1.0
    orders = torch.zeros(1, CELLS, 6)
    orders[0, 1, 0] = orders[0, 14, 1] = 1.0
    read, there = made.read(head, torch.ones(1, CELLS), orders)
    assert read.shape == (1, NAME_SLOTS, 4)
    assert there[0].tolist() == [True, True, True, False, False, False, False]
    assert read[0, 1].argmax() == 0
    assert read[0, 2].argmax() == 2


def test_a_group_shares_what_is_beside_other_things_in_each_image() -> None:
    made = reader()
    sure = torch.full((4, 4), 0.1).fill_diagonal_(0.7).log()
    read = torch.zeros(3, NAME_SLOTS, 4)
    for image, shown in enumerate(((0, 3), (3, 1), (2, 3))):  # a mug beside something else
        read[image, 0] = sure[list(shown)].mean(0)  # both stand out together
        read[image, 1], read[image, 2] = sure[shown[0]], sure[shown[1]]
    there = torch.zeros(3, NAME_SLOTS, dtype=torch.bool)
    there[:, :3] = True
    together = made.shared(read, there, torch.tensor([3]))
    assert together.argmax(1).tolist() == [3, 3, 3]
    assert together.softmax(-1)[0, 3] > 0.7
    alone = made.shared(read, there, torch.tensor([1, 1, 1]))
    torch.testing.assert_close(alone, read[:, 0].log_softmax(-1))


def test_the_evidence_of_a_group_is_multiplied() -> None:
    made = reader()
    weak = torch.tensor([0.4, 0.2, 0.2, 0.2]).log()
    each = weak.expand(4, NAME_SLOTS, 4)
    there = torch.ones(4, NAME_SLOTS, dtype=torch.bool)
    alone = made.shared(each[:1], there[:1], torch.tensor([1]))[0].softmax(-1)
    together = made.shared(each, there, torch.tensor([4]))[0].softmax(-1)
    assert alone[0] == pytest.approx(0.4, abs=1e-5)
    assert together[0] > 0.6
    apart = made.shared(each, there, torch.tensor([1, 3]))
    torch.testing.assert_close(apart[0].softmax(-1), alone)
    torch.testing.assert_close(apart[1], apart[3])


def test_words_can_be_given_in_place_of_those_that_are_read() -> None:
    made = reader(0.5)
    read = logits(0.9, 0.05, 0.03, 0.02)[0].expand(1, NAME_SLOTS, 4)
    there = torch.ones(1, NAME_SLOTS, dtype=torch.bool)
    embeddings = torch.randn(10, 8)
    given = torch.full((1, NAME_SLOTS), KEEP)
    kept = made(read, there, embeddings, given)
    assert kept.shape == (1, NAME_TOKENS, 8)
    torch.testing.assert_close(kept, made(read, there, embeddings))
    given[0, 0], given[0, 1] = made.numbers["mug"], EMPTY
    changed = made(read, there, embeddings, given)
    torch.testing.assert_close(changed[0, 0] - kept[0, 0], embeddings[made.numbers["mug"]] - embeddings[0])
    assert not torch.equal(changed[0, 3], kept[0, 3])
    torch.testing.assert_close(changed[0, 6:], kept[0, 6:])


def test_the_adapter_learns_beside_a_reader_that_does_not() -> None:
    adapter = Adapter(8, CELLS, 0, 2, 0.0, foreground=True, instances=True, names=reader())
    tokens, read = adapter(torch.randn(2, CELLS, FEATURES))
    assert read is not None
    assert not read[0].requires_grad
    tokens.square().sum().backward()
    assert adapter.foreground is not None
    assert adapter.instances is not None
    for learns in (adapter.join, adapter.project, adapter.foreground.out, adapter.instances.out):
        assert learns.weight.grad is not None
        assert learns.weight.grad.abs().sum() > 0
    assert adapter.names is not None
    assert adapter.names.head.weight.grad is None
