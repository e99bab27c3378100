"""Groups of options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from saliency_r1.cli.options import PolicyFlags, spread
from saliency_r1.policy.options import PolicyOptions
from saliency_r1.policy.prompts import Prompting


@dataclass(frozen=True)
class Place:
    name: Annotated[str, typer.Option(help="What it is called.")]
    floor: Annotated[int, typer.Option("--level", min=0, help="How high it is.")] = 1


def called(*arguments: str) -> tuple[int, list[object], str]:
    app, seen = typer.Typer(), []

    @app.command()
    @spread
    def go(
        who: str, *, place: Place, fast: Annotated[bool, typer.Option("--fast")] = False, asked: PolicyFlags
    ) -> None:
        """Go there."""
        seen.extend((who, place, fast, asked))

    result = CliRunner().invoke(app, arguments)
    return result.exit_code, seen, result.output


def test_a_group_is_given_option_by_option_and_comes_as_one_object() -> None:
    code, (who, place, fast, asked), _ = called(
        "me", "--name", "hall", "--level", "3", "--fast", "--max-pixels", "900", "--prompting", "zero-shot"
    )
    assert code == 0
    assert (who, place, fast) == ("me", Place("hall", 3), True)
    assert isinstance(asked, PolicyOptions)
    assert asked == PolicyFlags(max_pixels=900, prompting=Prompting.ZERO_SHOT)


def test_what_is_not_given_has_the_default_of_its_field_or_is_asked_for() -> None:
    code, (_, place, fast, asked), _ = called("me", "--name", "hall")
    assert code == 0
    assert (place, fast, asked) == (Place("hall", 1), False, PolicyFlags())
    assert called("me")[0] == 2
    assert called("me", "--name", "hall", "--level", "-1")[0] == 2


def test_help_shows_the_options_in_the_order_of_the_parameters() -> None:
    code, _, said = called("--help")
    assert code == 0
    places = [said.index(option) for option in ("--name", "--level", "--fast")]
    assert places == sorted(places)
    assert "Go there." in said
    assert "What it is called." in said
