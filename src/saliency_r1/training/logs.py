"""The log of a run: one CSV table and TensorBoard, both cut back to the checkpoint when it is resumed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from saliency_r1.files import write_bytes_atomic
from saliency_r1.training.run import METRICS, TENSORBOARD, RunRecipe, write_recipe


class RunLog:
    """Writes `recipe.json`, and every metric to `metrics.csv` and to `tensorboard/` in the run's folder.

    The table is long, so that new metrics need no new column: a row is `step,metric,value`.

    Args:
        recipe: recipe of the run.
    """

    def __init__(self, recipe: RunRecipe) -> None:
        self._recipe = recipe
        self._table = recipe.output / METRICS
        self._writer: SummaryWriter | None = None

    def begin(self, step: int) -> None:
        """Open the log, without what an earlier process logged after the step that this one starts from."""
        write_recipe(self._recipe)
        rows = [row for row in read_metrics(self._table) if row[0] <= step]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("step", "metric", "value"), *rows])
        write_bytes_atomic(self._table, text.getvalue().encode())
        self._writer = SummaryWriter(self._recipe.output / TENSORBOARD, purge_step=step + 1)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add the numbers among the values; a log that was not begun takes none."""
        if self._writer is None:
            return
        with open(self._table, "a", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            for name, value in values.items():
                if isinstance(value, int | float):
                    table.writerow((step, name, value))
                    self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def last(self, name: str) -> float:
        """Return the last value of a metric, 0 if it was never logged."""
        values = [value for _, metric, value in read_metrics(self._table) if metric == name]
        return values[-1] if values else 0.0

    def end(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class TrainerLog(TrainerCallback):
    """Hands every log of a trainer of transformers to a `RunLog`, in the first process.

    Args:
        recipe: recipe of the run.
    """

    def __init__(self, recipe: RunRecipe) -> None:
        self._log = RunLog(recipe)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        if state.is_world_process_zero:
            self._log.begin(state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Add one log."""
        self._log.add(state.global_step, logs or {})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End."""
        self._log.end()


def read_metrics(table: str | Path) -> list[tuple[int, str, float]]:
    """The rows (step, metric, value) of a `metrics.csv`; none if it is not there, nor a cut-off one."""
    rows = []
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            for row in csv.reader(file):
                if len(row) == 3 and row[0].isdigit():
                    rows.append((int(row[0]), row[1], float(row[2])))
    except FileNotFoundError:
        pass
    return rows
