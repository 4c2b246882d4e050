"""What every part of the catalogue must do: train under XLA and bfloat16, be saved, and become a file of builtins."""

import functools
import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import layers as table
from pipeline.export.interpreter import LiteModel
from pipeline.models.layers.catalogue import PARTS, Part

every_part = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
IMAGES = np.random.default_rng(0).normal(size=(4, *table.SHAPE)).astype("float32")


@functools.cache
def model_of(name: str) -> keras.Model:
    return table.example(next(part for part in PARTS if part.name == name))


def gradients(model: keras.Model, images: tf.Tensor) -> list[tf.Tensor]:
    """Train on the sum of squares: the gradients for the images and every weight."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(tf.cast(model(images, training=True), tf.float32) ** 2)
    return tape.gradient(loss, [images, *model.trainable_variables])


def test_the_table_is_whole():
    assert len({part.name for part in PARTS}) == len(PARTS) > 40
    assert [part.name for part in PARTS if part.not_compiled] == ["nearest resizing"]
    custom = [part.name for part in PARTS if not table.is_plain(model_of(part.name))]
    assert custom == ["stochastic", "generalised mean", "shake-shake", "drop-block", "style mixing"]


@pytest.mark.slow
@every_part
def test_a_part_trains_under_xla(part: Part):
    model = model_of(part.name)
    images = tf.constant(IMAGES)
    # The images are an argument: what only constants go into is computed before XLA sees it.
    train = tf.function(functools.partial(gradients, model), jit_compile=True)
    if part.not_compiled:
        with pytest.raises(tf.errors.InvalidArgumentError, match=part.not_compiled.split()[-1]):
            train(images)
        return
    compiled = train(images)
    assert all(np.isfinite(one).all() for one in compiled)
    # XLA draws the same numbers, but the generator has moved on.
    if not any(hasattr(layer, "seed_generator") for layer in model.layers):
        for one, other in zip(compiled, gradients(model, images), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@every_part
def test_a_part_works_in_bfloat16(part: Part):
    model = model_of(part.name)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = table.example(part)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    assert mixed.output.dtype == "bfloat16"
    expected, answers = model(IMAGES).numpy(), tf.cast(mixed(IMAGES), tf.float32).numpy()
    assert np.abs(answers - expected).max() < 0.03 * np.abs(expected).max()
    for gradient in gradients(mixed, tf.constant(IMAGES)):
        assert np.isfinite(tf.cast(gradient, tf.float32)).all()


@every_part
def test_a_part_becomes_a_file_with_the_same_answers(part: Part):
    model = model_of(part.name)
    content = table.to_file(model)  # raises for an operator that is not builtin
    np.testing.assert_allclose(LiteModel(content).predict(IMAGES), model(IMAGES, training=False), rtol=1e-4, atol=1e-5)
    assert table.row(part, model, content) in table.PAGE.read_text(encoding="utf-8").splitlines()


def test_the_committed_table_has_the_parts_in_their_order():
    lines = table.PAGE.read_text(encoding="utf-8").splitlines()
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), lines[lines.index(table.HEAD[0]) :]))
    assert rows[:2] == list(table.HEAD)
    assert [row.split(" | ")[1] for row in rows[2:]] == [part.name for part in PARTS]


def test_saved_parts_load_elsewhere(tmp_path):
    """Load every model in a new process: the plain ones before it knows this package, the others after."""
    np.save(tmp_path / "images.npy", IMAGES)
    for index, part in enumerate(PARTS):
        model = model_of(part.name)
        model.save(tmp_path / f"{'plain' if table.is_plain(model) else 'ours'}-{index}.keras")
    script = """
import pathlib, sys, keras, numpy as np
images, answers = np.load("images.npy"), {}
def load(kind):
    for path in pathlib.Path().glob(f"{kind}-*.keras"):
        model = keras.saving.load_model(path, safe_mode=True)
        answers[path.stem] = model(images, training=False).numpy()
load("plain")
try:
    load("ours")
except TypeError as error:
    assert "Could not locate class" in str(error)
else:
    raise AssertionError("a layer of this package was found without it")
import pipeline.models.layers
load("ours")
np.savez("answers.npz", **answers)
"""
    environment = {"PYTHONPATH": str(table.PAGE.parent.parent), "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    answers = {name.split("-")[1]: value for name, value in np.load(tmp_path / "answers.npz").items()}
    for index, part in enumerate(PARTS):
        expected = model_of(part.name)(IMAGES, training=False)
        np.testing.assert_allclose(answers[str(index)], expected, rtol=1e-5, atol=1e-5, err_msg=part.name)
