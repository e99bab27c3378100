from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from saliency_r1.errors import ResponseError, SaliencyError
from saliency_r1.response import (
    EmptyExpressionError,
    MissingTagError,
    NestedTagError,
    RepeatedTagError,
    Response,
    StrayTextError,
    WrongTagError,
    parse_lenient,
    parse_strict,
)
from saliency_r1.tasks import Task

SOD = "<think>It is large.</think><answer><rg>brown dog</rg></answer>"
SIS = "<think>Two of them.</think><answer><ins>left dog</ins><ins>right dog</ins></answer>"
NOTHING = "<think>All alike.</think><answer></answer>"

tasks = st.sampled_from(list(Task))
# Words out of which tags, near-tags, cut tags and Unicode's look-alikes and spaces arise by chance.
FRAGMENTS = [
    *("<think>", "</think>", "<answer>", "</answer>", "<rg>", "</rg>", "<ins>", "</ins>"),
    *(
        "<THINK>",
        "< rg >",
        "</ ins>",
        "<\u00a0rg>",
        "<in\u017f>",
        "<thin\u212a>",
        "<rg",
        "rg>",
        "</",
        "<",
        ">",
    ),
    *(" ", "\n", "\u2003", "\x1f", "dog", "a < b", "think", "/", "\x00", "\ud800"),
]
tag_soup = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)
any_text = st.one_of(st.text(), tag_soup)


def responses(task: Task) -> st.SearchStrategy[Response]:
    def made(parts: tuple[str, list[str]]) -> st.SearchStrategy[Response]:
        try:
            return st.just(Response(parts[0], tuple(parts[1]), task.spec.tag))
        except ResponseError:
            return st.nothing()

    most = 4 if task.spec.several_expressions else 1
    return st.tuples(any_text, st.lists(any_text, max_size=most)).flatmap(made)


task_and_response = tasks.flatmap(lambda task: st.tuples(st.just(task), responses(task)))


@st.composite
def mutated_texts(draw: st.DrawFn) -> tuple[Task, str]:
    """The text of a valid response with a part of it removed, doubled or replaced."""
    task, response = draw(task_and_response)
    text = response.text
    first, second = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    middle = draw(st.sampled_from(["", text[first:second] * 2, text[first:second].upper()]) | tag_soup)
    return draw(st.sampled_from([task, *Task])), text[:first] + middle + text[second:]


@given(task_and_response)
def test_what_is_formatted_reads_back_the_same(case: tuple[Task, Response]) -> None:
    task, response = case
    assert parse_strict(response.text, task) == response
    assert parse_strict(response.text, task).text == response.text


@given(tasks, any_text)
@example(Task.SOD, "<think>a < <rg> rg> b</think><answer></answer>")
@example(Task.SIS, "<answer><ins>a <</ins>rg></answer>")
def test_arbitrary_text_gives_a_response_or_a_response_error(task: Task, text: str) -> None:
    check(task, text)


@given(mutated_texts())
def test_mutated_valid_text_gives_a_response_or_a_response_error(case: tuple[Task, str]) -> None:
    check(*case)


def check(task: Task, text: str) -> None:
    lenient = parse_lenient(text, task)
    assert lenient.tag == task.spec.tag
    assert parse_strict(lenient.text, task) == lenient
    try:
        strict = parse_strict(text, task)
    except ResponseError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        assert message.startswith("found ")
        assert "expected" in message
    else:
        assert strict == lenient


@pytest.mark.parametrize(
    ("text", "task", "expressions"),
    [
        (SOD, "sod", ("brown dog",)),
        (SOD, Task.COSOD, ("brown dog",)),
        (SIS, "sis", ("left dog", "right dog")),
        (NOTHING, "sod", ()),
        (NOTHING, "sis", ()),
        (NOTHING, "cosod", ()),
        ("<think></think><answer><rg>dog</rg></answer>", "sod", ("dog",)),
        (
            "\n<think>\nWhy.\n</think>\n<answer> <rg> brown\n dog </rg> </answer>\n",
            "sod",
            ("brown dog",),
        ),
        ("<think>area < 5, <b> bold</think><answer><rg>a <b> dog</rg></answer>", "sod", ("a <b> dog",)),
    ],
)
def test_strict_accepts(text: str, task: Task, expressions: tuple[str, ...]) -> None:
    assert parse_strict(text, task).expressions == expressions


