import keras
import numpy as np
import pytest
from keras import ops
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.ops.losses import divergence
from pipeline.registry import TASKS
from pipeline.training.distill import STUDENT, TEACHER, distill

layers = keras.layers


def network(
    classes: int = 3, *, width: int = 4, size: int = 8, channels: int = 3, dropout: float = 0.0, activation=None
):
    set_seed(width)
    image = keras.Input((size, size, channels), name="image")
    x = layers.Conv2D(width, 3, name="features")(layers.Rescaling(1 / 255)(image))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(classes, activation=activation)(x))


def task(classes: int = 3):
    return TASKS.build("classification", tuple("abcdefgh"[:classes]), None)


def pictures(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 8, 8, 3)).astype("float32")


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
    logits, softmaxed = network(width=8), network(width=8, activation="softmax")
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


def test_metrics_look_at_the_student_and_one_at_the_teacher():
    lesson = distill(network(), network(width=8), task())
    metrics, y = lesson.task.metrics(), np.eye(3, dtype="float32")
    for metric in metrics:
        metric.update_state(y, {STUDENT: y, TEACHER: -y})
    assert {metric.name: float(metric.result()) for metric in metrics} == {"accuracy": 1.0, "teacher_accuracy": 0.0}
    metrics[0].reset_state()
    assert [float(v.numpy()) for v in metrics[0].variables] == [0.0, 0.0]
    assert lesson.task.monitor == "accuracy"
    lesson.task.check(lesson.model)


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        ({"classes": 5}, {}, "the teacher knows 5 classes, the student 3; give a teacher of the same"),
        ({"channels": 1}, {}, r"the teacher takes images of \(8, 8, 1\), the student of \(8, 8, 3\)"),
        ({"activation": "sigmoid"}, {}, "the teacher ends in a sigmoid, .*; give one of logits"),
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


def test_images_are_resized_to_the_teachers_size_inside_the_graph():
    student, teacher = network(), network(width=8, size=12)
    x = pictures()
    found = distill(student, teacher, task()).model(x)[TEACHER]
    np.testing.assert_allclose(found, teacher(ops.image.resize(x, (12, 12))), rtol=1e-5, atol=1e-6)
    assert student.input_shape == (None, 8, 8, 3)


@pytest.mark.parametrize("preprocessing", ["unit", "tf", "torch", "caffe"])
def test_a_teacher_gets_the_pixels_that_it_was_trained_on(preprocessing):
    student, teacher = network(), network(width=8)
    x = pictures()
    by_hand = {
        "unit": x / 255,
        "tf": x / 127.5 - 1,
        "torch": (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "caffe": x[..., ::-1] - [103.939, 116.779, 123.68],
    }[preprocessing].astype("float32")
    found = distill(student, teacher, task(), preprocessing=preprocessing).model(x)[TEACHER]
    np.testing.assert_allclose(found, teacher(by_hand), rtol=1e-4, atol=1e-5)


def test_grey_images_have_no_preprocessing_of_colours():
    with pytest.raises(UserError, match=r"the preprocessing 'caffe' is of colour images; set data\.channels=3"):
        distill(network(channels=1), network(channels=1), task(), preprocessing="caffe")


def test_answers_for_each_pixel_are_resized_to_the_students():
    def masks(size: int, activation: str | None) -> keras.Model:
        image = keras.Input((size, size, 3))
        x = layers.Conv2D(3, 3, strides=size // 8, padding="same", activation=activation)(
            layers.Rescaling(1 / 255)(image)
        )
        return keras.Model(image, x)

    student, teacher, x = masks(8, None), masks(24, "softmax"), pictures()
    larger = keras.Model(teacher.input, ops.repeat(ops.repeat(teacher.output, 2, 1), 2, 2))  # answers of 16×16
    lesson = distill(student, larger, TASKS.build("segmentation", ("a", "b", "c"), None))
    outputs = lesson.model(x)
    assert outputs[TEACHER].shape == (4, 8, 8, 3)
    answers = ops.repeat(ops.repeat(teacher(ops.image.resize(x, (24, 24))), 2, 1), 2, 2)
    found = ops.softmax(outputs[TEACHER])
    np.testing.assert_allclose(found, ops.image.resize(answers, (8, 8)), atol=0.02)
    y = np.zeros((4, 8, 8), "int32")
    assert lesson.task.loss(y, outputs).shape == (4,)
    for metric in lesson.task.metrics():
        metric.update_state(y, outputs)
        assert 0 <= float(metric.result()) <= 1


@pytest.mark.parametrize("end", [lambda x: layers.Softmax()(x), lambda x: ops.softmax(x), layers.Activation("softmax")])
def test_a_softmax_is_found_wherever_it_is_written(end):
    inner = network(width=8)
    ended = keras.Model(inner.input, end(inner.output))
    nested = keras.Sequential([keras.Input((8, 8, 3)), ended])
    x = pictures()
    for teacher in (ended, nested):
        found = distill(network(), teacher, task()).model(x)[TEACHER]
        np.testing.assert_allclose(ops.softmax(found), ops.softmax(inner(x)), rtol=1e-4)
        assert float(ops.min(found)) < -0.1  # logits, not probabilities


def test_each_head_is_taught_by_itself():
    classes = ("a=1", "a=2", "b=1", "b=2", "b=3")
    heads = TASKS.build("multi_output_classification", classes, None)
    student, teacher, x = network(5), network(5, width=8), pictures()
    lesson = distill(student, teacher, heads, temperature=2.0, weight=1.0)
    expected = sum(divergence(teacher(x)[:, part], student(x)[:, part], 2.0) for part in (slice(0, 2), slice(2, 5)))
    np.testing.assert_allclose(lesson.task.loss(None, lesson.model(x)), expected, rtol=1e-4)
