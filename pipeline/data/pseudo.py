"""Images that a trained run labelled: read from a table, and joined to the training split."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.data.files import labelled_files
from pipeline.data.source import Sample, Source, Split, gives_files
from pipeline.errors import UserError
from pipeline.sections import Pseudo

ABOUT = "about.json"  # beside a table: which run gave the labels, and how right they are

_ROUNDED = 1e-5  # by so much a table's digits may make the likeliest class fall behind another


def with_pseudo(source: Source, pseudo: Pseudo) -> Source:
    """Return the source with the images of a table of pseudo-labels at the end of its train split.

    Where they weigh other than 1, every training sample has a `weight`, with a mean of 1 so that the learning rate
    means what it did. Soft labels make every training `label` float32 (classes,).

    Raises UserError for a source whose images are not files, and for a table that cannot be read or has other classes.
    """
    require_files(source)
    train = source.split("train")
    images, probabilities, labels = _read(pseudo, source.classes)
    # Labelled by their rows: files that are no images are left out, and what is said of them with them.
    added = labelled_files(Path(pseudo.images).expanduser(), images, range(len(images)))
    labels, count = np.concatenate([train.labels, labels[added.labels]]), train.count + added.count
    columns = {"label": tf.constant(labels)}
    if pseudo.soft:
        sure = np.eye(len(source.classes), dtype=np.float32)[train.labels]
        columns["label"] = tf.constant(np.concatenate([sure, probabilities[added.labels]]))
    if pseudo.weight != 1:
        weights = np.where(np.arange(count) < train.count, 1.0, pseudo.weight)
        columns["weight"] = tf.constant(weights / weights.mean(), tf.float32)

    def load(index: tf.Tensor) -> Sample:
        image = tf.cond(
            index < train.count,
            lambda: _image(train.load(index), ""),
            lambda: _image(added.load(index - train.count), "pseudo/"),
        )
        return image | {name: tf.gather(column, index) for name, column in columns.items()}

    refused = {**(train.refused or {}), **added.refused}
    joined = Split(count, load=load, labels=labels, refused=refused, weighted="weight" in columns)
    return replace(source, splits={**source.splits, "train": joined})


def require_files(source: Source) -> None:
    """Raise UserError unless a source's training images are files with a label each, as pseudo-labels need them."""
    load = source.split("train").load
    if source.fields != {"label"} or load is None or not gives_files(load):
        raise UserError("data.pseudo needs images that are files with a label each: a source such as folder or table.")


def provenance(pseudo: Pseudo) -> dict[str, Any]:
    """Return what a run notes of its pseudo-labels: the table, its SHA-256, and what about.json beside it says."""
    table = Path(pseudo.labels).expanduser()
    about = table.parent / ABOUT
    told = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    return {"labels": str(table), "sha256": hashlib.sha256(table.read_bytes()).hexdigest(), **told}


def _image(sample: Sample, prefix: str) -> Sample:
    orientation = tf.convert_to_tensor(sample.get("orientation", 1), tf.int32)
    return {"id": prefix + sample["id"], "image": sample["image"], "orientation": orientation}


def _read(pseudo: Pseudo, classes: tuple[str, ...]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the images, float32 (N, classes) probabilities where they are wanted, and int32 (N,) labels."""
    table = Path(pseudo.labels).expanduser()
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
        images, names = rows["image"].tolist(), rows["label"].tolist()
        told = [json.loads(text) for text in rows["probabilities"]] if pseudo.soft else []
    except FileNotFoundError:
        raise UserError(f"data.pseudo.labels: {table} does not exist; make it with: pipeline pseudo") from None
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{table} is no table of pseudo-labels ({error}); make it with: pipeline pseudo") from None
    outside = next((image for image in images if os.path.isabs(image) or ".." in Path(image).parts), None)
    if outside is not None or not images:
        wrong = "has no rows" if outside is None else f"names {outside!r}, which lies outside data.pseudo.images"
        raise UserError(f"{table} {wrong}; make it anew with: pipeline pseudo")
    if len(set(images)) < len(images):
        raise UserError(f"{table} names an image twice; make it anew with: pipeline pseudo")
    unknown = next((name for name in names if name not in classes), None)
    if unknown is not None:
        raise UserError(f"{table} has the class {unknown!r}, which the labelled images do not have.")
    labels = np.array([classes.index(name) for name in names], np.int32)
    if not pseudo.soft:
        return images, np.zeros((0, len(classes)), np.float32), labels
    probabilities = np.array(told, np.float32) if {len(row) for row in told} == {len(classes)} else None
    if probabilities is None or (probabilities[np.arange(len(labels)), labels] + _ROUNDED < probabilities.max(1)).any():
        raise UserError(f"the probabilities in {table} are of other classes, or in another order, than the labels.")
    return images, probabilities, labels