@pytest.mark.parametrize(
    ("text", "task", "kind", "message"),
    [
        ("", "sod", MissingTagError, "found the end of the text, expected <think>"),
        ("a dog", "sod", MissingTagError, "found the end of the text, expected <think>"),
        ("<answer><rg>dog</rg></answer>", "sod", MissingTagError, "found '<answer>', expected <think>"),
        (
            "<think>a<answer><rg>dog</rg></answer>",
            "sod",
            MissingTagError,
            "found '<answer>' after <think>, expected </think>",
        ),
        (
            "<think>a</think><rg>dog</rg>",
            "sod",
            MissingTagError,
            "found '<rg>' after </think>, expected <answer>",
        ),
        (
            "<think>a</think><answer><rg>dog</answer>",
            "sod",
            MissingTagError,
            "found '</answer>' after <rg>, expected </rg>",
        ),
        (
            "<think>a</think><answer><rg>dog</rg>",
            "sod",
            MissingTagError,
            "found the end of the text after </rg>, expected </answer>",
        ),
        (SIS, "sod", WrongTagError, "found '<ins>' after <answer>, expected <rg> or </answer>"),
        (SOD, "sis", WrongTagError, "found '<rg>' after <answer>, expected <ins> or </answer>"),
        (
            SOD.replace("think", "THINK"),
            "sod",
            WrongTagError,
            "found '<THINK>', expected <think>, written exactly so",
        ),
        (SOD.replace("</rg>", "</ rg>"), "sod", WrongTagError, "found '</ rg>' after <rg>, expected </rg>"),
        (SOD.replace("</rg>", "</ins>"), "sod", WrongTagError, "found '</ins>' after <rg>, expected </rg>"),
        (
            SOD.replace("large", "<rg>"),
            "sod",
            NestedTagError,
            "found '<rg>' after <think>, expected </think>",
        ),
        (SOD.replace("brown", "<rg>"), "sod", NestedTagError, "found '<rg>' after <rg>, expected </rg>"),
        (SOD + SOD, "sod", RepeatedTagError, "found '<think>' after </answer>, expected the end of the text"),
        (SOD.replace("</think>", "</think>" * 2), "sod", RepeatedTagError, "found '</think>' after </think>"),
        (
            SIS.replace("ins>", "rg>"),
            "sod",
            RepeatedTagError,
            "found a second <rg>, expected </answer> after one expression",
        ),
        (
            SOD.replace("brown dog", " \n"),
            "sod",
            EmptyExpressionError,
            "found <rg></rg> without text, expected an expression in it",
        ),
        ("Sure! " + SOD, "sod", StrayTextError, "found the text 'Sure! ', expected <think>"),
        (SOD + " Done.", "sod", StrayTextError, "found the text ' Done.', expected the end after </answer>"),
        (
            SIS.replace("<ins>right", "and <ins>right"),
            "sis",
            StrayTextError,
            "found the text 'and ', expected <ins>",
        ),
        (
            "<think>a</think><answer>dog</answer>",
            "sod",
            StrayTextError,
            "found the text 'dog', expected </answer>",
        ),
    ],
)
def test_strict_refuses(text: str, task: Task, kind: type[ResponseError], message: str) -> None:
    with pytest.raises(ResponseError) as caught:
        parse_strict(text, task)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "task", "reasoning", "expressions"),
    [
        pytest.param("", "sod", "", (), id="empty"),
        pytest.param("It is a dog.", "sod", "It is a dog.", (), id="no tags"),
        pytest.param("<think>It is lar", "sod", "It is lar", (), id="cut off in the reasoning"),
        pytest.param("<think>Large.</thi", "sod", "Large.", (), id="cut off in a tag"),
        pytest.param(
            "<think>Large.</think><answer><rg>brown do",
            "sod",
            "Large.",
            ("brown do",),
            id="cut off in an expression",
        ),
        pytest.param(
            "<think>Large.</think><answer><rg>dog</r", "sod", "Large.", ("dog",), id="cut off after it"
        ),
        pytest.param(
            "<think>Large.</think><answer><rg>dog</answer>",
            "sod",
            "Large.",
            ("dog",),
            id="expression not closed",
        ),
        pytest.param(
            "<think>Large.<answer><rg>dog</rg></answer>", "sod", "Large.", ("dog",), id="reasoning not closed"
        ),
        pytest.param(
            "Large.</think><answer><rg>dog</rg></answer>", "sod", "Large.", ("dog",), id="not opened"
        ),
        pytest.param("<answer><rg>dog</rg></answer>", "sod", "", ("dog",), id="no reasoning"),
        pytest.param(
            "Large. <answer><rg>dog</rg></answer> Bye", "sod", "Large.", ("dog",), id="text around the answer"
        ),
        pytest.param("<think>Large.</think><rg>dog</rg>", "sod", "Large.", ("dog",), id="no answer tag"),
        pytest.param(
            "<Think>Large.</THINK> <ANSWER>\n< RG > brown\n dog </Rg></answer>",
            "sod",
            "Large.",
            ("brown dog",),
            id="case and space",
        ),
        pytest.param("<think>a</think><answer>the dog</answer>", "sis", "a", ("the dog",), id="bare answer"),
        pytest.param(SIS, "sod", "Two of them.", ("left dog",), id="tags of another task"),
        pytest.param(SOD, "sis", "It is large.", ("brown dog",), id="tags of another task, several"),
        pytest.param(
            SIS.replace("left dog", " "), "sis", "Two of them.", ("right dog",), id="empty expression dropped"
        ),
        pytest.param(
            "<think>not <rg>cat</rg> but</think><answer><rg>dog</rg></answer>",
            "sod",
            "not  cat  but",
            ("dog",),
            id="expression quoted in the reasoning",
        ),
        pytest.param(
            "<think>a <answer><rg>dog</rg></answer></think>", "sod", "a", ("dog",), id="all in the reasoning"
        ),
        pytest.param(
            "<answer><rg>dog</rg></answer><think>a</think>", "sod", "a", ("dog",), id="answer first"
        ),
        pytest.param(
            SOD + "<answer><rg>cat</rg></answer>", "sod", "It is large.", ("brown dog",), id="rambling"
        ),
    ],
)
def test_lenient_makes_the_best_of(
    text: str, task: Task, reasoning: str, expressions: tuple[str, ...]
) -> None:
    response = parse_lenient(text, task)
    assert (response.reasoning, response.expressions) == (reasoning, expressions)
    assert response.tag == Task(task).spec.tag


