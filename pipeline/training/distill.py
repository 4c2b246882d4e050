"""Distillation: a student learns from a teacher's answers to the very same, augmented images.

    lesson = distill(student, teacher, task)
    Loop(lesson.model, lesson.task, ...).run()      # the optimizer is built for lesson.model too
    lesson.student                                  # has learnt; the teacher and the lesson can be forgotten

The lesson's model shares the student's layers and gives its logits and the teacher's, so that the training loop stays
as it is. A patient teacher (arXiv 2106.05237) is `weight=1.0`, mixing in `data.augment`, and many epochs: that teacher
and student see the same crop is so here anyway.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from pipeline.errors import UserError
from pipeline.ops.losses import divergence
from pipeline.tasks.base import Task
from pipeline.training.teacher import TEACHER, Teacher, require_same

STUDENT = "student"


@dataclass(frozen=True)
class Lesson:
    """What to train instead of a student, and with which task; without a teacher, the student and its own."""

    student: keras.Model
    model: keras.Model
    task: Task


def distill(
    student: keras.Model,
    teacher: keras.Model,
    task: Task,
    *,
    temperature: float = 4.0,
    weight: float = 0.9,
    preprocessing: str = "none",
    features: Mapping[str, str] | None = None,
    feature_weight: float = 1.0,
) -> Lesson:
    """Join student and teacher into one model, with the task whose loss compares them.

    The loss of an example is (1 - weight) × the task's + weight × T² KL(teacher || student) at temperature T (arXiv
    1503.02531), averaged over the pixels where there are many answers, + feature_weight × the mean squared difference
    of the features (arXiv 1412.6550).

    Args:
        student: a functional model with logits out, which is trained in place.
        teacher: a functional model of the same classes, with logits or probabilities out, which may take images of
            another size; never changed.
        task: the student's task.
        temperature: above 1 the wrong answers' probabilities count more.
        weight: the teacher's share of the loss, 0..1.
        preprocessing: what the teacher's graph lacks: none, where it takes pixels 0..255; unit, where 0..1; tf, torch
            or caffe, as keras.applications names them.
        features: names of the student's layers to the teacher's whose outputs they are to match, through a 1x1
            convolution that is learnt and forgotten, such as {"c3": "c3"}.

    Raises:
        UserError: channels or classes differ, an unknown layer, features of different height and width, a temperature
            or weight out of range.
    """
    if temperature <= 0 or not 0 <= weight <= 1 or feature_weight < 0:
        raise UserError(
            f"distillation needs temperature > 0, weight in 0..1 and feature_weight >= 0, not temperature="
            f"{temperature:g}, weight={weight:g}, feature_weight={feature_weight:g}"
        )
    require_same(student, teacher, preprocessing)
    pairs = [(_output(student, mine), _output(teacher, other)) for mine, other in (features or {}).items()]
    for mine, other in pairs:
        if mine.shape[1:-1] != other.shape[1:-1]:
            sizes = " cannot match those of ".join(str(tuple(x.shape[1:-1])) for x in (mine, other))
            raise UserError(f"features of {sizes}; choose layers of the same height and width")
    watched = keras.Model(teacher.inputs[0], [teacher.outputs[0], *(other for _, other in pairs)], name=teacher.name)
    answers = Teacher(watched, student, preprocessing)(student.inputs[0])
    outputs = {STUDENT: student.outputs[0], TEACHER: answers[0]}
    for index, ((mine, _), other) in enumerate(zip(pairs, answers[1:], strict=True)):
        outputs[f"features_{index}"] = _FeatureDistance(name=f"features_{index}")([mine, other])
    model = keras.Model(student.inputs[0], outputs, name=f"{student.name}_and_teacher")
    return Lesson(student, model, DistillationTask(task, temperature, weight, feature_weight if pairs else 0.0))


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
        loss = self.weight * sum(
            divergence(outputs[TEACHER][..., part], student[..., part], self.temperature) for part in self._heads()
        )
        if self.weight < 1:
            loss = loss + (1 - self.weight) * self.task.loss(y, student)
        for name in sorted(outputs.keys() - {STUDENT, TEACHER}):
            loss = loss + self.feature_weight * outputs[name]
        return loss

    def _heads(self) -> list[slice]:
        """Return the stretches of the last axis that are a distribution each."""
        return list(self.task.heads.values()) if self.task.fields == ("labels",) else [slice(None)]

    def metrics(self) -> list[keras.metrics.Metric]:
        """Return the task's metrics, of the student, and the one of the teacher that the task watches.

        On validation images the latter is the same in every epoch: near chance it tells of a wrong preprocessing.
        """
        own = [_MetricOf(STUDENT, metric, metric.name) for metric in self.task.metrics()]
        [watched] = [metric for metric in self.task.metrics() if metric.name == self.task.monitor]
        return [*own, _MetricOf(TEACHER, watched, f"teacher_{watched.name}")]


class _FeatureDistance(keras.layers.Layer):
    """The mean squared difference between projected features of a student and those of a teacher, (B,)."""

    def build(self, input_shape: Any) -> None:
        self.projection = keras.layers.Dense(input_shape[1][-1], use_bias=False, name="projection")
        self.projection.build(input_shape[0])

    def call(self, features: list[Any]) -> Any:
        student, teacher = features
        square = ops.square(ops.cast(self.projection(student), "float32") - ops.cast(teacher, "float32"))
        return ops.mean(square, axis=tuple(range(1, len(square.shape))))


class _MetricOf(keras.metrics.Metric):
    """A metric that is given a lesson's outputs and looks at one of them."""

    def __init__(self, output: str, metric: keras.metrics.Metric, name: str) -> None:
        super().__init__(name=name)
        self.output, self.metric = output, metric

    def update_state(self, y: Any, outputs: Any, sample_weight: Any = None) -> None:
        self.metric.update_state(y, outputs[self.output], sample_weight=sample_weight)

    def result(self) -> Any:
        return self.metric.result()

    def reset_state(self) -> None:
        self.metric.reset_state()


def _output(model: keras.Model, name: str) -> Any:
    try:
        return model.get_layer(name).output
    except ValueError:
        raise UserError(f"the model {model.name!r} has no layer {name!r} whose features could be matched") from None
