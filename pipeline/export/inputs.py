"""The images that an export needs: the test split to score on, and training images to calibrate with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.config import Experiment
from pipeline.data.input import Prepared
from pipeline.data.opening import decode_split, open_source, preprocess_of
from pipeline.data.preprocess import Preprocess
from pipeline.data.source import Split
from pipeline.data.split import subset
from pipeline.errors import UserError
from pipeline.evaluation.scoring import scoring_task
from pipeline.tasks.base import Task


@dataclass(frozen=True)
class Inputs:
    """What an experiment's data gives for export; calibration images are uint8 (N, H, W, C)."""

    task: Task
    preprocess: Preprocess
    test: Prepared
    calibration: np.ndarray


def open_inputs(experiment: Experiment, classes: tuple[str, ...]) -> Inputs:
    """Open the source; calibration takes training images by the evaluation path, without augmentation.

    Raises UserError when the source lacks train or test images, or has other classes than the model.
    """
    data = experiment.data
    source = open_source(data, experiment.train.seed)
    test, train = source.split("test"), source.split("train")
    if source.classes != classes:
        raise UserError("the classes of this source are not those of the model; give data with the same classes")
    task = _task(experiment, classes)
    return Inputs(
        task=task,
        preprocess=preprocess_of(data),
        test=decode_split(data, test, task.fields, len(classes), "test"),
        calibration=_some(experiment, task, train, experiment.export.calibration_images)[0],
    )


def training_images(experiment: Experiment, classes: tuple[str, ...], count: int) -> np.ndarray:
    """Return up to `count` training images by the evaluation path, uint8 (N, H, W, C)."""
    source = open_source(experiment.data, experiment.train.seed)
    return _some(experiment, _task(experiment, classes), source.split("train"), count)[0]


def validation_images(
    experiment: Experiment, classes: tuple[str, ...], count: int
) -> tuple[Task, np.ndarray, np.ndarray]:
    """Return the task, and up to `count` validation images, uint8 (N, H, W, C), with their targets `y`."""
    source, task = open_source(experiment.data, experiment.train.seed), _task(experiment, classes)
    return task, *_some(experiment, task, source.split("validation"), count)


def _task(experiment: Experiment, classes: tuple[str, ...]) -> Task:
    return scoring_task(experiment.task.name, classes, experiment.task.options)


def _some(experiment: Experiment, task: Task, split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    data = experiment.data
    # Evenly over the split, as files mostly lie sorted by class.
    chosen = subset(split, np.unique(np.linspace(0, split.count - 1, min(count, split.count)).astype(int)))
    any_few = data.model_copy(update={"max_corrupt": 1.0})  # a few images may well be corrupt ones
    prepared = decode_split(any_few, chosen, task.fields, len(task.classes), "calibration")
    found = [(images, rest["y"]) for images, rest in real_images(prepared, task, data.batch_size)]
    images, y = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return images, y


def real_images(
    prepared: Prepared, task: Task, batch_size: int
) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
    """Yield uint8 images (B, H, W, C) with their `y` and `id`, without the padding of the last batch."""
    for batch in prepared.evaluation(batch_size, task.encode):
        real = np.asarray(batch["weight"]) > 0
        yield (
            np.asarray(batch["image"])[real].astype(np.uint8),
            {key: np.asarray(batch[key])[real] for key in ("y", "id")},
        )
