"""What a person sees of a run while it trains: history.csv, a progress bar or lines, TensorBoard."""

import csv
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.runs import write_atomically
from pipeline.terminal import STDERR

log = logging.getLogger(__name__)


def write_history(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write history.csv, one row per finished epoch, whole: a resumed run can neither repeat nor lose a row."""
    if not rows:
        return
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)  # some figures are not of every epoch
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def standard_callbacks(tensorboard: Path | None = None) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a run in this process; `tensorboard` is its log folder, or None."""
    callbacks: list[keras.callbacks.Callback] = [EpochLines()]
    if sys.stderr.isatty():
        callbacks.append(ProgressBar())
    if tensorboard:
        callbacks.append(TensorBoard(tensorboard))
    return callbacks


class EpochLines(keras.callbacks.Callback):
    """One line per epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        silent = ("epoch", "step", "learning_rate", "seconds", "images_per_second")
        shown = sorted(
            (name.startswith("val_"), not name.endswith("loss"), name) for name in logs if name not in silent
        )
        figures = [f"{name} {logs[name]:.4f}" for *_, name in shown]
        speed = f"{logs['images_per_second']:.0f} images/s"
        log.info("epoch %d/%d: %s", epoch + 1, self.params["epochs"], ", ".join([*figures, speed]))


class ProgressBar(keras.callbacks.Callback):
    """A bar over the steps of the epoch, which leaves the terminal when training ends."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, TextColumn("loss {task.fields[loss]:.4f}"), transient=True, console=STDERR)
        self._bar = self._progress.add_task("training", total=self.params["steps"], loss=float("nan"))
        self._progress.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._first = epoch * self.params["steps"]
        self._progress.update(self._bar, description=f"epoch {epoch + 1}/{self.params['epochs']}", completed=0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._progress.update(self._bar, completed=batch + 1 - self._first, loss=logs["loss"])

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._progress.stop()


class TensorBoard(keras.callbacks.Callback):
    """Every column of history.csv as a curve; Keras's own callback needs a compiled model."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._writers = {kind: tf.summary.create_file_writer(str(folder / kind)) for kind in ("train", "validation")}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for name, value in logs.items():
            kind = "validation" if name.startswith("val_") else "train"
            with self._writers[kind].as_default(step=epoch + 1):
                tf.summary.scalar(name.removeprefix("val_"), value)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
