"""Classification's own rules."""

import json

import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.registry import TASKS

CLASSES = ("cat", "dog", "owl")
Y = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
PREDICTIONS = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]], np.float32)


def build(**options):
    return TASKS.build("classification", CLASSES, [10, 20, 30], **options)


def test_soft_labels_stay_and_count_as_their_largest():
    task = build()
    soft = tf.constant([[0.6, 0.4, 0.0]])
    assert task.encode({"label": soft}) is not None
    assert np.array_equal(task.encode({"label": soft}), soft)
    accuracy = task.metrics()[0]
    accuracy.update_state(soft, tf.constant([[2.0, 1.0, 0.0]]))
    assert float(accuracy.result()) == 1.0


def test_balanced_weights_are_n_over_k_times_n_of_the_class():
    assert build(class_weights="balanced").weights == pytest.approx((60 / 30, 60 / 60, 60 / 90))
    assert TASKS.build("classification", CLASSES, [0, 1, 1], class_weights="balanced").weights[0] == 0.0


def test_balanced_weights_need_counts():
    with pytest.raises(UserError, match="balanced needs the number of training images of each class"):
        TASKS.build("classification", CLASSES, None, class_weights="balanced")


def test_named_weights_leave_the_others_at_one():
    assert build(class_weights={"dog": 3.0}).weights == (1.0, 3.0, 1.0)


def test_options_reach_the_loss():
    logits = tf.math.log(PREDICTIONS)
    plain = build().loss(Y, logits).numpy()
    assert plain == pytest.approx(-np.log([0.7, 0.3, 0.6, 0.4]), rel=1e-5)
    assert build(focal_gamma=2.0).loss(Y, logits).numpy() == pytest.approx(
        plain * np.array([0.3, 0.7, 0.4, 0.6]) ** 2, rel=1e-4
    )
    assert build(class_weights={"dog": 3.0}).loss(Y, logits).numpy() == pytest.approx(plain * [1, 3, 1, 3], rel=1e-5)
    smoothed = 0.7 * plain - 0.1 * np.log(PREDICTIONS).sum(axis=1)
    assert build(label_smoothing=0.3).loss(Y, logits).numpy() == pytest.approx(smoothed, rel=1e-5)


def test_scores_by_hand():
    scores = build().score(Y, PREDICTIONS)
    assert scores["truth"].tolist() == [0, 1, 2, 1]
    assert scores["prediction"].tolist() == [0, 0, 2, 0]
    assert scores["correct"].tolist() == [True, False, True, False]
    assert build().measures["accuracy"].aggregate(scores) == 0.5
    assert build().measures["log_loss"].aggregate(scores) == pytest.approx(-np.log([0.7, 0.3, 0.6, 0.4]).mean())


def test_badness_is_the_wrong_answers_lead_and_agrees_with_correct():
    task = build()
    badness = task.badness(task.score(Y, PREDICTIONS))
    assert badness[:3] == pytest.approx([-0.5, 0.2, -0.4])
    assert 0 < badness[3] < 1e-6  # a tie that class order decided against the truth is a mistake


def test_top5_is_measured_only_where_it_means_something():
    assert "top5" not in build().measures
    assert len(build().metrics()) == 1
    six = TASKS.build("classification", tuple("abcdef"), None)
    scores = six.score(np.eye(6)[[0, 5]], np.array([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.5, 0.2, 0.1, 0.1, 0.06, 0.04]]))
    assert scores["top5"].tolist() == [True, False]
    assert [metric.name for metric in six.metrics()] == ["accuracy", "top5"]


def test_tables_and_rows():
    task = build()
    scores = task.score(Y, PREDICTIONS)
    confusion = task.tables(scores)["confusion"]
    assert confusion.loc["dog", "cat"] == 2
    assert confusion.to_numpy().tolist() == [[1, 0, 0], [2, 0, 0], [0, 0, 1]]
    rows = task.rows(scores)
    assert rows["truth"].tolist() == ["cat", "dog", "owl", "dog"]
    assert rows["prediction"].tolist() == ["cat", "cat", "owl", "cat"]
    assert json.loads(rows["probabilities"][0]) == pytest.approx([0.7, 0.2, 0.1])


def test_the_caption_names_truth_and_answer():
    _, caption = build().show(np.zeros((2, 2, 1)), Y[1], PREDICTIONS[1])
    assert caption == "dog (30%) → cat (50%)"
