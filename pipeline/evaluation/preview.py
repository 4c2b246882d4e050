"""A look at an experiment's images before training: how many of each class, and what the augmentation makes of them."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from pipeline.config import Experiment
from pipeline.data.audit import audit
from pipeline.data.opening import decode_split, open_source
from pipeline.data.source import Source
from pipeline.data.split import subset
from pipeline.registry import TASKS
from pipeline.runs import Run, write_atomically

_SHOWN = 32
_SPLITS = ("train", "validation", "test")
_WIDTH = 800  # pixels of the whole picture, unless two tiles need more


def preview(experiment: Experiment, picture: Path | None = None) -> pd.DataFrame:
    """Count images per class and split; with `picture`, write a grid of augmented training images (a PNG) there."""
    source = open_source(experiment.data, experiment.train.seed)
    if picture is not None:
        write_atomically(picture, lambda path: augmented(experiment, source).save(path, "PNG"))
    return count(source)


def examine(experiment: Experiment) -> pd.DataFrame:
    """Decode every image of every split, and return what `audit` finds among them."""
    source = open_source(experiment.data, experiment.train.seed)
    fields = tuple(sorted(source.fields & {"label"}))
    splits = {name: source.splits[name] for name in _SPLITS if name in source.splits}
    prepared = {
        name: decode_split(experiment.data, split, fields, len(source.classes), name) for name, split in splits.items()
    }
    return audit(prepared, source.classes)


def write_preview(run: Run, source: Source) -> None:
    """Write what the report shows of a run's data: `data/counts.csv` and `data/samples.png`."""
    write_atomically(run.data_dir / "counts.csv", count(source).to_csv(index=False))
    write_atomically(run.data_dir / "samples.png", lambda path: augmented(run.experiment, source).save(path, "PNG"))


def count(source: Source) -> pd.DataFrame:
    """Return one row per class, where every image has one label, then all images and those refused when opened."""
    splits = [(name, source.splits[name]) for name in _SPLITS if name in source.splits]
    rows = [("all images", *(split.count for _, split in splits))]
    if all(split.labels is not None for _, split in splits):
        per_class = [np.bincount(split.labels, minlength=len(source.classes)) for _, split in splits]
        rows = [*zip(source.classes, *per_class, strict=True), *rows]
    rows.append(("unreadable", *(len(split.refused or ()) for _, split in splits)))
    return pd.DataFrame(rows, columns=["class", *(name for name, _ in splits)])


def augmented(experiment: Experiment, source: Source) -> Image.Image:
    """Draw training images from all over the split as the model will see them, masks laid over."""
    task = TASKS.build(experiment.task.name, source.classes, None, **_without_weights(experiment))
    train = source.split("train")
    some = np.linspace(0, train.count - 1, min(_SHOWN, train.count)).astype(int)
    any_few = experiment.data.model_copy(update={"cache_mb": 1024, "max_corrupt": 1.0})
    prepared = decode_split(any_few, subset(train, some), task.fields, len(source.classes), "train")
    batches = prepared.training(
        batch_size=prepared.count,
        augment=[(one.name, one.options) for one in experiment.data.augment],
        seed=experiment.train.seed,
        start_step=0,
        total_steps=1,
        encode=task.encode,
    )
    images, targets = (tensor.numpy() for tensor in next(iter(batches)))
    pictures = [
        task.show(image, y, _as_prediction(y, task.classes))[0] for image, y in zip(images, targets, strict=True)
    ]
    return _grid(pictures)


def _grid(pictures: list[np.ndarray]) -> Image.Image:
    # Small pictures are enlarged by whole pixels, so that what is seen is what the model gets.
    scale = max(1, 96 // pictures[0].shape[0])
    tiles = [Image.fromarray(p).resize((p.shape[1] * scale, p.shape[0] * scale), Image.NEAREST) for p in pictures]
    tiles = [ImageOps.expand(tile, 2, "white") for tile in tiles]
    width, height = tiles[0].size
    across = min(max(2, _WIDTH // width), len(tiles))
    grid = Image.new("RGB", (width * across, height * -(-len(tiles) // across)), "white")
    for index, tile in enumerate(tiles):
        grid.paste(tile, (index % across * width, index // across * height))
    return grid


def _as_prediction(y: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Let a target stand for a perfect answer, so that the task can draw it."""
    return y if y.dtype.kind == "f" else np.eye(len(classes), dtype=np.float32)[np.clip(y, 0, len(classes) - 1)]


def _without_weights(experiment: Experiment) -> dict:
    """Leave out what needs counted labels: a picture has no loss."""
    return {key: value for key, value in experiment.task.options.items() if key != "class_weights"}
