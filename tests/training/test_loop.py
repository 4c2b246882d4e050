import math
import os
import signal
from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny import IMAGES, loop, pictures, runtime, weights

from pipeline.errors import UserError
from pipeline.registry import TASKS
from pipeline.training.callbacks import write_history


class At(keras.callbacks.Callback):
    """Do something after a given global step."""

    def __init__(self, step: int, action) -> None:
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == self.step:
            self.action()


def test_it_learns(tmp_path):
    rows = loop(tmp_path, epochs=6).run()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows] == [6, 12, 18, 24, 30, 36]
    assert rows[-1]["val_accuracy"] > 0.9
    assert rows[-1]["loss"] < rows[0]["loss"]
    columns = ["epoch", "step", "learning_rate", "seconds", "images_per_second", "loss", "accuracy"]
    assert list(rows[0]) == [*columns, "val_loss", "val_accuracy"]


def test_the_row_reports_what_the_model_does(tmp_path):
    it = loop(tmp_path, keep="last")
    last = it.run()[-1]
    images, targets = pictures(seed=1)
    logits = it.model.predict(images[:-10], verbose=0)  # the last ten are padding
    truth = keras.ops.mean(TASKS.build("classification", ("a", "b", "c"), None).loss(targets[:-10], logits))
    assert last["val_loss"] == pytest.approx(float(truth), rel=1e-4)
    assert last["val_accuracy"] == pytest.approx(np.mean(logits.argmax(1) == targets[:-10].argmax(1)))


def test_it_takes_the_steps_of_keras_fit(tmp_path):
    it = loop(tmp_path, network={"norm": False}, epochs=2, keep="last")
    initial = it.model.get_weights()
    it.run()
    ours = it.model.get_weights()
    it.model.set_weights(initial)
    it.model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
    it.model.fit(it.batches.training(0), epochs=1, shuffle=False, verbose=0)  # all steps in one epoch
    for a, b in zip(ours, it.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 6, 100])
