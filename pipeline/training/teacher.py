"""A trained model that another one learns from: read from a run or a Keras file, and fitted to the student's images."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.errors import UserError
from pipeline.models.files import load_model_file
from pipeline.runs import Run
from pipeline.training.learned import model_file

TEACHER = "teacher"


def open_teacher(path: Path | str, classes: Sequence[str] | None = None) -> keras.Model:
    """Load a teacher from a run's folder or from a .keras or .h5 file; code inside a file is never run.

    Raises UserError for what is no model, and for a run whose classes are not the student's `classes`, in their order:
    of a file only their number can be checked.
    """
    file, folder = model_file(path, TEACHER), Path(path).expanduser()
    if folder.is_dir() and classes is not None and Run(folder).classes != tuple(classes):
        theirs, ours = (", ".join(map(repr, names)) for names in (Run(folder).classes, classes))
        raise UserError(f"the teacher {path} was trained on the classes {theirs}; the student's are {ours}")
    return load_model_file(file, "give a run or a .keras file")


class Teacher(keras.layers.Layer):
    """Answer images (B, H, W, C) of 0..255 as a model does in inference, and let no gradient through.

    The images are resized to the size that the model takes (bilinear, which every compiler has) and then preprocessed.
    Answers become logits, and where there is one for each pixel they are resized to the student's.
    """

    def __init__(self, model: keras.Model, student: keras.Model, preprocessing: str) -> None:
        """Take a model whose first output is its answer, and the student whose images and answers count."""
        super().__init__(name=TEACHER)
        # Inside something that Keras does not look into, so that neither checkpoints nor optimizers see its weights;
        # and with `training` given here: in a functional graph the outer model's would win, and dropout be active.
        self._answer, self._preprocessing = functools.partial(model, training=False), preprocessing
        self._size, self._answer_size = tuple(model.inputs[0].shape[1:3]), student.outputs[0].shape[1:-1]
        noise = np.random.default_rng(0).uniform(0, 255, (2, *student.inputs[0].shape[1:]))
        self._probabilities = _are_probabilities(self._ask(noise.astype(np.float32))[0])

    def call(self, images: Any) -> list[Any]:
        """Return the logits, float32, and the model's other outputs."""
        answers, *others = self._ask(images)
        answers = ops.cast(answers, "float32")
        if self._probabilities:
            answers = ops.log(ops.maximum(answers, keras.config.epsilon()))
        if self._answer_size != answers.shape[1:-1]:
            answers = ops.image.resize(answers, self._answer_size)
        return [ops.stop_gradient(x) for x in (answers, *others)]

    def _ask(self, images: Any) -> list[Any]:
        if self._size not in (tuple(images.shape[1:3]), (None, None)):
            images = ops.image.resize(images, self._size)
        return keras.tree.flatten(self._answer(_preprocess(images, self._preprocessing)))


def require_same(student: keras.Model, teacher: keras.Model, preprocessing: str) -> None:
    """Raise UserError unless a teacher can answer the student's images with the student's kind of answer."""
    for model in (student, teacher):
        if len(getattr(model, "inputs", ())) != 1 or len(model.outputs) != 1:  # none in a subclassed model
            raise UserError(f"the model {model.name!r} must have one input and one output to be distilled")
    ours, theirs = student.inputs[0].shape[1:], teacher.inputs[0].shape[1:]
    if len(ours) != len(theirs) or theirs[-1] not in (None, ours[-1]) or (theirs[0] is None) != (theirs[1] is None):
        raise UserError(
            f"the teacher takes images of {theirs}, the student of {ours}; give a teacher for the same kind, or set "
            "data.channels"
        )
    if preprocessing in ("torch", "caffe") and ours[-1] != 3:
        raise UserError(f"the preprocessing {preprocessing!r} is of colour images; set data.channels=3")
    mine, other = student.outputs[0].shape, teacher.outputs[0].shape
    if mine[-1] != other[-1]:
        raise UserError(f"the teacher knows {other[-1]} classes, the student {mine[-1]}; give a teacher of the same")
    if len(mine) != len(other):
        raise UserError(f"the teacher gives {other}, the student {mine}; give a teacher of the same task")
    last = teacher.outputs[0]._keras_history.operation
    if getattr(last, "activation", None) is keras.activations.sigmoid:
        raise UserError("the teacher ends in a sigmoid, which gives no distribution over classes; give one of logits")


def _preprocess(images: Any, preprocessing: str) -> Any:
    """Turn pixels 0..255 into what the teacher was trained on, where that is not in its graph."""
    if preprocessing == "none":
        return images
    if preprocessing == "unit":
        return images / 255.0
    return keras.applications.imagenet_utils.preprocess_input(images, "channels_last", preprocessing)


def _are_probabilities(answers: Any) -> bool:
    """Say whether answers went through a softmax already, wherever in the graph it is: Keras's applications' did."""
    answers = ops.convert_to_numpy(ops.cast(answers, "float32"))
    return bool((answers >= 0).all() and np.allclose(answers.sum(axis=-1), 1, atol=0.01))
