"""What a run logs: one CSV table and TensorBoard, both cut back to the checkpoint when a run goes on."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback

from saliency_r1.files import write_bytes_atomic


class RunLog(TrainerCallback):
    """Writes every log of a Trainer to `metrics.csv` and to `tensorboard/` in the run's folder.

    The table is long, so that new metrics need no new column: a row is `step,metric,value`.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: str | Path) -> None:
        self._table = Path(folder) / "metrics.csv"
        self._board = Path(folder) / "tensorboard"
        self._writer: SummaryWriter | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drop what an earlier process logged behind the step that this one starts from."""
        if not state.is_world_process_zero:
            return
        rows = [row for row in read_metrics(self._table) if row[0] <= state.global_step]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("step", "metric", "value"), *rows])
        write_bytes_atomic(self._table, text.getvalue().encode())
        self._writer = SummaryWriter(self._board, purge_step=state.global_step + 1)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Add one log."""
        if self._writer is None:
            return
        with open(self._table, "a", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            for name, value in (logs or {}).items():
                if isinstance(value, int | float):
                    table.writerow((state.global_step, name, value))
                    self._writer.add_scalar(name, value, state.global_step)
        self._writer.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


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
