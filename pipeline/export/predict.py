"""Ask a trained run or an exported file what is in images, with equal answers from both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data.preprocess import Preprocess
from pipeline.errors import UserError
from pipeline.ops.heads import heads_of
from pipeline.runs import Run

TOP = 3
_BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What was found in one image: labels with probabilities (or shares of the pixels), the highest first.

    Of several heads it is the best label of each, in their order.
    """

    image: Path
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(model: Run | Path | str, images: Sequence[Path | str]) -> list[Prediction]:
    """Answer each image with a run folder's Keras model, or with a .tflite file and what lies beside it.

    For segmentation a class's probability is its share of the pixels.

    Raises UserError for a model that is neither, a .tflite without labels.txt and preprocess.json, or an image that
    cannot be read.
    """
    path = model.path if isinstance(model, Run) else Path(model)
    answer, preprocess, labels = _open_file(path) if path.is_file() else _open_run(path)
    predictions = []
    for start in range(0, len(images), _BATCH):
        paths = [Path(image) for image in images[start : start + _BATCH]]
        outputs = answer(np.stack([preprocess.read_file(path) for path in paths]))
        predictions += [_top(path, output, labels) for path, output in zip(paths, outputs, strict=True)]
    return predictions


def to_table(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """Return one row per image: the best label, its probability, and the labels that came next."""
    rows = []
    for found in predictions:
        others = zip(found.labels[1:], found.probabilities[1:], strict=True)
        then = ", ".join(f"{label} {probability:.3f}" for label, probability in others)
        row = {"image": str(found.image), "label": found.labels[0], "probability": found.probabilities[0], "then": then}
        rows.append(row)
    return pd.DataFrame(rows)


_Opened = tuple[Callable[[np.ndarray], np.ndarray], Preprocess, tuple[str, ...]]


def _open_run(path: Path) -> _Opened:
    from pipeline.data.opening import preprocess_of
    from pipeline.evaluation.scoring import keras_predictor, load_model, scoring_task

    run = Run.open(path)
    experiment = run.experiment
    task = scoring_task(experiment.task.name, run.classes, experiment.task.options)
    return keras_predictor(load_model(run), task), preprocess_of(experiment.data), run.classes


def _open_file(path: Path) -> _Opened:
    from pipeline.export.interpreter import LiteModel
    from pipeline.export.metadata import LABELS, split_labels

    if path.suffix != ".tflite":
        raise UserError(f"{path} is neither a run folder nor a .tflite file", usage=True)
    texts = {}
    for name in (LABELS, "preprocess.json"):
        beside = path.parent / name
        if not beside.is_file():
            raise UserError(f"{path} has no {name} beside it; keep it with the files that pipeline export wrote")
        texts[name] = beside.read_text(encoding="utf-8")
    model, labels = LiteModel.open(path), split_labels(texts[LABELS])
    if model.output.shape[-1] != len(labels):
        raise UserError(f"{path} gives {model.output.shape[-1]} classes, but labels.txt beside it has {len(labels)}")
    return model.predict, Preprocess.from_json(texts["preprocess.json"]), labels


def _top(path: Path, output: np.ndarray, labels: Sequence[str]) -> Prediction:
    if output.ndim == 3:
        output = np.bincount(output.argmax(-1).ravel(), minlength=len(labels)) / output[..., 0].size
    heads = heads_of(labels)
    if len(heads) > 1:
        order = [part.start + int(output[part].argmax()) for part in heads.values()]
    else:
        order = np.argsort(-output, kind="stable")[:TOP]
    return Prediction(path, tuple(labels[i] for i in order), tuple(float(output[i]) for i in order))
