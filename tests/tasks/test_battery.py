"""Every task keeps the protocol: encode, a differentiable loss (also under XLA), decode, score, tables, pictures."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.registry import TASKS

CLASSES, BATCH, SIZE = ("cat", "dog", "owl", "fox", "eel", "asp", "bee"), 4, 8
FIELDS = {
    "label": tf.constant([0, 3, 6, 3], tf.int32),
    "mask": tf.constant(np.random.default_rng(0).integers(0, 7, (BATCH, SIZE, SIZE)), tf.int32),
}
OUTPUTS = {"label": (BATCH, 7), "mask": (BATCH, SIZE, SIZE, 7)}


# Several labels per image are several answers: tests/tasks/test_multi_output.py.
ONE_ANSWER = ["classification", "segmentation"]


def test_no_task_is_left_out():
    assert TASKS.names() == sorted([*ONE_ANSWER, "multi_output_classification"])


@pytest.fixture(params=ONE_ANSWER)
def task(request):
    return TASKS.build(request.param, CLASSES, [2, 1, 1, 1, 1, 1, 1])


@pytest.fixture
def y(task):
    return task.encode({name: FIELDS[name] for name in task.fields})


@pytest.fixture
def outputs(task):
    return tf.constant(np.random.default_rng(1).normal(size=OUTPUTS[task.fields[0]]), tf.float32)


def test_encode_works_inside_tf_data_with_static_shapes(task, y):
    dataset = tf.data.Dataset.from_tensors({name: FIELDS[name] for name in task.fields}).map(task.encode)
    assert dataset.element_spec.shape.is_fully_defined()
    assert np.array_equal(next(iter(dataset)), y)


def test_the_loss_is_finite_differentiable_and_equal_under_xla(task, y, outputs):
    def step(y, outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = task.loss(y, outputs)
        return loss, tape.gradient(loss, outputs)

    loss, gradient = step(y, outputs)
    assert loss.shape == (BATCH,)
    assert loss.dtype == tf.float32
    assert np.all(np.isfinite(loss))
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient)
    for compiled in (tf.function(step), tf.function(step, jit_compile=True)):
        same_loss, same_gradient = compiled(y, outputs)
        assert same_loss.numpy() == pytest.approx(loss.numpy(), rel=1e-5)
        assert same_gradient.numpy() == pytest.approx(gradient.numpy(), abs=1e-5)


def test_the_loss_of_half_precision_outputs_is_float32(task, y, outputs):
    assert task.loss(y, tf.cast(outputs, tf.bfloat16)).dtype == tf.float32


def test_each_example_has_its_own_loss(task, y, outputs):
    alone = [task.loss(y[i : i + 1], outputs[i : i + 1]).numpy()[0] for i in range(BATCH)]
    assert task.loss(y, outputs).numpy() == pytest.approx(alone, rel=1e-5)


def test_a_better_answer_has_a_smaller_loss(task, y, outputs):
    labels = y if len(y.shape) > 2 else tf.argmax(y, axis=-1)
    right = 10.0 * tf.one_hot(labels, len(CLASSES))
    assert np.all(task.loss(y, right).numpy() < task.loss(y, outputs).numpy())


def test_decoded_answers_sum_to_one(task, outputs):
    decoded = task.decode(tf.cast(outputs, tf.bfloat16))
    assert decoded.dtype == tf.float32
    assert np.sum(decoded, axis=-1) == pytest.approx(np.ones(decoded.shape[:-1]), rel=1e-5)


def test_metrics_agree_with_measures_and_take_weights(task, y, outputs):
    weight = np.array([1, 1, 1, 0], np.float32)  # the last row is padding
    metrics = {metric.name: metric for metric in task.metrics()}
    assert task.monitor in metrics
    scores = task.score(y.numpy()[:3], task.decode(outputs).numpy()[:3])
    for name, metric in metrics.items():
        metric.update_state(y, outputs, sample_weight=weight)
        assert float(metric.result()) == pytest.approx(task.measures[name].aggregate(scores), rel=1e-5)
        metric.reset_state()
        tf.function(metric.update_state)(y, outputs)


def test_scores_rows_and_tables_are_consistent(task, y, outputs):
    scores = task.score(y.numpy(), task.decode(outputs).numpy())
    assert {len(values) for values in scores.values()} == {BATCH}
    assert len(task.rows(scores)) == BATCH
    assert task.badness(scores).shape == (BATCH,)
    tables = task.tables(scores)
    assert tables["per_class"]["class"].tolist() == list(CLASSES)
    assert all(isinstance(table, pd.DataFrame) for table in tables.values())
    assert next(iter(task.measures)) == task.monitor
    for measure in task.measures.values():
        assert np.isfinite(measure.aggregate(scores))
        if measure.proportion is not None:
            assert scores[measure.proportion].dtype == bool
            assert measure.aggregate(scores) == pytest.approx(scores[measure.proportion].mean())


def test_scoring_in_parts_equals_scoring_at_once(task, y, outputs):
    decoded = task.decode(outputs).numpy()
    whole = task.score(y.numpy(), decoded)
    parts = [task.score(y.numpy()[part], decoded[part]) for part in (slice(0, 3), slice(3, 4))]
    for name, values in whole.items():
        assert np.array_equal(values, np.concatenate([part[name] for part in parts]))


def test_a_perfect_answer_is_perfect_and_no_mistake(task, y):
    labels = y if len(y.shape) > 2 else tf.argmax(y, axis=-1)
    scores = task.score(y.numpy(), tf.one_hot(labels, len(CLASSES)).numpy())
    assert task.measures[task.monitor].aggregate(scores) == 1.0
    assert np.all(task.badness(scores) <= 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_answer_is_drawn_as_an_rgb_picture(task, y, outputs, channels):
    image = np.full((SIZE, SIZE, channels), 127.6, np.float32)
    picture, caption = task.show(image, y.numpy()[0], task.decode(outputs).numpy()[0])
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture[0, 0].tolist() == [128, 128, 128]
    assert caption


def test_a_model_of_another_shape_is_refused(task):
    image = keras.Input((SIZE, SIZE, 3))
    with pytest.raises(UserError, match=r"the task .* needs .*; choose a"):
        task.check(keras.Model(image, keras.layers.Dense(3)(image)))
    right = {
        "label": lambda x: keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(x)),
        "mask": lambda x: keras.layers.Conv2D(7, 1)(x),
    }
    task.check(keras.Model(image, right[task.fields[0]](image)))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"dgo": 2.0}, "'dgo', which the data does not have; did you mean 'dog'"),
        ({"zebra": 2.0}, "known: cat, dog, owl"),
        ({"dog": -1.0}, "gives 'dog' the weight -1.0; a weight is a number from 0 up"),
        (dict.fromkeys(CLASSES, 0.0), "gives every class the weight 0"),
    ],
)
@pytest.mark.parametrize("name", ONE_ANSWER)
def test_wrong_class_weights_are_refused(name, weights, message):
    with pytest.raises(UserError, match=message):
        TASKS.build(name, CLASSES, None, class_weights=weights)
