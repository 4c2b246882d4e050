"""The int8 score so far: rounded as the file's kernels are, told beside the float score, and never in the way."""

import keras
import numpy as np
import pandas as pd
import pytest
import tiny
from seeding import set_seed

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation.figures import curves
from pipeline.training.callbacks import write_history
from pipeline.training.int8_kernels import int8_kernels, round_kernel

layers = keras.layers


def every_kind() -> keras.Model:
    """Return a model with each kind of kernel, one of them used twice."""
    set_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2, name="separable")(x)
    shared = layers.DepthwiseConv2D(3, padding="same", name="depthwise")
    x = layers.Conv2DTranspose(5, 2, name="transposed")(shared(shared(x)))
    inner = keras.Sequential([layers.GlobalAveragePooling2D(), layers.BatchNormalization(), layers.Dense(2)])
    return keras.Model(image, inner(x))


def test_each_channel_has_its_own_scale():
    kernel = np.array([[1.0, 100.0], [0.3, -50.0], [-0.004, 0.3]], np.float32)
    rounded = round_kernel(kernel, (1,))
    steps = rounded / np.array([1.0, 100.0]) * 127
    np.testing.assert_allclose(steps, [[127, 127], [38, -64], [-1, 0]], atol=1e-4)
    assert not round_kernel(np.zeros((3, 2), np.float32), (1,)).any()


def test_kernels_are_rounded_and_come_back_bit_by_bit():
    model = every_kind()
    before = tiny.weights(model)
    with int8_kernels(model):
        inside = {variable.path: variable.numpy() for variable in model.variables}
        for variable, value in zip(model.variables, before, strict=True):
            kernel = variable.name.endswith("kernel")
            assert np.array_equal(inside[variable.path], value) != kernel, variable.path
        channels = {"conv": (3,), "depthwise": (2, 3), "transposed": (2,)}
        for name, axes in channels.items():
            kernel = model.get_layer(name).kernel.numpy()
            np.testing.assert_array_equal(kernel, round_kernel(kernel, axes))
            count = np.prod([kernel.shape[axis] for axis in axes])
            flat = np.moveaxis(kernel, axes, range(len(axes))).reshape(count, -1)
            steps = flat / np.abs(flat).max(axis=1, keepdims=True) * 127
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    for old, new in zip(before, tiny.weights(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_kernels_come_back_after_an_error():
    model = every_kind()
    before = tiny.weights(model)
    with pytest.raises(RuntimeError), int8_kernels(model):
        raise RuntimeError
    assert all(map(np.array_equal, before, tiny.weights(model)))


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9}], ids=["plain", "averaged"])
def test_training_is_the_same_bit_by_bit(tmp_path, settings):
    plain = tiny.loop(tmp_path / "plain", **settings)
    asked = tiny.loop(tmp_path / "asked", int8_every=1, **settings)
    rows, with_int8 = plain.run(), asked.run()
    assert all(map(np.array_equal, tiny.weights(plain.model), tiny.weights(asked.model)))
    for row, other in zip(rows, with_int8, strict=True):
        assert 0 <= other.pop("val_int8_accuracy") <= 1
        timed = ("seconds", "images_per_second")
        assert {k: v for k, v in row.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_it_is_scored_every_so_many_epochs_and_written_beside_the_float_score(tmp_path):
    history = tmp_path / "history.csv"
    loop = tiny.loop(tmp_path / "run", epochs=5, int8_every=2, history=history)
    loop.run()
    table = pd.read_csv(history)
    assert table["val_int8_accuracy"].notna().tolist() == [False, True, False, True, False]
    assert list(table.columns)[-1] == "val_int8_accuracy"
    assert table["val_accuracy"].notna().all()
    assert list(curves(table)) == ["loss", "accuracy", "learning_rate"]


def test_the_score_is_that_of_the_rounded_weights(tmp_path):
    loop = tiny.loop(tmp_path, epochs=1, int8_every=1, keep="last")
    [row] = loop.run()
    images, targets = tiny.pictures(seed=1)
    with int8_kernels(loop.model):
        found = loop.model(images[:-10], training=False).numpy()
    right = found.argmax(axis=1) == targets[:-10].argmax(axis=1)
    assert row["val_int8_accuracy"] == pytest.approx(right.mean(), abs=1e-6)


def test_columns_of_later_epochs_are_kept(tmp_path):
    write_history(tmp_path / "history.csv", [{"epoch": 1}, {"epoch": 2, "more": 0.5}])
    assert (tmp_path / "history.csv").read_text() == "epoch,more\n1,\n2,0.5\n"


def test_the_experiment_has_it_off_and_takes_epochs():
    assert Experiment.load("digits").train.int8_every is None
    assert Experiment.load("digits", ["train.int8_every=5"]).train.int8_every == 5
    with pytest.raises(UserError, match=r"train\.int8_every"):
        Experiment.load("digits", ["train.int8_every=0"])