def test_steps_per_call_changes_nothing_and_traces_once(tmp_path, steps, monkeypatch):
    traced = []
    original = keras.Model.__call__
    it = loop(tmp_path, choices=runtime(steps_per_call=steps), keep="last", network={"dropout": 0.2})
    monkeypatch.setattr(keras.Model, "__call__", lambda *a, **k: traced.append(1) or original(*a, **k))
    it.run()
    assert len(traced) <= 4  # autograph may visit a loop's body twice, in training and in validation
    reference = loop(tmp_path / "reference", keep="last", network={"dropout": 0.2})
    reference.run()
    for a, b in zip(weights(it.model), weights(reference.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_equal_seeds_give_equal_bits(tmp_path):
    found = []
    for name in "ab":
        it = loop(tmp_path / name, network={"dropout": 0.3}, choices=runtime(cpu_ops=True))
        it.run()
        found.append(weights(it.model))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    small = loop(tmp_path / "small", size=16, accumulate=2, network={"norm": False}, keep="last")
    large = loop(tmp_path / "large", size=32, network={"norm": False}, keep="last")
    rows = [it.run() for it in (small, large)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == [3, 6, 9]
    np.testing.assert_allclose([r["loss"] for r in rows[0]], [r["loss"] for r in rows[1]], rtol=1e-5)
    for a, b in zip(weights(small.model), weights(large.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_update(tmp_path):
    optimizer = {"momentum": 0.0, "learning_rate": 1.0, "clip_norm": 1e-3}
    it = loop(tmp_path, optimizer=optimizer, epochs=1, keep="last")
    before = [v.numpy() for v in it.model.trainable_variables]
    it.run()
    moved = math.sqrt(
        sum(np.sum((v.numpy() - b) ** 2) for v, b in zip(it.model.trainable_variables, before, strict=True))
    )
    assert 1e-4 < moved <= 6 * 1e-3 * 1.001  # six steps


def test_regularisation_is_part_of_the_loss(tmp_path):
    it = loop(tmp_path, optimizer={"learning_rate": 1e-9}, epochs=1)
    plain = it.run()[0]["loss"]
    it = loop(tmp_path / "l2", optimizer={"learning_rate": 1e-9}, epochs=1)
    it.model.layers[-1].kernel_regularizer = keras.regularizers.L2(0.5)
    penalty = 0.5 * float(np.sum(it.model.layers[-1].kernel.numpy() ** 2))
    it.model.layers[-1].kernel.regularizer = it.model.layers[-1].kernel_regularizer
    assert it.run()[0]["loss"] == pytest.approx(plain + penalty, rel=1e-4)


def test_patience_stops_after_epochs_without_improvement(tmp_path):
    rows = loop(
        tmp_path, optimizer={"learning_rate": 1e-12, "momentum": 0.0}, network={"norm": False}, epochs=9, patience=2
    ).run()
    assert len(rows) == 3


def test_the_best_epoch_is_kept_and_ties_go_to_the_lower_loss(tmp_path):
    it = loop(tmp_path, epochs=6)
    rows = it.run()
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    images, targets = pictures(seed=1)
    logits = it.model.predict(images[:-10], verbose=0)
    assert np.mean(logits.argmax(1) == targets[:-10].argmax(1)) == pytest.approx(best["val_accuracy"])
    loss = keras.ops.mean(keras.losses.categorical_crossentropy(targets[:-10], logits, from_logits=True))
    assert float(loss) == pytest.approx(best["val_loss"], rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    it = loop(tmp_path, network={"norm": False}, choices=runtime(steps_per_call=3))
    poison = At(9, lambda: it.model.layers[-1].kernel.assign(it.model.layers[-1].kernel * math.nan))
    it.settings = type(it.settings)(epochs=3, callbacks=(poison,))
    with pytest.raises(UserError, match=r"not finite in epoch 2, step 4: try a lower .*learning_rate.*float32"):
        it.run()
    again = loop(tmp_path, network={"norm": False})
    assert len(again.run()) == 3
    assert all(np.isfinite(value).all() for value in weights(again.model))


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_continue(tmp_path):
    reference = loop(tmp_path / "reference", network={"dropout": 0.2}, ema=0.9)
    reference.run()
    for signum, step in ((signal.SIGINT, 10), (signal.SIGTERM, 12), (signal.SIGINT, 16)):
        press = At(step, lambda signum=signum: os.kill(os.getpid(), signum))
        it = loop(tmp_path / "run", network={"dropout": 0.2}, ema=0.9, callbacks=(press,))
        epoch, inside = divmod(step - 1, 6)
        with pytest.raises(UserError, match=f"stopped at epoch {epoch + 1}, step {inside + 1}; continue with the same"):
            it.run()
    resumed = loop(tmp_path / "run", network={"dropout": 0.2}, ema=0.9)
    rows = resumed.run()
    for a, b in zip(weights(resumed.model), weights(reference.model), strict=True):
        np.testing.assert_array_equal(a, b)
    exact = ("epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy")
    for row, other in zip(rows, reference.progress.rows, strict=True):
        assert {key: row[key] for key in exact} == {key: other[key] for key in exact}


def test_a_callback_may_stop_the_run(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert logs["val_loss"] > 0
            self.model.stop_training = epoch == 1

    assert len(loop(tmp_path, epochs=5, callbacks=(Stop(),)).run()) == 2


def test_average_of_the_weights_by_hand(tmp_path):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.layers[-1].bias.numpy())

    it = loop(tmp_path, choices=runtime(steps_per_call=1), ema=0.5, keep="last", callbacks=(Watch(),))
    average = it.model.layers[-1].bias.numpy()
    it.run()
    for step, value in enumerate(seen):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    np.testing.assert_allclose(it.model.layers[-1].bias.numpy(), average, rtol=1e-5)
    assert not np.allclose(seen[-1], average, rtol=1e-3)


def test_the_averaged_weights_are_what_is_validated(tmp_path):
    it = loop(tmp_path, ema=0.9, keep="last")
    row = it.run()[-1]
    images, targets = pictures(seed=1)
    logits = it.model.predict(images[:-10], verbose=0)
    loss = keras.ops.mean(keras.losses.categorical_crossentropy(targets[:-10], logits, from_logits=True))
    assert float(loss) == pytest.approx(row["val_loss"], rel=1e-4)


def test_values_leave_the_device_once_per_call(tmp_path):
    calls = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            calls.append((batch, logs["loss"]))

    loop(tmp_path, choices=runtime(steps_per_call=4), epochs=2, callbacks=(Count(),)).run()
    assert [batch for batch, _ in calls] == [3, 5, 9, 11]


def test_history_is_rewritten_whole(tmp_path):
    path = tmp_path / "history.csv"
    for _ in range(2):  # the second call finds a finished run
        rows = loop(tmp_path, history=path).run()
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(rows[0])
    assert len(lines) == 1 + 3
    assert [float(v) for v in lines[2].split(",")] == pytest.approx(list(rows[1].values()))
    write_history(tmp_path / "none.csv", [])
    assert not (tmp_path / "none.csv").exists()


def test_counts_of_images_are_those_of_the_input(tmp_path):
    row = loop(tmp_path, epochs=1).run()[0]
    assert row["images_per_second"] * row["seconds"] == pytest.approx(IMAGES)


@pytest.mark.parametrize(("sharpness", "accumulate"), [(None, 1), (0.05, 1), (None, 2)])
def test_examples_count_by_their_weight(tmp_path, sharpness, accumulate):
    """Every other example at weight 2 and the rest at 0 is the training on every other example."""
    plain = {"network": {"norm": False}, "keep": "last", "sharpness": sharpness, "accumulate": accumulate}
    weighted, fewer = (loop(tmp_path / name, **plain) for name in ("weighted", "fewer"))
    inputs = weighted.batches.training
    weight = np.tile(np.array([2, 0], np.float32), 8 * accumulate)
    weighted.batches = replace(weighted.batches, training=lambda step: inputs(step).map(lambda x, y: (x, y, weight)))
    fewer.batches = replace(fewer.batches, training=lambda step: inputs(step).map(lambda x, y: (x[::2], y[::2])))
    losses = [[row["loss"] for row in it.run()] for it in (weighted, fewer)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for a, b in zip(weights(weighted.model), weights(fewer.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
