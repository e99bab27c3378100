"""The vote of a group's chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from saliency_r1.cosod import ABSENT, Ballot, Verdict, chunk_sizes, elect, overlap, settled
from saliency_r1.segmenters.base import Segmentation
from saliency_r1.wording import normalised

NAMES = ("", "the dog", "Dog.", "a ball", "the ball", "cat")
BALLOTS = st.lists(
    st.builds(
        Ballot, st.sampled_from(NAMES), st.integers(1, 5), st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0])
    ),
    min_size=1,
    max_size=9,
)


def weights(ballots: list[Ballot]) -> dict[str, float]:
    found: dict[str, float] = {}
    for ballot in ballots:
        key = normalised(ballot.expression)
        found[key] = found.get(key, 0) + ballot.images * ballot.confidence
    return found


def winner(ballots: list[Ballot]) -> str:
    return normalised(ballots[elect(ballots).index].expression)


@given(st.integers(1, 500), st.integers(2, 40))
def test_chunks_hold_all_images_and_are_few_and_alike(count: int, most: int) -> None:
    sizes = chunk_sizes(count, most)
    assert sum(sizes) == count
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert (len(sizes) - 1) * most < count
    assert min(sizes) > 1 or count == 1 or most == 2


def test_no_images_are_no_chunks() -> None:
    assert chunk_sizes(0, 5) == []


@given(BALLOTS)
def test_a_majority_wins(ballots: list[Ballot]) -> None:
    found = weights(ballots)
    for name, weight in found.items():
        if weight > sum(found.values()) / 2:
            assert winner(ballots) == name


@given(BALLOTS)
def test_the_heaviest_name_wins_unless_most_found_nothing(ballots: list[Ballot]) -> None:
    found = weights(ballots)
    named = {name: weight for name, weight in found.items() if name}
    if not named or found.get("", 0) > sum(named.values()):
        assert winner(ballots) == ""
    else:
        assert named[winner(ballots)] == max(named.values())


@given(BALLOTS, st.randoms(use_true_random=False))
def test_the_order_of_the_chunks_decides_nothing_but_ties(ballots: list[Ballot], random: object) -> None:
    heaviest = sorted(weight for name, weight in weights(ballots).items() if name)
    assume(len(heaviest) < 2 or heaviest[-1] > heaviest[-2])
    shuffled = list(ballots)
    random.shuffle(shuffled)
    assert winner(shuffled) == winner(ballots)
    assert elect(shuffled).confidence == elect(ballots).confidence


@given(BALLOTS)
def test_more_images_behind_the_winner_do_not_unseat_it(ballots: list[Ballot]) -> None:
    index = elect(ballots).index
    more = list(ballots)
    more[index] = replace(ballots[index], images=ballots[index].images + 1)
    assert winner(more) == winner(ballots)


@given(BALLOTS)
def test_the_surest_of_the_winners_speaks(ballots: list[Ballot]) -> None:
    spokesman = ballots[elect(ballots).index]
    agreed = [one for one in ballots if normalised(one.expression) == winner(ballots)]
    assert spokesman.confidence == max(one.confidence for one in agreed)


@given(BALLOTS)
def test_the_confidence_is_the_winners_share_of_the_images(ballots: list[Ballot]) -> None:
    images = sum(ballot.images for ballot in ballots)
    expected = weights(ballots)[winner(ballots)] / images
    assert elect(ballots).confidence == pytest.approx(expected)


def test_one_chunk_is_as_sure_as_the_policy() -> None:
    assert elect([Ballot("the dog", 4, 0.5)]) == Verdict(0, 0.5)


def test_equal_names_are_pooled_against_a_surer_one() -> None:
    ballots = [Ballot("the cat", 5, 0.9), Ballot("the dog", 5, 0.5), Ballot("A  Dog.", 5, 0.6)]
    assert elect(ballots).index == 2


def test_where_the_policy_tells_no_confidence_images_count() -> None:
    assert elect([Ballot("cat", 2), Ballot("dog", 3)]) == Verdict(1, None)


def test_the_segmenter_is_a_witness() -> None:
    ballots = [Ballot("the can", 5, 0.9, 0.3), Ballot("the van", 4, 0.8, 0.9)]
    assert elect(ballots) == Verdict(1, pytest.approx(0.8 * 4 / 9))
    assert elect(ballots[:1]) == Verdict(0, 0.9, believed=False)
    nothing = Ballot("", 10, 1.0)
    assert elect([*ballots, nothing]) == Verdict(2, pytest.approx(10 / 19))


def test_a_vote_needs_a_ballot() -> None:
    with pytest.raises(ValueError, match="without a ballot"):
        elect([])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("The Brown  dog.", "brown dog"),
        ("an apple", "apple"),
        ("the", "the"),
        ("  ", ""),
        ("'T-shirt'", "t-shirt"),
        ("the person’s hat", "person's hat"),
        ("ＤＯＧ", "dog"),
        ("die Straße", "die strasse"),
        ("犬", "犬"),
        ("!?", "!?"),
        ("another dog", "another dog"),
    ],
)
def test_what_does_not_tell_expressions_apart_is_left_out(expression: str, expected: str) -> None:
    assert normalised(expression) == expected


@given(st.text(max_size=30))
def test_normalising_is_done_once_and_for_all(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert normalised(f"The {text} .") == once or not any(letter.isalnum() for letter in once)
    assert bool(once) == bool(text.strip())


def test_the_mask_of_what_stands_out_is_taken_where_the_name_lies_in_it() -> None:
    salient = np.zeros((4, 6), np.float32)
    salient[:, :3] = 0.9
    part, apart, nothing = np.zeros_like(salient), np.zeros_like(salient), np.zeros_like(salient)
    part[1:3, 1:4] = 0.8
    apart[1:3, 3:5] = 0.8
    assert settled(part, 0.9, salient)
    assert not settled(apart, 0.9, salient)
    assert settled(nothing, ABSENT - 0.1, salient)
    assert not settled(nothing, ABSENT, salient)
    found = Segmentation(np.stack([part, nothing, salient]), np.ones(3, np.float32))
    assert overlap(found).tolist() == pytest.approx([4 / 14, 0.0])
