"""What every family of models must do, shown by its smallest member."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from representatives import NAMES, build, every_family

from pipeline.models.stages import stages
from pipeline.models.transfer import groups

CLASSES = 5
SHAPE = (32, 32, 3)
WITHOUT_STAGES = {"lenet5", "simple_cnn"}

model_of = functools.cache(build)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (4, *SHAPE)).astype("float32")


def test_the_table_is_whole():
    assert len(NAMES) >= 33  # a new family is tested without an edit
    assert set(NAMES) > WITHOUT_STAGES


@every_family
def test_raw_pixels_in_and_float32_logits_out(name, images):
    model = model_of(name)
    first, second = model.layers[:2]
    assert isinstance(first, keras.layers.InputLayer)
    assert isinstance(second, keras.layers.Rescaling)
    np.testing.assert_allclose(second(np.array([0.0, 127.5, 255.0])), [-1, 0, 1], atol=1e-6)
    assert model.input.name == "image"
    assert model.input.dtype == "float32"
    assert model.layers[-1].name == "logits"
    assert model.output.shape == ((None, 32, 32, CLASSES) if name == "unet" else (None, CLASSES))
    logits = model(images)
    assert logits.shape[1:] == model.output.shape[1:]
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    assert logits.numpy().min() < 0 < logits.numpy().max()


@every_family
def test_a_plain_call_is_inference(name, images):
    model = model_of(name)
    before = [weight.numpy() for weight in model.non_trainable_weights]
    np.testing.assert_array_equal(model(images), model(images, training=False))
    for weight, value in zip(model.non_trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, weight.path)


@every_family
def test_every_layer_has_its_turn_in_a_transfer(name):
    model = model_of(name)
    found = groups(model)
    turns = [layer.name for group in found for layer in group.layers]
    assert sorted(turns) == sorted(layer.name for layer in model.layers if layer.weights)
    assert [layer.name for layer in found[0].layers] == ["logits"]
    assert len(found) > len(stages(model)) or name.startswith(("vit", "cct"))


@every_family
def test_stages_have_the_size_of_their_level(name):
    levels = stages(model_of(name))
    assert list(levels) == list(range(min(levels), max(levels) + 1)) if levels else name in WITHOUT_STAGES
    for level, tensor in levels.items():
        assert tensor.shape[1:3] == (32 // 2**level, 32 // 2**level)


@every_family
def test_every_trainable_weight_gets_a_gradient(name, images):
    model = model_of(name)
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(tf.nn.log_softmax(logits)[..., 0])
    gradients = tape.gradient(loss, model.trainable_variables)
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        assert gradient.shape == weight.shape
        assert np.isfinite(gradient).all(), weight.path
        assert np.any(gradient), weight.path


@every_family
def test_convolutions_before_a_norm_have_no_bias(name):
    for layer in model_of(name).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            before = layer.input._keras_history.operation
            assert not getattr(before, "use_bias", False), layer.name


@every_family
def test_mixed_precision_keeps_float32_logits(name, images):
    model = model_of(name)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build(name)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    assert mixed.output.dtype == "float32"
    assert "bfloat16" in {layer.compute_dtype for layer in mixed.layers}
    expected, actual = model(images).numpy(), mixed(images).numpy()
    assert np.abs(actual - expected).max() < 0.1 * np.abs(expected).max()


@pytest.fixture(scope="module")
def reloaded(images, tmp_path_factory) -> dict[str, np.ndarray]:
    """Load every saved model in a process that knows nothing of this package, and return its answers."""
    folder = tmp_path_factory.mktemp("saved")
    np.save(folder / "images.npy", images)
    for name in NAMES:
        model_of(name).save(folder / f"{name}.keras")
    script = """
import pathlib, sys, keras, numpy as np
images = np.load("images.npy")
answers = {path.stem: keras.saving.load_model(path, safe_mode=True)(images).numpy()
           for path in pathlib.Path().glob("*.keras")}
assert not any(module.split(".")[0] == "pipeline" for module in sys.modules)
np.savez("answers.npz", **answers)
"""
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, capture_output=True, text=True)
    return dict(np.load(folder / "answers.npz"))


@every_family
def test_a_saved_model_loads_without_this_package(name, images, reloaded):
    np.testing.assert_allclose(reloaded[name], model_of(name)(images).numpy(), rtol=1e-5, atol=1e-5)
