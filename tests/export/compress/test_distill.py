import keras
import numpy as np
import pytest
from keras import ops

from pipeline.errors import UserError
from pipeline.export.compress.distill import STUDENT, TEACHER, distill, divergence
from pipeline.registry import TASKS

layers = keras.layers


def network(classes: int = 3, *, width: int = 4, size: int = 8, dropout: float = 0.0, softmax: bool = False):
    keras.utils.set_random_seed(width)
    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(width, 3, name="features")(layers.Rescaling(1 / 255)(image))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(classes, activation="softmax" if softmax else None)(x))


def task(classes: int = 3):
    return TASKS.build("classification", tuple("abcdefgh"[:classes]), None)


def pictures(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 8, 8, 3)).astype("float32")


def softmax(x, temperature=1.0):
    e = np.exp(np.asarray(x, np.float64) / temperature)
    return e / e.sum(axis=-1, keepdims=True)


def test_the_divergence_by_hand():
    teacher, student = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    np.testing.assert_allclose(divergence(teacher, student, 1.0), [expected], rtol=1e-5)
    p, q = softmax([[4.0, 0, 2]], 2.0), softmax([[1.0, 3, 0]], 2.0)
    expected = 4 * (p * np.log(p / q)).sum()
    found = divergence(np.array([[4.0, 0, 2]]), np.array([[1.0, 3, 0]]), 2.0)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
    np.testing.assert_allclose(divergence(teacher, teacher + 7, 3.0), [0.0], atol=1e-5)


def test_the_divergence_is_averaged_over_pixels():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 2, 4, 5, 3))
    found = divergence(teacher, student, 1.0)
    each = [
        divergence(t.reshape(-1, 3), s.reshape(-1, 3), 1.0).numpy().mean()
        for t, s in zip(teacher, student, strict=True)
    ]
    np.testing.assert_allclose(found, each, rtol=1e-5)


def test_the_loss_is_the_weighted_sum():
    student, teacher = network(), network(width=8)
    lesson = distill(student, teacher, task(), temperature=2.0, weight=0.25)
    x, y = pictures(), np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    outputs = lesson.model(x)
    expected = 0.25 * divergence(teacher(x), student(x), 2.0) + 0.75 * task().loss(y, student(x))
    np.testing.assert_allclose(lesson.task.loss(y, outputs), expected, rtol=1e-4)
    only = distill(student, teacher, task(), weight=1.0)
    np.testing.assert_allclose(only.task.loss(y, only.model(x)), divergence(teacher(x), student(x), 4.0), rtol=1e-4)


def test_the_teacher_answers_as_in_inference_and_is_never_changed():
    student, teacher = network(), network(width=8, dropout=0.9)
    lesson = distill(student, teacher, task())
    x = pictures()
    training = lesson.model(x, training=True)
    np.testing.assert_allclose(training[TEACHER], teacher(x, training=False), rtol=1e-5)
    assert not {id(v) for v in lesson.model.variables} & {id(v) for v in teacher.variables}
    assert {id(v) for v in lesson.model.trainable_variables} == {id(v) for v in student.trainable_variables}
    assert teacher.trainable_variables


def test_probabilities_of_a_teacher_become_logits():
    logits, softmaxed = network(width=8), network(width=8, softmax=True)
    softmaxed.set_weights(logits.get_weights())
    x = pictures()
    first, second = (
        lesson.task.loss(np.eye(3, dtype="float32")[[0, 1, 2, 0]], lesson.model(x))
        for lesson in (distill(network(), teacher, task()) for teacher in (logits, softmaxed))
    )
    np.testing.assert_allclose(first, second, rtol=1e-4)


def test_features_are_matched_through_a_projection():
    student, teacher = network(), network(width=8)
    lesson = distill(student, teacher, task(), features={"features": "features"}, feature_weight=10.0)
    x, y = pictures(), np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    kernel = lesson.model.get_layer("features_0").projection.kernel
    assert kernel.shape == (4, 8)
    mine, theirs = (keras.Model(m.input, m.get_layer("features").output)(x) for m in (student, teacher))
    distance = ops.mean(ops.square(ops.matmul(mine, kernel) - theirs), axis=(1, 2, 3))
    outputs = lesson.model(x)
    np.testing.assert_allclose(outputs["features_0"], distance, rtol=1e-4)
    plain = distill(student, teacher, task())
    difference = lesson.task.loss(y, outputs) - plain.task.loss(y, plain.model(x))
    np.testing.assert_allclose(difference, 10 * distance, rtol=1e-3)
    assert len(lesson.model.trainable_variables) == len(student.trainable_variables) + 1


def test_metrics_look_at_the_student():
    lesson = distill(network(), network(width=8), task())
    [metric] = lesson.task.metrics()
    y = np.eye(3, dtype="float32")
    metric.update_state(y, {STUDENT: y, TEACHER: -y})
    assert (metric.name, float(metric.result())) == ("accuracy", 1.0)
    metric.reset_state()
    assert [float(v.numpy()) for v in metric.variables] == [0.0, 0.0]
    assert lesson.task.monitor == "accuracy"
    lesson.task.check(lesson.model)


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        ({"classes": 5}, {}, "the teacher knows 5 classes, the student 3; give a teacher of the same"),
        ({"size": 9}, {}, r"the teacher takes images of \(9, 9, 3\), the student of \(8, 8, 3\)"),
        ({}, {"temperature": 0.0}, "distillation needs temperature > 0, weight in 0..1"),
        ({}, {"weight": 1.5}, "not temperature=4, weight=1.5"),
        ({}, {"features": {"features": "c9"}}, "has no layer 'c9' whose features could be matched"),
        ({}, {"features": {"features": "global"}}, "has no layer 'global'"),
    ],
)
def test_bad_input(teacher, options, message):
    with pytest.raises(UserError, match=message):
        distill(network(), network(**teacher), task(), **options)


def test_features_of_other_sizes_are_refused():
    student, teacher = network(), network()
    pooled = next(layer.name for layer in teacher.layers if isinstance(layer, layers.GlobalAveragePooling2D))
    with pytest.raises(UserError, match=r"features of \(6, 6\) cannot match those of \(\); choose layers"):
        distill(student, teacher, task(), features={"features": pooled})