@pytest.mark.parametrize(
    ("reasoning", "expressions", "tag", "kind"),
    [
        ("see <answer>", ("dog",), "rg", NestedTagError),
        ("why", ("a </ RG > dog",), "rg", NestedTagError),
        ("why", ("a <\u00a0rg> dog",), "rg", NestedTagError),
        ("why", ("dog", " "), "ins", EmptyExpressionError),
        ("why", ("dog", "cat"), "rg", RepeatedTagError),
        ("why", ("dog",), "box", WrongTagError),
    ],
)
def test_a_response_that_would_not_read_back_cannot_be_made(
    reasoning: str, expressions: tuple[str, ...], tag: str, kind: type[ResponseError]
) -> None:
    with pytest.raises(kind):
        Response(reasoning, expressions, tag)


def test_one_string_is_not_taken_for_a_sequence_of_expressions() -> None:
    with pytest.raises(TypeError, match="one string"):
        Response("why", "dog", "rg")  # type: ignore[arg-type]


def test_an_unknown_task_is_an_error_that_names_the_known_ones() -> None:
    for parse in (parse_strict, parse_lenient):
        with pytest.raises(SaliencyError, match="sod, sis, cosod"):
            parse(SOD, "depth")


MEGABYTE = 1_000_000


UNITS = [
    *("<", "<think>", "</think>", "<answer>", "<rg>", "</rg>", "< ", "<rg", " ", "a", "<\n\n\n"),
    *("<think><answer><ins>a</ins>", "< <think> rg>", "<ins>a</ins>"),
]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("head", ["<", "<think></think><answer>"])
def test_a_megabyte_of_anything_is_read_in_linear_time(unit: str, head: str) -> None:
    text = head + unit * (MEGABYTE // len(unit))
    start = time.process_time()
    response = parse_lenient(text, "sis")
    with pytest.raises(ResponseError):
        parse_strict(text, "sis")
    # A linear scan takes .2 to 3 s by machine, a quadratic one a quarter of an hour.
    assert time.process_time() - start < 60.0
    assert parse_strict(response.text, "sis") == response
