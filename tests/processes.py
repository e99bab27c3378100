"""Starting commands from tests."""

from __future__ import annotations

import signal


def interruptible() -> None:
    """For `preexec_fn`: Ctrl-C reaches the command, also where the test run itself was told to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
