"""Segmentation figures by hand and against Keras."""

import keras
import numpy as np
import pytest

from pipeline.ops.segmentation import iou, mean_iou, overlap, per_class_table

TRUTH = np.array([[[0, 0], [1, 255]], [[1, 1], [0, 0]]])
ANSWER = np.array([[[0, 1], [1, 2]], [[1, 1], [0, 1]]])
VALID = TRUTH != 255


def test_overlap_by_hand():
    intersection, union, truth = overlap(np.where(VALID, TRUTH, 0), ANSWER, VALID, 3)
    assert intersection.tolist() == [[1, 1, 0], [1, 2, 0]]
    assert union.tolist() == [[2, 2, 0], [2, 3, 0]]
    assert truth.tolist() == [[2, 1, 0], [2, 2, 0]]


def test_mean_iou_is_over_the_whole_data_set_and_the_classes_that_occur():
    # Class 0: 2 / 4, class 1: 3 / 5, class 2 never occurs. The mean of the images' own values would differ.
    sums = np.array([2, 3, 0, 4, 5, 0])
    assert mean_iou(sums) == pytest.approx((2 / 4 + 3 / 5) / 2)
    assert np.isnan(iou(sums)[2])


def test_mean_iou_of_nothing_is_no_number():
    assert np.isnan(mean_iou(np.zeros(6)))


def test_mean_iou_equals_keras():
    rng = np.random.default_rng(0)
    truth, answer = rng.integers(0, 4, (3, 8, 8)), rng.integers(0, 4, (3, 8, 8))
    intersection, union, _ = overlap(truth, answer, np.ones_like(truth, bool), 4)
    theirs = keras.metrics.MeanIoU(num_classes=4)
    theirs.update_state(truth, answer)
    ours = mean_iou(np.concatenate([intersection.sum(axis=0), union.sum(axis=0)]))
    assert ours == pytest.approx(float(theirs.result()), rel=1e-6)


def test_per_class_table():
    table = per_class_table(("a", "b", "c"), *overlap(np.where(VALID, TRUTH, 0), ANSWER, VALID, 3))
    assert table["iou"].tolist()[:2] == pytest.approx([0.5, 0.6])
    assert np.isnan(table["iou"][2])
    assert table["recall"].tolist()[:2] == pytest.approx([2 / 4, 3 / 3])
    assert table["pixels"].tolist() == [4, 3, 0]
    assert table["images"].tolist() == [2, 2, 0]
    assert table["iou_low"][1] <= 0.6 <= table["iou_high"][1]
