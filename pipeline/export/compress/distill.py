"""Distillation: a student learns from a teacher's answers to the very same, augmented images.

    lesson = distill(student, teacher, task)
    Loop(lesson.model, lesson.task, ...).run()      # the optimizer is built for lesson.model too
    student                                         # has learnt; the teacher and the lesson can be forgotten

The lesson's model shares the student's layers and gives its logits and the teacher's, so that the training loop stays
as it is. A patient teacher (arXiv 2106.05237) is `weight=1.0`, mixing in `data.augment`, and many epochs: that teacher
and student see the same crop is so here anyway.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import ops

from pipeline.errors import UserError
from pipeline.runs import Run
from pipeline.tasks.base import Task

STUDENT, TEACHER = "student", "teacher"


@dataclass(frozen=True)
class Lesson:
    """What to train instead of the student, and with which task."""

    model: keras.Model
    task: "DistillationTask"


def distill(
    student: keras.Model,
    teacher: keras.Model,
    task: Task,
    *,
    temperature: float = 4.0,
    weight: float = 0.9,
    features: Mapping[str, str] | None = None,
    feature_weight: float = 1.0,
) -> Lesson:
    """Join student and teacher into one model, with the task whose loss compares them.

    The loss of an example is (1 - weight) × the task's + weight × T² KL(teacher || student) at temperature T (arXiv
    1503.02531), averaged over the pixels where there are many answers, + feature_weight × the mean squared difference
    of the features (arXiv 1412.6550).

    Args:
        student: a functional model with logits out, which is trained in place.
        teacher: a functional model of the same images and classes, with logits or probabilities out; never changed.
        task: the student's task.
        temperature: above 1 the wrong answers' probabilities count more.
        weight: the teacher's share of the loss, 0..1.
        features: names of the student's layers to the teacher's whose outputs they are to match, through a 1x1
            convolution that is learnt and forgotten, such as {"c3": "c3"}.

    Raises:
        UserError: images or classes differ, an unknown layer, features of different height and width, a temperature or
            weight out of range.
    """
    if temperature <= 0 or not 0 <= weight <= 1 or feature_weight < 0:
        raise UserError(
            f"distillation needs temperature > 0, weight in 0..1 and feature_weight >= 0, not temperature="
            f"{temperature:g}, weight={weight:g}, feature_weight={feature_weight:g}"
        )
    _check_shapes(student, teacher)
    pairs = [(_output(student, mine), _output(teacher, other)) for mine, other in (features or {}).items()]
    for mine, other in pairs:
        if mine.shape[1:-1] != other.shape[1:-1]:
            sizes = " cannot match those of ".join(str(tuple(x.shape[1:-1])) for x in (mine, other))
            raise UserError(f"features of {sizes}; choose layers of the same height and width")
    watched = keras.Model(teacher.input, [teacher.output, *(other for _, other in pairs)], name=teacher.name)
    answers = _Teacher(watched, _gives_probabilities(teacher))(student.input)
    outputs = {STUDENT: student.output, TEACHER: answers[0]}
    for index, ((mine, _), other) in enumerate(zip(pairs, answers[1:], strict=True)):
        outputs[f"features_{index}"] = _FeatureDistance(name=f"features_{index}")([mine, other])
    model = keras.Model(student.input, outputs, name=f"{student.name}_and_teacher")
    return Lesson(model, DistillationTask(task, temperature, weight, feature_weight if pairs else 0.0))


def open_teacher(path: Path | str) -> keras.Model:
    """Load a teacher from a run's folder or from a .keras file."""
    path = Path(path)
    if path.is_dir():
        return keras.models.load_model(Run.open(path).model_path, compile=False)
    if not path.is_file():
        raise UserError(f"there is no teacher at {path}; give a finished run or a .keras file")
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, OSError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be read as a Keras model ({reason}); give a run or a .keras file") from None


def divergence(teacher: Any, student: Any, temperature: float) -> Any:
    """Return T² KL(teacher || student) between logits (B, ..., classes) at a temperature, float32 (B,)."""
    teacher = ops.log_softmax(ops.cast(teacher, "float32") / temperature)
    student = ops.log_softmax(ops.cast(student, "float32") / temperature)
    each = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
    return temperature**2 * ops.mean(ops.reshape(each, (ops.shape(each)[0], -1)), axis=-1)


