"""Segmentation's own rules: what is ignored, and how IoU adds up."""

import numpy as np
import pytest
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.registry import TASKS

CLASSES = ("sky", "road", "car")
Y = np.array([[[0, 0], [1, 255]], [[1, 1], [0, 0]]], np.int32)
ANSWER = np.array([[[0, 1], [1, 2]], [[1, 1], [0, 1]]])
PREDICTIONS = np.eye(3, dtype=np.float32)[ANSWER] * 0.8 + 0.2 / 3


def build(**options):
    return TASKS.build("segmentation", CLASSES, None, **options)


def test_scores_by_hand():
    task = build()
    scores = task.score(Y, PREDICTIONS)
    assert task.measures["mean_iou"].aggregate(scores) == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert task.measures["pixel_accuracy"].aggregate(scores) == pytest.approx(5 / 7)
    assert scores["valid_pixels"].tolist() == [3, 4]


def test_what_lies_under_ignored_pixels_changes_nothing():
    task = build()
    logits = tf.math.log(PREDICTIONS)
    other = np.array(logits)
    other[0, 1, 1] = [9.0, -9.0, 0.0]
    assert task.loss(Y, logits).numpy() == pytest.approx(task.loss(Y, other).numpy())
    for metric_input in (logits, other):
        metric = task.metrics()[0]
        metric.update_state(Y, metric_input)
        assert float(metric.result()) == pytest.approx(0.55)


def test_an_image_that_is_ignored_whole_has_no_loss_no_gradient_and_no_badness():
    task = build()
    logits = tf.Variable(tf.math.log(PREDICTIONS[:1]))
    with tf.GradientTape() as tape:
        loss = task.loss(np.full((1, 2, 2), 255, np.int32), logits)
    assert loss.numpy() == pytest.approx([0.0])
    assert not np.any(tape.gradient(loss, logits))
    assert task.badness(task.score(np.full((1, 2, 2), 255), PREDICTIONS[:1])).tolist() == [0.0]


def test_a_class_that_is_ignored_is_no_part_of_the_mean():
    task = build(ignore_label=0)
    y = np.array([[[0, 1], [2, 2]]], np.int32)
    answer = np.eye(3, dtype=np.float32)[np.array([[[0, 0], [2, 2]]])]
    metric = task.metrics()[0]
    metric.update_state(y, answer)
    # sky is ignored; road: 0 / 1; car: 2 / 2.
    assert task.measures["mean_iou"].aggregate(task.score(y, answer)) == pytest.approx(0.5)
    assert float(metric.result()) == pytest.approx(0.5)


def test_what_augmentation_and_bars_leave_out_never_counts():
    # The pipeline itself writes 255 into masks, whatever label a person ignores.
    task = build(ignore_label=2)
    scores = task.score(Y, PREDICTIONS)
    assert scores["valid_pixels"].tolist() == [3, 4]
    assert scores["union"][:, 2].tolist() == [0, 0]
    metric = task.metrics()[0]
    metric.update_state(Y, PREDICTIONS)
    assert float(metric.result()) == pytest.approx(task.measures["mean_iou"].aggregate(scores))


@pytest.mark.parametrize("ignored", [None, 1])
def test_what_is_ignored_is_grey_and_the_rest_of_the_truth_is_not(ignored):
    task = build(ignore_label=ignored)
    image = np.zeros((2, 2, 3), np.uint8)
    truth = task.show(image, Y[0], PREDICTIONS[0])[0][:, 3:5]  # behind the picture and a gap of one pixel
    grey = (truth == truth[1, 1]).all(-1)
    assert grey.tolist() == [[False, False], [ignored == 1, True]]


def test_an_unknown_label_is_named():
    with pytest.raises(UserError, match="the label 7, but the 3 classes are 0 to 2; mend the mask"):
        build().score(np.full((1, 2, 2), 7), PREDICTIONS[:1])


def test_dice_mixes_the_two_losses():
    logits = tf.math.log(PREDICTIONS)
    entropy, mixed, dice = (build(dice=share).loss(Y, logits).numpy() for share in (0.0, 0.25, 1.0))
    assert mixed == pytest.approx(0.75 * entropy + 0.25 * dice, rel=1e-5)
    right, wrong = -np.log(0.8 + 0.2 / 3), -np.log(0.2 / 3)
    assert entropy == pytest.approx([(2 * right + wrong) / 3, (3 * right + wrong) / 4], rel=1e-5)


def test_class_weights_reach_the_cross_entropy():
    logits = tf.math.log(PREDICTIONS)
    right, wrong = -np.log(0.8 + 0.2 / 3), -np.log(0.2 / 3)
    found = build(dice=0.0, class_weights={"sky": 3.0}).loss(Y, logits).numpy()
    assert found == pytest.approx([(3 * right + 3 * wrong + right) / 3, (5 * right + 3 * wrong) / 4], rel=1e-5)


def test_an_answer_is_drawn_beside_the_truth_and_ignored_pixels_are_grey():
    task = build()
    image = np.full((2, 2, 3), 255.0)
    picture, caption = task.show(image, Y[0], PREDICTIONS[0])
    assert picture.shape == (2, 8, 3)  # image, truth and answer with gaps of one pixel
    truth, answer = picture[:, 3:5], picture[:, 6:8]
    assert truth[0, 0].tolist() == answer[0, 0].tolist()
    assert truth[1, 1].tolist() == [179, 179, 179]
    assert answer[1, 1].tolist() != truth[1, 1].tolist()
    assert caption == "mean IoU 50%"
