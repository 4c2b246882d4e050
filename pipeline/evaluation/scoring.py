"""Score any predictor on a prepared split, example by example."""

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.evaluation.statistics import Interval, interval
from pipeline.models.files import load_model_file
from pipeline.registry import TASKS
from pipeline.runs import Run, write_atomically
from pipeline.tasks.base import Scores, Task, join

Predict = Callable[[np.ndarray], np.ndarray]
SCORES = "scores.npz"


class Prepared(Protocol):
    """What scoring needs of a prepared split (pipeline.data.input)."""

    def evaluation(self, batch_size: int, encode: Callable[[dict[str, Any]], Any]) -> Iterable[Mapping[str, Any]]:
        """Return batches of `image`, `y`, `weight` (0 marks padding) and `id`, in index order."""


@dataclass(frozen=True)
class Mistake:
    """One wrong answer: what it takes to draw it."""

    id: str
    badness: float
    image: np.ndarray
    y: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class Scored:
    """Per-example results of one split, with the ids in the same order, and the worst mistakes, worst first."""

    scores: Scores
    ids: tuple[str, ...]
    worst: tuple[Mistake, ...]

    def intervals(self, task: Task) -> dict[str, Interval]:
        """Return every measure of the task with its 95 % interval.

        Raises UserError when a figure cannot be computed, as with masks that are ignored everywhere.
        """
        found = {name: interval(measure, self.scores) for name, measure in task.measures.items()}
        for name, figure in found.items():
            if not np.isfinite(figure.value):
                raise UserError(f"{name} cannot be computed: no example of the split has a label that counts.")
        return found


def scoring_task(name: str, classes: Sequence[str], options: Mapping[str, Any]) -> Task:
    """Build a task that scores and decodes, but never trains: the counts of labels only matter to a loss."""
    return TASKS.build(name, classes, [1] * len(classes), **options)


def load_model(run: Run) -> keras.Model:
    """Load a run's Keras model; raises UserError when the file cannot be read."""
    return load_model_file(run.model_path, "train again with --force")


def save_scores(folder: Path, scored: Scored) -> None:
    """Write what each example scored to scores.npz: enough to compare runs on any measure, without their models."""
    values = {"id": np.array(scored.ids), **scored.scores}
    write_atomically(folder / SCORES, lambda path: np.savez_compressed(path, **values))


def load_scores(folder: Path) -> tuple[tuple[str, ...], Scores]:
    """Read the ids and the scores that `save_scores` wrote; raises UserError where there are none."""
    try:
        with np.load(folder / SCORES) as stored:
            scores = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        run = folder.parents[1]
        raise UserError(f"{folder} has no {SCORES}; write it with: pipeline eval {run} --split {folder.name}") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder / SCORES} cannot be read ({error}); write it again with: pipeline eval") from None
    return tuple(scores.pop("id").tolist()), scores


def keras_predictor(model: keras.Model, task: Task) -> Predict:
    """Return a function from a float32 batch to decoded predictions, compiled once."""

    # Without XLA: on a CPU it makes depthwise convolutions several times slower.
    @tf.function(reduce_retracing=True)
    def predict(images: tf.Tensor) -> tf.Tensor:
        return task.decode(model(images, training=False))

    return lambda images: predict(tf.convert_to_tensor(images, tf.float32)).numpy()


def score(predict: Predict, prepared: Prepared, task: Task, batch_size: int, *, worst: int = 24) -> Scored:
    """Score every example once; padding is dropped, and only the images of the `worst` mistakes are kept.

    Args:
        predict: float32 (B, H, W, C) of 0 to 255 to decoded predictions, one row for each image.
    """
    collected: list[Scores] = []
    ids: list[str] = []
    mistakes: list[Mistake] = []
    for batch in prepared.evaluation(batch_size, task.encode):
        real = np.asarray(batch["weight"]) > 0
        images, y = np.asarray(batch["image"]), np.asarray(batch["y"])[real]
        predictions = np.asarray(predict(images))[real]
        names = [_text(one) for one in np.asarray(batch["id"])[real]]
        scores = task.score(y, predictions)
        mistakes = _worst([*mistakes, *_mistakes(task, scores, names, images[real], y, predictions, worst)], worst)
        collected.append(scores)
        ids.extend(names)
    if not ids:
        raise UserError("there is no image to score; check the split and its corrupt files.")
    return Scored(join(collected), tuple(ids), tuple(mistakes))


def _mistakes(
    task: Task,
    scores: Scores,
    names: list[str],
    images: np.ndarray,
    y: np.ndarray,
    predictions: np.ndarray,
    most: int,
) -> list[Mistake]:
    badness = task.badness(scores)
    order = [index for index in np.argsort(-badness, kind="stable")[:most] if badness[index] > 0]
    # Copies, since a row would keep its whole batch in memory.
    return [
        Mistake(names[i], float(badness[i]), images[i].copy(), y[i].copy(), np.array(predictions[i])) for i in order
    ]


def _worst(mistakes: list[Mistake], most: int) -> list[Mistake]:
    return sorted(mistakes, key=lambda mistake: -mistake.badness)[:most]


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