@dataclass(frozen=True)
class DistillationTask:
    """A task on the outputs of a lesson's model; everything but the loss looks at the student alone."""

    task: Task
    temperature: float
    weight: float
    feature_weight: float

    def __getattr__(self, name: str) -> Any:
        """Return what the student's task has: its fields, its encoding, its measures."""
        if name.startswith("__") or name == "task":  # asked for while copying, before there is a task
            raise AttributeError(name)
        return getattr(self.task, name)

    def check(self, model: keras.Model) -> None:
        """Raise UserError when the student does not fit its task."""
        self.task.check(keras.Model(model.input, model.output[STUDENT], name=model.name))

    def loss(self, y: Any, outputs: Any) -> Any:
        """Return the loss of each example, float32 (B,)."""
        student = outputs[STUDENT]
        loss = self.weight * divergence(outputs[TEACHER], student, self.temperature)
        if self.weight < 1:
            loss = loss + (1 - self.weight) * self.task.loss(y, student)
        for name in sorted(outputs.keys() - {STUDENT, TEACHER}):
            loss = loss + self.feature_weight * outputs[name]
        return loss

    def metrics(self) -> list[keras.metrics.Metric]:
        """Return the task's metrics, of the student."""
        return [_StudentMetric(metric) for metric in self.task.metrics()]


class _Teacher(keras.layers.Layer):
    """Run a model as in inference, whatever the model around it does, and let no gradient through."""

    def __init__(self, model: keras.Model, probabilities: bool) -> None:
        """Take a model whose first output is logits, or probabilities, which become logits."""
        super().__init__(name=TEACHER)
        # Inside something that Keras does not look into, so that neither checkpoints nor optimizers see its weights;
        # and with `training` given here: in a functional graph the outer model's would win, and dropout be active.
        self._answer, self._probabilities = functools.partial(model, training=False), probabilities

    def call(self, images: Any) -> list[Any]:
        """Return the model's outputs."""
        answers, *features = keras.tree.flatten(self._answer(images))
        if self._probabilities:
            answers = ops.log(ops.maximum(answers, keras.config.epsilon()))
        return [ops.stop_gradient(x) for x in (answers, *features)]


class _FeatureDistance(keras.layers.Layer):
    """The mean squared difference between projected features of a student and those of a teacher, (B,)."""

    def build(self, input_shape: Any) -> None:
        self.projection = keras.layers.Dense(input_shape[1][-1], use_bias=False, name="projection")
        self.projection.build(input_shape[0])

    def call(self, features: list[Any]) -> Any:
        student, teacher = features
        square = ops.square(ops.cast(self.projection(student), "float32") - ops.cast(teacher, "float32"))
        return ops.mean(square, axis=tuple(range(1, len(square.shape))))


class _StudentMetric(keras.metrics.Metric):
    """A metric that is given a lesson's outputs and looks at the student's."""

    def __init__(self, metric: keras.metrics.Metric) -> None:
        super().__init__(name=metric.name)
        self.metric = metric

    def update_state(self, y: Any, outputs: Any, sample_weight: Any = None) -> None:
        self.metric.update_state(y, outputs[STUDENT], sample_weight=sample_weight)

    def result(self) -> Any:
        return self.metric.result()

    def reset_state(self) -> None:
        self.metric.reset_state()


def _check_shapes(student: keras.Model, teacher: keras.Model) -> None:
    for model in (student, teacher):
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise UserError(f"the model {model.name!r} must have one input and one output to be distilled")
    given, taken = student.inputs[0].shape[1:], teacher.inputs[0].shape[1:]
    if len(given) != len(taken) or any(b not in (None, a) for a, b in zip(given, taken, strict=True)):
        raise UserError(
            f"the teacher takes images of {taken}, the student of {given}; give a teacher for the same ones"
        )
    mine, theirs = student.outputs[0].shape, teacher.outputs[0].shape
    if mine[-1] != theirs[-1]:
        raise UserError(f"the teacher knows {theirs[-1]} classes, the student {mine[-1]}; give a teacher of the same")
    if len(mine) != len(theirs):
        raise UserError(f"the teacher gives {theirs}, the student {mine}; give a teacher of the same task")


def _output(model: keras.Model, name: str) -> Any:
    try:
        return model.get_layer(name).output
    except ValueError:
        raise UserError(f"the model {model.name!r} has no layer {name!r} whose features could be matched") from None


def _gives_probabilities(model: keras.Model) -> bool:
    """Say whether the answers are probabilities already: Keras's own applications end in a softmax."""
    last = model.outputs[0]._keras_history.operation
    return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
