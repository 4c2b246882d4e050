"""A quantisation-aware model rounds where the integer file does, saves, and trains in the loop."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from depthwise_digits import digits, network
from quantisable import every_rule, pictures, ready, with_islands
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.compress.fake_quantize import FakeQuantize
from pipeline.export.compress.quantize_aware import float_islands, quantize_aware, strip_quantization
from pipeline.export.compress.quantized_file import convert_quantized
from pipeline.registry import TASKS
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import Loop
from pipeline.training.plan import Batches, Settings
from pipeline.training.runtime import Runtime, dtype_policy

layers = keras.layers


def test_nothing_is_rounded_between_convolution_norm_and_relu():
    aware = quantize_aware(every_rule())
    names = [layer.name for layer in aware.layers if isinstance(layer, FakeQuantize)]
    assert "stem_range" not in names
    assert "stem_relu_range" in names
    assert "sum_range" not in names  # its ReLU is part of the addition


def test_what_a_concatenation_joins_has_one_range():
    aware = quantize_aware(every_rule())
    joined = {tensor._keras_history.operation for tensor in aware.get_layer("join").input}
    assert len(joined) == 1
    assert next(iter(joined)).slots == 3


def test_the_input_is_pixels():
    assert quantize_aware(every_rule()).get_layer("image_range").fixed == (0.0, 255.0)


def test_every_layer_has_a_rule():
    assert float_islands(quantize_aware(every_rule())) == []


def test_layers_without_a_rule_stay_float_and_are_told(caplog):
    with caplog.at_level("INFO"):
        aware = quantize_aware(with_islands(), per_layer={"kept": None})
    assert float_islands(aware) == ["kept", "norm"]
    assert "2 layers have no integer rule and stay float: kept, norm" in caplog.text


def test_the_stripped_model_is_plain_and_computes_with_the_rounded_kernels():
    model = every_rule()
    aware = quantize_aware(model)  # without ranges it rounds kernels only
    plain = strip_quantization(aware)
    assert {type(layer).__module__.partition(".")[0] for layer in plain.layers} == {"keras"}
    difference = np.abs(np.asarray(plain(pictures())) - np.asarray(aware(pictures()))).max()
    assert difference < np.abs(np.asarray(aware(pictures())) - np.asarray(model(pictures()))).max() / 2


def test_it_loads_in_safe_mode_and_goes_on_learning(tmp_path):
    aware = ready(every_rule(), weights=4)
    aware.save(tmp_path / "aware.keras")
    again = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(again(pictures()), aware(pictures()))
    again(pictures() / 2, training=True)
    assert float_islands(again) == []


def called_again_beside_its_namesake(x):
    relu = layers.ReLU(name="re_lu")
    return layers.ReLU(name="re_lu_1")(relu(relu(x + x) - x) * x)


def two_models_of_the_same_names(x):
    for name in ("a", "b"):
        inner = keras.Input((8, 8, 4))
        x = keras.Model(inner, layers.Conv2D(4, 1, activation="relu", name="conv1")(inner), name=name)(x)
    return x


def one_model_twice(x):
    inner = keras.Input((8, 8, 4))
    twice = keras.Model(inner, layers.Conv2D(4, 1)(inner) + 3.0)
    return twice(twice(x))


def several_outputs(x):
    return keras.ops.concatenate([layers.Conv2D(2, 1)(half) for half in keras.ops.split(x, 2, axis=-1)], axis=-1)


@pytest.mark.parametrize(
    "body", [called_again_beside_its_namesake, two_models_of_the_same_names, one_model_twice, several_outputs]
)
def test_every_range_has_a_name_of_its_own(body):
    image = keras.Input((8, 8, 4), name="image")
    aware = quantize_aware(keras.Model(image, layers.Conv2D(3, 1)(body(layers.Conv2D(4, 1)(image)))))
    assert np.shape(tf.function(aware)(np.zeros((1, 8, 8, 4), "float32")))[1:] == (8, 8, 3)  # scopes may have no @
    assert strip_quantization(aware).output_shape == aware.output_shape


def test_a_model_that_is_quantised_already():
    with pytest.raises(UserError, match="already quantised; give the float model"):
        quantize_aware(quantize_aware(every_rule()))


def test_an_unknown_layer():
    with pytest.raises(UserError, match=r"per_layer names 'stemm'.*did you mean 'stem'"):
        quantize_aware(every_rule(), per_layer={"stemm": 8})


def test_bits_that_no_kernel_has():
    with pytest.raises(UserError, match="gives 'stem' 5 bits; choose 4, 8, or None"):
        quantize_aware(every_rule(), per_layer={"stem": 5})


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_it_trains_in_mixed_precision(precision):
    with dtype_policy(precision):
        model = every_rule()
        aware = quantize_aware(model)
    aware.compile(keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(aware.train_on_batch(pictures(), np.arange(32) % 5))
    content = convert_quantized(aware, lambda outputs: outputs)
    assert {operator.outputs[0].dtype for operator in flatbuffer.operators(content)} == {"int8"}


def batches(steps: int) -> Batches:
    """Return some digits in batches of 32."""
    images, labels, _, _ = digits()
    targets = np.eye(10, dtype="float32")[labels]

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.range(32, dtype=tf.int64) + 32 * step
        x, y = tf.gather(images, rows), tf.gather(targets, rows)
        return tf.ensure_shape(x, (32, 16, 16, 1)), tf.ensure_shape(y, (32, 10))

    held = {"image": images[-64:], "y": targets[-64:], "weight": np.ones(64, "float32")}
    validation = tf.data.Dataset.from_tensor_slices(held).batch(32)
    return Batches(lambda start: tf.data.Dataset.range(start, steps).map(batch), validation, 32, steps, 2)


def loop(folder: Path, model: keras.Model, *, xla: bool) -> Loop:
    steps = 16
    return Loop(
        model,
        TASKS.build("classification", tuple("0123456789"), None),
        keras.optimizers.Adam(1e-2),
        lambda step: tf.constant(1e-2),
        batches(steps),
        Settings(epochs=1, ema=0.9),
        Runtime(tf.distribute.get_strategy(), "CPU", "float32", xla, cpu_ops=not xla, steps_per_call=4),
        Checkpoints(folder),
    )


@pytest.mark.parametrize("xla", [False, True])
def test_it_trains_in_the_loop(tmp_path, xla):
    set_seed(0)
    aware = quantize_aware(network())
    [row] = loop(tmp_path, aware, xla=xla).run()
    assert row["loss"] < np.log(10)
    ranges = [layer.range for layer in aware.layers if isinstance(layer, FakeQuantize) and not layer.fixed]
    assert len(ranges) == 8
    assert all(low < high for low, high in ranges)
