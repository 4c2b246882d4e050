"""Scoring: padding is dropped, order is kept, and only the worst mistakes stay in memory."""

import keras
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.evaluation.scoring import keras_predictor, score
from pipeline.registry import TASKS

CLASSES = ("cat", "dog", "owl")


class FakeSplit:
    """A prepared split whose images say which class the model answers, and how surely."""

    def __init__(self, truth, answer, sureness):
        self.count = len(truth)
        self.image = np.zeros((self.count, 2, 2, 1), np.float32)
        self.image[:, 0, 0, 0], self.image[:, 0, 1, 0] = answer, sureness
        self.label = np.asarray(truth, np.int32)

    def evaluation(self, batch_size, encode):
        for start in range(0, self.count, batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), self.count - 1)
            yield {
                "image": self.image[rows],
                "y": encode({"label": self.label[rows]}),
                "weight": (np.arange(start, start + batch_size) < self.count).astype(np.float32),
                "id": np.array([f"image {row}".encode() for row in rows]),
            }


def predict(images):
    answer, sureness = images[:, 0, 0, 0].astype(int), images[:, 0, 1, :1]
    return np.eye(3)[answer] * sureness + (1 - sureness) / 3


@pytest.fixture
def task():
    return TASKS.build("classification", CLASSES, None)


@pytest.fixture
def split():
    return FakeSplit(truth=[0, 1, 2, 0, 1], answer=[0, 2, 2, 1, 0], sureness=[0.9, 0.5, 0.7, 0.8, 0.6])


def test_every_example_is_scored_once_in_order_whatever_the_batch(task, split):
    for batch_size in (1, 2, 5, 8):
        scored = score(predict, split, task, batch_size)
        assert scored.ids == tuple(f"image {i}" for i in range(5))
        assert scored.scores["correct"].tolist() == [True, False, True, False, False]
        assert [mistake.id for mistake in scored.worst] == ["image 3", "image 4", "image 1"]


def test_only_the_worst_are_kept_with_their_own_images(task, split):
    scored = score(predict, split, task, 2, worst=2)
    assert [mistake.id for mistake in scored.worst] == ["image 3", "image 4"]
    worst = scored.worst[0]
    assert worst.image[0, 1, 0] == pytest.approx(0.8)
    assert worst.image.base is None  # not a view that holds the batch
    assert np.argmax(worst.y) == 0
    assert np.argmax(worst.prediction) == 1


def test_intervals_hold_every_measure(task, split):
    found = score(predict, split, task, 4).intervals(task)
    assert list(found) == list(task.measures)
    assert found["accuracy"].value == pytest.approx(0.4)
    assert found["accuracy"].n == 5
    for figure in found.values():
        assert figure.low <= figure.value <= figure.high


def test_nothing_to_score_is_said(task):
    with pytest.raises(UserError, match="no image to score"):
        score(predict, FakeSplit([], [], []), task, 2)


def test_masks_that_are_ignored_everywhere_are_said():
    task = TASKS.build("segmentation", CLASSES, None)

    class Ignored:
        def evaluation(self, batch_size, encode):
            mask = np.full((1, 2, 2), 255, np.int32)
            yield {"image": np.zeros((1, 2, 2, 1)), "y": mask, "weight": np.ones(1), "id": np.array([b"a"])}

    scored = score(lambda images: np.full((1, 2, 2, 3), 1 / 3), Ignored(), task, 1)
    with pytest.raises(UserError, match="mean_iou cannot be computed"):
        scored.intervals(task)


def test_a_keras_model_predicts_what_it_decodes(task):
    image = keras.Input((2, 2, 1))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    images = np.random.default_rng(0).random((4, 2, 2, 1)).astype(np.float32)
    expected = keras.ops.softmax(model(images))
    assert keras_predictor(model, task)(images) == pytest.approx(np.asarray(expected), abs=1e-6)
