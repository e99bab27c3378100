"""The command line. Each command has one file, which is imported when the command is used or listed.

Exit codes: 0 all done, 1 some pictures failed, 2 wrong usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import codecs
import io
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from saliency_r1.errors import SaliencyError
from saliency_r1.extras import extras_named

# A command is the `app` (a typer.Typer) of the module in this folder that has its name. `--help` imports all
# of them, so at its top such a module imports nothing heavier than typer.
COMMANDS = (
    "predict",
    "cutout",
    "batch",
    "demo",
    "serve",
    "data",
    "train",
    "evaluate",
    "compare",
    "models",
    "export",
)


class _CommandGroup(TyperGroup):
    """Import the module of a command when it is used or listed, and word errors of usage for people."""

    def list_commands(self, ctx: object) -> list[str]:
        """Return the names, in the order of COMMANDS."""
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that the arguments name; suggest similar names if there is none."""
        if args[0] not in COMMANDS and (similar := get_close_matches(args[0], COMMANDS)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, similar))}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; leave out of an error what only a programmer understands."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise

    def get_command(self, ctx: object, cmd_name: str) -> Any:
        """Return the command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"{__name__}.{cmd_name}").app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all done, 1 some pictures failed, 2 wrong usage or configuration, 130 interrupted.",
)


def _print_version(asked: bool) -> None:
    if asked:
        from saliency_r1 import __version__

        print(f"saliency-r1 {__version__}")
        raise typer.Exit


@app.callback()
def saliency_r1(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find what stands out in a photo: mask, cut-out and a short explanation."""


_PLAIN = "saliency_r1.plain"
_PLAIN_SIGNS = {"→": "->", "×": "x", "–": "-", "…": "...", "’": "'", "²": "2", "≥": ">=", "≤": "<="}


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace signs that the console's encoding does not have with signs that every encoding has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    given = error.object[error.start : error.end]
    return "".join(_PLAIN_SIGNS.get(sign, "?") for sign in given), error.end


codecs.register_error(_PLAIN, _plain)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments` (default: the process's own) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)
    if not sys.warnoptions:  # show our own warnings in one line each, and no others
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module="saliency_r1")
        warnings.showwarning = _show_warning
    try:
        with extras_named():
            typer.main.get_command(app).main(args=arguments, prog_name="saliency-r1")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except SaliencyError as error:
        print(f"saliency-r1: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error).splitlines()[0]
        print(f"saliency-r1: {reason}", file=sys.stderr)
        return 2
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"saliency-r1: warning: {message}", file=sys.stderr)
