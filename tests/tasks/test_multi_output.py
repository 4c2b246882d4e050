"""Several labels per image: every figure by hand, and as a classification of each head alone has it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.evaluation.statistics import interval
from pipeline.registry import TASKS

CLASSES = ("colour=red", "colour=blue", "shape=disc", "shape=bar", "shape=star")
LABELS = tf.constant([[0, 2], [1, 0], [0, 1], [1, 1]], tf.int32)


def build(**options):
    return TASKS.build("multi_output_classification", CLASSES, None, **options)


def logits() -> np.ndarray:
    """Return outputs that are right about colours 1, 2, 3 and about shapes 1, 3, 4: both for images 1 and 3."""
    return np.array(
        [[2, 0, 0, 0, 3], [0, 1, 0, 2, 0], [1, 0, 0, 1, 0], [3, 0, 0, 4, 1]],
        np.float32,
    )


@pytest.fixture
def y():
    return build().encode({"labels": LABELS})


def test_targets_stand_side_by_side(y):
    assert y.numpy().tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 1, 0]]
    dataset = tf.data.Dataset.from_tensors({"labels": LABELS}).map(build().encode)
    assert dataset.element_spec.shape == (4, 5)


def test_the_loss_is_the_weighted_sum_of_the_heads_own(y):
    alone = [TASKS.build("classification", names, None) for names in (CLASSES[:2], CLASSES[2:])]
    colour, shape = alone[0].loss(y[:, :2], logits()[:, :2]), alone[1].loss(y[:, 2:], logits()[:, 2:])
    np.testing.assert_allclose(build().loss(y, logits()), colour + shape, rtol=1e-6)
    weighted = build(loss_weights={"colour": 0.25, "shape": 2.0})
    np.testing.assert_allclose(weighted.loss(y, logits()), 0.25 * colour + 2 * shape, rtol=1e-6)
    np.testing.assert_allclose(build(loss_weights={"colour": 0.0}).loss(y, logits()), shape, rtol=1e-6)


def test_gradients_are_finite_and_equal_under_xla(y):
    def step(y, outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = build(label_smoothing=0.1).loss(y, outputs)
        return tape.gradient(loss, outputs)

    outputs = tf.constant(logits())
    plain, compiled = step(y, outputs), tf.function(step, jit_compile=True)(y, outputs)
    assert np.all(np.isfinite(plain))
    np.testing.assert_allclose(compiled, plain, atol=1e-5)


def test_every_head_is_a_distribution(y):
    found = build().decode(tf.cast(logits(), tf.bfloat16))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(found[:, :2], -1), 1, rtol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(found[:, 2:], -1), 1, rtol=1e-5)


def test_measures_of_each_head_and_of_all_with_intervals(y):
    task = build()
    scores = task.score(y.numpy(), task.decode(logits()).numpy())
    assert next(iter(task.measures)) == task.monitor == "exact_match"
    figures = {name: measure.aggregate(scores) for name, measure in task.measures.items()}
    assert (figures["exact_match"], figures["colour_accuracy"], figures["shape_accuracy"]) == (0.5, 0.75, 0.75)
    alone = TASKS.build("classification", CLASSES[2:], None)
    own = alone.score(y.numpy()[:, 2:], task.decode(logits()).numpy()[:, 2:])
    for name, measure in alone.measures.items():
        assert figures[f"shape_{name}"] == pytest.approx(measure.aggregate(own))
    found = interval(task.measures["colour_accuracy"], scores)
    assert found.n == 4
    assert found.low < 0.75 < found.high


def test_metrics_are_the_measures_without_padding(y):
    task = build()
    scores = task.score(y.numpy()[:3], task.decode(logits()).numpy()[:3])
    metrics = task.metrics()
    assert [metric.name for metric in metrics] == ["exact_match", "colour_accuracy", "shape_accuracy"]
    for metric in metrics:
        metric.update_state(y, logits(), sample_weight=np.array([1, 1, 1, 0], np.float32))
        assert float(metric.result()) == pytest.approx(task.measures[metric.name].aggregate(scores))


def test_rows_tables_and_pictures(y):
    task = build()
    predictions = task.decode(logits()).numpy()
    scores = task.score(y.numpy(), predictions)
    rows = task.rows(scores)
    assert rows.loc[1, ["colour_truth", "colour_prediction"]].tolist() == ["colour=blue", "colour=blue"]
    assert rows.loc[1, ["shape_truth", "shape_prediction"]].tolist() == ["shape=disc", "shape=bar"]
    tables = task.tables(scores)
    assert tables["per_class"]["class"].tolist() == list(CLASSES)
    assert tables["confusion_shape"].to_numpy().tolist() == [[0, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert (task.badness(scores) > 0).tolist() == [False, True, False, True]
    picture, caption = task.show(np.zeros((4, 4, 1), np.float32), y.numpy()[1], predictions[1])
    assert picture.shape == (4, 4, 3)
    assert caption.startswith("colour=blue (73%) → colour=blue (73%); shape=disc (11%) → shape=bar (79%)")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"color": 2.0}, "names the head 'color', which the data does not have; did you mean 'colour'"),
        ({"colour": 0.0, "shape": 0.0}, "gives every head the weight 0; at least one head must count"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        build(loss_weights=weights)


def test_one_label_per_image_is_another_task():
    with pytest.raises(UserError, match=r"give data\.source\.label_column of a table the list .* or choose the task"):
        TASKS.build("multi_output_classification", ("cat", "dog"), None)


def test_a_model_of_another_shape_is_refused():
    image = keras.Input((8, 8, 3))
    with pytest.raises(UserError, match=r"needs \(batch, 5\) outputs, .*; choose a classifier"):
        build().check(keras.Model(image, keras.layers.Dense(5)(image)))
    build().check(keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(image))))
