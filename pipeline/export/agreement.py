"""How files answer the test split beside the Keras model: their scores, and how far their outputs are apart."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.export.interpreter import LiteModel
from pipeline.tasks.base import Scores, Task, join

KERAS = "keras"
GOLDEN = 8  # images whose outputs are kept for clients to compare with
MOST_FLIPS = 12  # that are kept to be shown
MOST_WORKERS = 4  # each holds a copy of every file


@dataclass(frozen=True)
class Flip:
    """An image that a file labels otherwise than the Keras model, with both models' probabilities."""

    id: str
    image: np.ndarray
    y: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass
class Answers:
    """One model's per-example results, its outputs on the first images, and its distance to the Keras model.

    `flipped` counts the images with another label than the Keras model's, where an image has one; `flips` has the
    first of them.
    """

    parts: list[Scores] = field(default_factory=list)
    first: list[np.ndarray] = field(default_factory=list)
    max_abs_difference: float = 0.0
    summed: float = 0.0
    counted: int = 0
    flipped: int = 0
    flips: list[Flip] = field(default_factory=list)

    @property
    def scores(self) -> Scores:
        return join(self.parts)

    @property
    def golden(self) -> np.ndarray:
        return np.concatenate(self.first)[:GOLDEN]

    @property
    def mean_abs_difference(self) -> float:
        return self.summed / self.counted

    def add(self, task: Task, y: np.ndarray, outputs: np.ndarray, reference: np.ndarray) -> None:
        """Count one batch: decoded outputs, and the Keras model's on the same images."""
        difference = np.abs(outputs - reference)
        self.max_abs_difference = float(np.maximum(self.max_abs_difference, difference.max()))  # max() would lose a nan
        self.summed += float(difference.sum(dtype=np.float64))
        self.counted += difference.size
        self.parts.append(task.score(y, outputs))
        if sum(map(len, self.first)) < GOLDEN:
            self.first.append(outputs[:GOLDEN])

    def add_flips(
        self, images: np.ndarray, rest: Mapping[str, np.ndarray], outputs: np.ndarray, reference: np.ndarray
    ) -> None:
        """Count the images of a batch that are labelled otherwise than by the Keras model; outputs (B, K)."""
        changed = np.flatnonzero(outputs.argmax(-1) != reference.argmax(-1))
        self.flipped += len(changed)
        for i in changed[: MOST_FLIPS - len(self.flips)]:
            self.flips.append(Flip(rest["id"][i].decode(), images[i], rest["y"][i], reference[i], outputs[i]))


@dataclass(frozen=True)
class Agreement:
    """The Keras model's answers, each file's, and the golden examples: the first images with their ids."""

    keras: Answers
    files: Mapping[str, Answers]
    images: np.ndarray
    ids: np.ndarray

    @property
    def all(self) -> dict[str, Answers]:
        """Return the Keras model's answers and each file's by name."""
        return {KERAS: self.keras, **self.files}


def compare_on(
    batches: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]],
    task: Task,
    reference: Callable[[np.ndarray], np.ndarray],
    files: Mapping[str, Path],
) -> Agreement:
    """Let the Keras model and all files answer the same batches, in one pass over the data."""
    keras, answers = Answers(), {name: Answers() for name in files}
    images: list[np.ndarray] = []
    ids: list[str] = []
    # The runtime lets go of Python's lock while it computes. Several copies of one file, each with a part of the
    # batch, keep all cores busy where one thread per file would wait for the slowest.
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    models = {name: [LiteModel.open(path) for _ in range(workers)] for name, path in files.items()}
    with ThreadPoolExecutor(workers) as threads:
        for pixels, rest in batches:
            parts = np.array_split(pixels, workers)
            expected = np.asarray(reference(pixels.astype(np.float32)))
            keras.add(task, rest["y"], expected, expected)
            for name, copies in models.items():
                outputs = np.concatenate(list(threads.map(LiteModel.predict, copies, parts)))
                answers[name].add(task, rest["y"], outputs, expected)
                if task.fields == ("label",):
                    answers[name].add_flips(pixels, rest, outputs, expected)
            if sum(map(len, images)) < GOLDEN:
                images.append(pixels[:GOLDEN])
                ids += [one.decode() for one in rest["id"][:GOLDEN]]
    return Agreement(keras, answers, np.concatenate(images)[:GOLDEN], np.array(ids[:GOLDEN]))
