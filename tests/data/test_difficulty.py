"""Easy images first: which images a step draws from, and in how many steps all of them."""

import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import Experiment
from pipeline.data.batches import Order, Pacing
from pipeline.errors import UserError
from pipeline.training.setup import build_batches, open_task, prepare_splits

PACING = Pacing(tf.constant([3, 1, 0, 2, 5, 4, 7, 6, 9, 8], tf.int64), start=2, steps=8)


def test_the_reach_grows_in_equal_steps():
    assert [int(PACING.reach(tf.constant(step, tf.int64))) for step in range(10)] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 10]


def test_batches_hold_only_what_is_in_reach_and_then_everything():
    order, plain = (Order(3, 7, 0, 100, 3, pacing) for pacing in (PACING, None))
    for step in range(12):
        positions = step * 3 + tf.range(3, dtype=tf.int64)
        drawn = order.index(positions, 10).numpy().tolist()
        alone = [int(order.index(position, 10)) for position in positions]
        assert drawn == alone, "a reader by index and one in memory differ"
        reach = int(PACING.reach(tf.constant(step, tf.int64)))
        assert set(drawn) <= set(PACING.ranking.numpy()[:reach].tolist())
        assert len(set(drawn)) == min(3, reach)
        if reach == 10:
            assert drawn == plain.index(positions, 10).numpy().tolist()


def scored(folder, losses) -> str:
    ids = [f"digit {index}" for index in range(898)]
    np.savez(folder / "scores.npz", id=np.array(ids), log_loss=losses)
    return str(folder / "scores.npz")


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }"]
)
def test_what_holds_no_scores_is_refused(tmp_path, content):
    (tmp_path / "scores.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"scores\.npz holds no log loss"):
        first_images(Experiment.load("digits", [f"train.curriculum.easy_first.scores={tmp_path / 'scores.npz'}"]), 0)


def first_images(experiment: Experiment, step: int) -> np.ndarray:
    source, task = open_task(experiment)
    batches = build_batches(experiment, task, prepare_splits(experiment, source, task))
    return next(iter(batches.training(step)))[0].numpy()


@pytest.mark.parametrize("cache", [1024, 0])
def test_a_training_begins_with_the_easiest_digits(tmp_path, cache):
    easy = f"train.curriculum.easy_first={{scores: {scored(tmp_path, np.arange(898) // 32)}, start: 0.04}}"
    plain = [f"data.cache_mb={cache}", "data.augment=[]", "data.image_size=[8, 8]", "data.batch_size=8"]
    experiment = Experiment.load("digits", [easy, *plain])
    source, task = open_task(experiment)
    train = prepare_splits(experiment, source, task)["train"]
    whole = next(iter(train.evaluation(train.count, lambda batch: ())))
    number = {
        image.tobytes(): int(name.decode().split()[1])
        for image, name in zip(whole["image"].numpy(), whole["id"].numpy(), strict=True)
    }
    seen = [number[image.tobytes()] for image in first_images(experiment, 0)]
    assert len(set(seen)) == 8
    assert max(seen) < 64  # 32 of 808, of 898 of which a tenth is for validation
    later = first_images(experiment, 3000)
    np.testing.assert_array_equal(later, first_images(experiment.replace(["train.curriculum=null"]), 3000))


def test_scores_that_do_not_fit_are_one_sentence(tmp_path):
    def load(path) -> None:
        experiment = Experiment.load("digits", [f"train.curriculum.easy_first.scores={path}"])
        source, task = open_task(experiment)
        build_batches(experiment, task, prepare_splits(experiment, source, task))

    with pytest.raises(UserError, match=r"nowhere.npz does not exist; write it with: pipeline eval RUN --split train"):
        load("nowhere.npz")
    np.savez(tmp_path / "other.npz", id=["digit 0"], log_loss=[0.5])
    with pytest.raises(UserError, match=r"does not know the training image 'digit \d+'; score a run on these"):
        load(tmp_path / "other.npz")
    np.savez(tmp_path / "masks.npz", id=["digit 0"], union=[0.5])
    with pytest.raises(UserError, match="holds no log loss of each image"):
        load(tmp_path / "masks.npz")
