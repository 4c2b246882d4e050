"""The images that an export needs: the test split to score on, and training images to calibrate with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.config import Experiment
from pipeline.data.input import prepare
from pipeline.data.preprocess import Preprocess
from pipeline.data.source import Split
from pipeline.data.split import subset, with_validation
from pipeline.errors import UserError
from pipeline.registry import SOURCES, TASKS
from pipeline.tasks.base import Task


class Batches(Protocol):
    """A prepared split, as far as it is used here (pipeline.data.input)."""

    count: int

    def evaluation(self, batch_size: int, encode: Any) -> Any:
        """Return batches of `image`, `y`, `weight` (0 marks padding) and `id`."""


@dataclass(frozen=True)
class Inputs:
    """What an experiment's data gives for export; calibration images are uint8 (N, H, W, C)."""

    task: Task
    preprocess: Preprocess
    test: Batches
    calibration: np.ndarray


def open_inputs(experiment: Experiment) -> Inputs:
    """Open the source; calibration takes training images by the evaluation path, without augmentation."""
    data = experiment.data
    source = with_validation(
        SOURCES.build(data.source.name, **data.source.options), data.validation, experiment.train.seed
    )
    if "test" not in source.splits:
        raise UserError("the source has no test split to compare the exported files on")
    train = source.splits["train"]
    counts = None if train.labels is None else np.bincount(train.labels, minlength=len(source.classes)).tolist()
    task = TASKS.build(experiment.task.name, source.classes, counts, **experiment.task.options)
    preprocess = Preprocess(data.image_size, data.channels, data.resize)

    def prepared(split: Split, name: str, max_corrupt: float) -> Batches:
        return prepare(
            split,
            preprocess,
            fields=task.fields,
            classes=len(source.classes),
            cache_bytes=data.cache_mb * 2**20,
            max_corrupt=max_corrupt,
            name=name,
        )

    # Evenly over the split, as files mostly lie sorted by class.
    wanted = min(experiment.export.calibration_images, train.count)
    chosen = subset(train, np.unique(np.linspace(0, train.count - 1, wanted).astype(int)))
    calibration = prepared(chosen, "calibration", 1.0)
    return Inputs(
        task=task,
        preprocess=preprocess,
        test=prepared(source.splits["test"], "test", data.max_corrupt),
        calibration=np.concatenate([images for images, _ in real_images(calibration, task, data.batch_size)]),
    )


def real_images(batches: Batches, task: Task, batch_size: int) -> Any:
    """Yield uint8 images (B, H, W, C) and the rest of each batch, without the padding of the last one."""
    for batch in batches.evaluation(batch_size, task.encode):
        real = np.asarray(batch["weight"]) > 0
        rest: Mapping[str, np.ndarray] = {key: np.asarray(batch[key])[real] for key in ("y", "id")}
        yield np.asarray(batch["image"])[real].astype(np.uint8), rest
