"""The output of a training run: a progress bar, and a line for each report with the metrics that matter.

All metrics are in `metrics.csv` and TensorBoard, see `logs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

TRAINING = {
    "reward": "reward",
    "confidence/mean": "confidence",
    "parse_rate": "right form",
    "frac_reward_zero_std": "groups of equal reward",
    "kl": "KL",
    "loss": "loss",
    "mean_token_accuracy": "right tokens",
    "iou": "IoU",
}
"""The metrics of training steps that are printed, and what a line calls them."""
HELD_OUT = {
    "validation/reward": "reward",
    "validation/confidence_answer/mean": "confidence",
    "validation/parse_rate": "right form",
    "eval_loss": "loss",
    "eval_strict_parse": "right form",
    "eval_same_expression": "expected expression",
    "validation/mae": "MAE",
    "validation/iou": "IoU",
    "validation/composed_right": "right one of two objects",
    "validation/scenes_right": "right one of several objects",
}
"""The metrics of held-out examples that are printed, and what a line calls them."""


class ProgressLines:
    """The bar and the lines of a run, on standard output.

    Args:
        title: what the bar is called.
        steps: optimiser steps of the run.
        done: steps that earlier processes took.
    """

    def __init__(self, title: str, steps: int, done: int = 0) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(TextColumn("{task.description}"), *columns)
        self._task = self._bar.add_task(title, total=steps, completed=done)
        self._steps = steps
        self._bar.start()

    def at(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step)

    def report(self, step: int, values: Mapping[str, Any], seconds: float | None = None) -> None:
        """Print a line for each kind of metrics among the values; nothing if none of them is to be printed.

        Args:
            step: after which they were measured.
            values: metrics by name.
            seconds: seconds of a step; None to leave them out.
        """
        for names, kind in ((TRAINING, ""), (HELD_OUT, "held out: ")):
            found = [f"{text} {readable(values[name])}" for name, text in names.items() if name in values]
            if names is TRAINING and "reward" in values:
                found = [each for each in found if not each.startswith("loss ")]  # it says nothing there
            if found and seconds is not None and names is TRAINING:
                found.append(f"{seconds:.1f} s a step")
            if found:
                line = f"step {step} of {self._steps}  {kind}{', '.join(found)}"
                self._bar.console.print(line, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()


def readable(value: float) -> str:
    """A metric with three places, without the zero before the point."""
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


class TrainerLines(TrainerCallback):
    """Prints what a trainer of transformers reports, in the first process, in place of its own printing.

    Args:
        title: what the bar is called.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._lines: ProgressLines | None = None
        self._held_out: dict[str, Any] = {}
        self._began, self._seconds, self._steps = perf_counter(), 0.0, 0

    @classmethod
    def of(cls, trainer: Trainer, title: str) -> None:
        """Have this trainer print so."""
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(cls(title))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the bar."""
        if state.is_world_process_zero:
            self._lines = ProgressLines(self._title, state.max_steps, state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print what was measured on held-out examples since the last step."""
        self._flush(state.global_step)
        self._began = perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._seconds += perf_counter() - self._began
        self._steps += 1
        if self._lines is not None:
            self._lines.at(state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Print the metrics of training; keep those of held-out examples, which come in several logs."""
        values = logs or {}
        self._held_out |= {name: value for name, value in values.items() if name in HELD_OUT}
        training = {name: value for name, value in values.items() if name in TRAINING}
        if training and self._lines is not None:
            self._lines.report(state.global_step, training, self._seconds / max(1, self._steps))
            self._seconds, self._steps = 0.0, 0

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print what is left."""
        self._flush(state.global_step)
        if self._lines is not None:
            self._lines.end()
            self._lines = None

    def _flush(self, step: int) -> None:
        if self._lines is not None and self._held_out:
            self._lines.report(step, self._held_out)
        self._held_out = {}
