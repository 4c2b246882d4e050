"""Classification figures by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from pipeline.ops import classification as ops

# Truth down, prediction across: 10 + 8 + 7 examples.
CONFUSION = np.array([[7, 2, 1], [1, 6, 1], [0, 3, 4]])
TRUTH = np.repeat([0, 0, 0, 1, 1, 1, 2, 2], [7, 2, 1, 1, 6, 1, 3, 4])
PREDICTION = np.repeat([0, 1, 2, 0, 1, 2, 1, 2], [7, 2, 1, 1, 6, 1, 3, 4])


def counts(truth, prediction, classes):
    return np.asarray(ops.count_terms(truth, prediction, classes).sum(axis=0))


def test_confusion_matrix_by_hand():
    assert np.array_equal(ops.confusion_matrix(TRUTH, PREDICTION, 3), CONFUSION)


def test_macro_figures_by_hand():
    sums = counts(TRUTH, PREDICTION, 3)
    precision, recall = np.array([7 / 8, 6 / 11, 4 / 6]), np.array([7 / 10, 6 / 8, 4 / 7])
    assert ops.macro_precision(sums) == pytest.approx(precision.mean())
    assert ops.macro_recall(sums) == pytest.approx(recall.mean())
    assert ops.macro_f1(sums) == pytest.approx((2 * precision * recall / (precision + recall)).mean())


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_macro_figures_equal_scikit_learn(classes):
    # With 30 classes and 40 examples some classes never occur, and some are only predicted.
    rng = np.random.default_rng(classes)
    truth, prediction = rng.integers(0, classes, 40), rng.integers(0, classes, 40)
    sums = counts(truth, prediction, classes)
    options = {"average": "macro", "zero_division": 0}
    assert ops.macro_f1(sums) == pytest.approx(sk.f1_score(truth, prediction, **options))
    assert ops.macro_precision(sums) == pytest.approx(sk.precision_score(truth, prediction, **options))
    # scikit-learn averages over the classes of truth and prediction together, as here.
    assert ops.macro_recall(sums) == pytest.approx(sk.recall_score(truth, prediction, **options))
    theirs = sk.confusion_matrix(truth, prediction, labels=range(classes))
    assert np.array_equal(ops.confusion_matrix(truth, prediction, classes), theirs)


def test_macro_figures_work_on_many_sums_at_once():
    sums = counts(TRUTH, PREDICTION, 3)
    assert ops.macro_f1(np.stack([sums, sums])) == pytest.approx([ops.macro_f1(sums)] * 2)


def test_per_class_table_equals_scikit_learn():
    table = ops.per_class_table(("a", "b", "c"), CONFUSION)
    precision, recall, f1, support = sk.precision_recall_fscore_support(TRUTH, PREDICTION)
    for column, values in {"precision": precision, "recall": recall, "f1": f1, "support": support}.items():
        assert table[column].to_numpy() == pytest.approx(values)
    assert table["predicted"].tolist() == [8, 11, 6]
    assert np.all(table["recall_low"] < table["recall"])
    assert np.all(table["recall"] < table["recall_high"])


def test_per_class_table_leaves_open_what_was_never_seen():
    row = ops.per_class_table(("a", "b"), np.array([[3, 0], [0, 0]])).iloc[1]
    assert row[["precision", "recall", "f1"]].isna().all()


def test_ranks_count_ties_as_argmax_does():
    probabilities = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    assert ops.ranks(np.array([0, 1, 0]), probabilities).tolist() == [0, 1, 2]


def test_top_k_equals_scikit_learn():
    rng = np.random.default_rng(0)
    probabilities, truth = rng.dirichlet(np.ones(12), 200), rng.integers(0, 12, 200)
    ours = np.mean(ops.ranks(truth, probabilities) < 5)
    assert ours == pytest.approx(sk.top_k_accuracy_score(truth, probabilities, k=5, labels=range(12)))


def test_log_loss_equals_scikit_learn_and_survives_a_zero():
    rng = np.random.default_rng(0)
    probabilities, truth = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    ours = ops.negative_log_likelihood(truth, probabilities).mean()
    assert ours == pytest.approx(sk.log_loss(truth, probabilities, labels=range(4)))
    assert ops.negative_log_likelihood(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx([-np.log(1e-7)])


def test_calibration_error_by_hand():
    # Bin (14/15, 1]: two answers at 0.95 and 0.97, one right. Bin (8/15, 9/15]: one answer at 0.55, right.
    confidence, correct = np.array([0.95, 0.97, 0.55]), np.array([True, False, True])
    sums = ops.calibration_terms(confidence, correct).sum(axis=0)
    assert ops.calibration_error(sums) == pytest.approx((abs(1.92 - 1) + abs(0.55 - 1)) / 3)


def test_calibration_bins_end_on_their_upper_edge():
    edge = np.array([1 / 15, 2 / 15 - 1e-9, 1.0, 0.0])
    table = ops.calibration_table(edge, np.ones(4, bool))
    assert table["count"].tolist() == [2, 1, 1]


def test_a_calibrated_answer_has_a_small_error_and_an_overconfident_one_does_not():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1.0, 20_000)
    correct = rng.random(20_000) < confidence
    honest = ops.calibration_error(ops.calibration_terms(confidence, correct).sum(axis=0))
    boastful = ops.calibration_error(ops.calibration_terms(np.ones(20_000), correct).sum(axis=0))
    assert honest < 0.02
    assert boastful == pytest.approx(0.4, abs=0.02)
