import keras
import numpy as np
import pytest
import tensorflow as tf
from seeding import set_seed
from zoo import difference, images, registered

from pipeline.errors import UserError
from pipeline.export.compress.channels import prune_channels
from pipeline.export.compress.constraints import constrained, find_kernels
from pipeline.export.compress.graph import Graph
from pipeline.export.compress.quantize_aware import quantize_aware, strip_quantization
from pipeline.export.compress.quantized_file import convert_quantized
from pipeline.export.compress.sparsity import (
    KeepZeros,
    SparsitySchedule,
    decay,
    keep_zeros,
    sparsify,
    sparsity_of,
    strip_sparsity,
)
from pipeline.export.compress.zipped import compare_sparse, convert_sparse, zero_shares, zipped_size
from pipeline.export.convert import convert
from pipeline.export.interpreter import LiteModel
from pipeline.registry import OPTIMIZERS, RECIPES, SCHEDULES, TASKS
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import Loop
from pipeline.training.plan import Batches, Settings
from pipeline.training.runtime import Runtime

layers = keras.layers


def network(dtype: str = "float32") -> keras.Model:
    """Return a network with every kind of kernel, logits out."""
    set_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(8, 3, padding="same", dtype=dtype, name="stem")(x)
    x = layers.Conv2D(16, 3, use_bias=False, dtype=dtype, name="conv")(x)
    x = layers.ReLU(dtype=dtype)(layers.BatchNormalization(dtype=dtype)(x))
    x = layers.DepthwiseConv2D(3, padding="same", dtype=dtype, name="depthwise")(x)
    x = layers.SeparableConv2D(16, 3, padding="same", dtype=dtype, name="separable")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2, dtype=dtype, name="transposed")(x)
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    x = layers.Dense(32, activation="relu", dtype=dtype, name="hidden")(x)
    return keras.Model(image, layers.Dense(3, dtype="float32", name="logits")(x))


SPARSE = {"conv", "separable_pointwise", "transposed", "hidden"}


def loop(model: keras.Model, folder, *, callbacks=(), epochs: int = 3, runtime=None, **settings) -> Loop:
    """Return the pipeline's loop over random pictures, four steps per call and eight per epoch."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (64, 8, 8, 3)).astype("float32")
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, 64)]

    def training(start: int) -> tf.data.Dataset:
        whole = tf.data.Dataset.from_tensor_slices((x, y)).batch(8, drop_remainder=True).repeat(epochs)
        return whole.skip(start)

    validation = tf.data.Dataset.from_tensor_slices({"image": x, "y": y, "weight": np.ones(64, "float32")})
    choices = {"precision": "float32", "xla": False, "cpu_ops": True, "steps_per_call": 4} | (runtime or {})
    optimizer = OPTIMIZERS.build("adamw", model, None, learning_rate=0.01, weight_decay=0.1)
    if choices["precision"] == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
    return Loop(
        model,
        TASKS.build("classification", ("a", "b", "c"), None),
        optimizer,
        SCHEDULES.build("constant", 0.01, 8 * epochs),
        Batches(training, validation.batch(8, drop_remainder=True), 8, 8, 8),
        Settings(epochs=epochs, callbacks=callbacks, **settings),
        Runtime(**{"strategy": tf.distribute.get_strategy(), "device": "CPU"} | choices),
        Checkpoints(folder),
    )


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {kernel.name: kernel.values for kernel in find_kernels(Graph.of(model))}


def test_the_smallest_weights_of_the_usual_kernels_become_zero():
    model = network()
    sparse = sparsify(model, 0.75)
    for name, share in sparsity_of(sparse).items():
        assert share == (0.75 if name in SPARSE else 0.0), name
    before, after = kernels(model)["conv"], kernels(sparse)["conv"]
    assert np.abs(before[after == 0]).max() <= np.abs(before[after != 0]).min()
    np.testing.assert_array_equal(after[after != 0], before[after != 0])
    assert max(sparsity_of(model).values()) == 0  # the model given is left as it is


def test_named_layers_alone():
    found = sparsity_of(sparsify(network(), {"stem": 0.5, "separable_depthwise": 0.25}))
    assert {name: share for name, share in found.items() if share} == {"stem": 0.5, "separable_depthwise": 0.25}


def test_two_of_four_in_every_group_of_inputs():
    sparse = sparsify(network(), pattern="2:4")
    found = kernels(sparse)
    for name in ("conv", "separable_pointwise", "hidden"):  # inputs on the axis before the last
        groups = np.moveaxis(found[name], -1, 0)
        assert ((groups.reshape(-1, 4) != 0).sum(axis=1) == 2).all(), name
    groups = np.moveaxis(found["transposed"], -2, 0)  # (H, W, outputs, inputs)
    assert ((groups.reshape(-1, 4) != 0).sum(axis=1) == 2).all()


def test_blocks_lie_in_whole_runs_of_inputs():
    for name, kernel in kernels(sparsify(network(), 0.5, pattern="1x4")).items():
        if name in SPARSE:
            axis = -2 if name == "transposed" else -1
            zeros = (np.moveaxis(kernel, axis, 0).reshape(-1, 4) == 0).sum(axis=1)
            assert set(zeros) == {0, 4}, name


def test_the_polynomial_by_hand():
    assert [decay(step, 10, 20) for step in (0, 10, 15, 20, 99)] == [1, 1, 0.125, 0, 0]
    assert decay(19, 10, 20, every=5) == 0.125
    assert decay(15, 10, 20, power=1.0) == 0.5
    assert [decay(step, 7, 7) for step in (6, 7)] == [1, 0]  # all at once


@pytest.mark.parametrize(
    ("precision", "settings", "runtime"),
    [
        ("float32", {"ema": 0.9, "keep": "last"}, {}),
        ("float32", {"accumulate": 2}, {"xla": True, "cpu_ops": False}),
        ("mixed_float16", {"ema": 0.5}, {"precision": "mixed_float16"}),
    ],
)
def test_zeros_survive_training_averages_and_precision(tmp_path, precision, settings, runtime):
    sparse = sparsify(network(precision), 0.75)
    before = kernels(sparse)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(min(share for name, share in sparsity_of(sparse).items() if name in SPARSE))

    loop(sparse, tmp_path, callbacks=[Look()], epochs=2, runtime=runtime, **settings).run()
    assert len(seen) == 4
    assert min(seen) == 0.75
    after = kernels(sparse)
    for name in SPARSE:
        np.testing.assert_array_equal(before[name] == 0, after[name] == 0)
        assert not np.array_equal(before[name], after[name])


def test_a_schedule_raises_the_sparsity_in_the_loop_and_resumes_exactly(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 11:
                raise KeyboardInterrupt

    def schedule():
        return SparsitySchedule(begin=4, end=20, every=4)

    seen = {}

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen[batch + 1] = sparsity_of(self.model)["hidden"]

    whole = sparsify(network(), 0.75, initial=0.25)
    assert sparsity_of(whole)["hidden"] == 0.25
    loop(whole, tmp_path / "whole", callbacks=[schedule(), Look()], keep="last").run()
    # Each call of four steps has the sparsity of its first step; 256 weights make steps of 1/256.
    expected = [0.75 - 0.5 * (1 - max(0, first - 4) / 16) ** 3 for first in (0, 4, 8, 12, 16, 20)]
    np.testing.assert_allclose([seen[step] for step in (4, 8, 12, 16, 20, 24)], expected, atol=1 / 256)

    broken = sparsify(network(), 0.75, initial=0.25)
    with pytest.raises(KeyboardInterrupt):
        loop(broken, tmp_path / "broken", callbacks=[schedule(), Stop()], keep="last", checkpoint_minutes=1e-9).run()
    resumed = sparsify(network(), 0.75, initial=0.25)
    loop(resumed, tmp_path / "broken", callbacks=[schedule()], keep="last").run()
    for name, kernel in kernels(whole).items():
        np.testing.assert_array_equal(kernel, kernels(resumed)[name])


@pytest.mark.parametrize(("target", "pattern"), [(0.75, "unstructured"), (0.02, "unstructured"), (0.6, "4x1")])
def test_what_was_reached_is_known_from_the_mask(target, pattern):
    sparse = sparsify(network(), target, pattern=pattern, initial=0.0)
    for weights in constrained(sparse, KeepZeros):
        assert not weights.constraint.grown(weights)
        weights.constraint.prune(weights, target)
        weights.assign(weights.constraint(weights))
        assert weights.constraint.grown(weights)


def test_a_schedule_in_fit():
    sparse = sparsify(network(), pattern="2:4", initial=0.0)
    x, y = images(sparse, 32), np.zeros(32)
    sparse.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    sparse.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[SparsitySchedule(2, 6, every=1)])
    plain = strip_sparsity(sparse)
    assert all(share == (0.5 if name in SPARSE else 0) for name, share in sparsity_of(plain).items())


def test_masks_survive_saving_in_safe_mode(tmp_path):
    sparse = sparsify(network(), 0.75)
    sparse.save(tmp_path / "sparse.keras")
    loaded = keras.models.load_model(tmp_path / "sparse.keras", safe_mode=True)
    before = kernels(loaded)
    assert len(constrained(loaded, KeepZeros)) == len(SPARSE)
    loop(loaded, tmp_path / "run", epochs=1).run()
    for name in SPARSE:
        np.testing.assert_array_equal(before[name] == 0, kernels(loaded)[name] == 0)


def test_stripping_leaves_a_plain_equal_model(tmp_path, caplog):
    sparse = sparsify(network(), 0.75)
    plain = strip_sparsity(sparse)
    assert not constrained(plain, KeepZeros)
    assert len(constrained(sparse, KeepZeros)) == len(SPARSE)
    x = images(plain)
    np.testing.assert_array_equal(sparse(x), plain(x))
    assert "pipeline" not in str(plain.get_config())
    assert not caplog.records


def test_stripping_masks_what_was_restored_and_tells_of_missing_zeros(caplog):
    sparse = sparsify(network(), 0.75)
    for weights in constrained(sparse, KeepZeros):
        weights.assign(np.ones(weights.shape))  # an average or an earlier epoch
    assert sparsity_of(strip_sparsity(sparse))["hidden"] == 0.75
    strip_sparsity(sparsify(network(), 0.75, initial=0.5))
    assert "has 50% zeros, not 75%; train it to the end of its SparsitySchedule" in caplog.text


def test_zeros_reach_the_files_and_pay_zipped(tmp_path):
    dense = registered("simple_cnn")
    sparse = strip_sparsity(sparsify(dense, 0.9))
    decode = keras.ops.softmax
    float_file = convert(sparse, decode)
    expected = sorted(round(share, 3) for share in sparsity_of(sparse).values())
    assert sorted(round(share, 3) for share in zero_shares(float_file).values()) == expected
    calibration = images(dense, 8)
    integer = RECIPES.build("int8", float_file, calibration)
    # Rounding makes more zeros, never fewer.
    assert all(a >= b - 1e-3 for a, b in zip(sorted(zero_shares(integer).values()), expected, strict=True))
    assert zipped_size(float_file) < 0.5 * zipped_size(convert(dense, decode))
    encoded = convert_sparse(sparse, decode)
    assert len(encoded) < 0.6 * len(float_file)
    one = images(dense)
    assert difference(LiteModel(float_file).predict(one), LiteModel(encoded).predict(one)) < 1e-5
    with pytest.raises(UserError, match="sparsely encoded"):
        zero_shares(encoded)


@pytest.mark.slow
def test_sizes_and_latency_are_measured_and_said(tmp_path, caplog):
    dense = registered("simple_cnn")
    with caplog.at_level("INFO"):
        table = compare_sparse(dense, strip_sparsity(sparsify(dense, 0.8)), keras.ops.softmax, tmp_path)
    assert list(table["file"]) == ["dense.tflite", "sparse.tflite", "sparse_encoded.tflite"]
    assert (table["latency_ms_p50"] > 0).all()
    assert "no faster" in caplog.text or "times as fast" in caplog.text


def test_quantisation_aware_training_keeps_the_zeros(tmp_path):
    sparse = sparsify(prune_channels(network(), {"conv": 0.5}), 0.75)
    assert sparse.get_layer("conv").filters == 8
    aware = quantize_aware(sparse)
    loop(aware, tmp_path, epochs=1, ema=0.9, keep="last").run()
    found = sparsity_of(strip_quantization(aware))
    # Separable convolutions are taken apart there, and their halves keep the names.
    assert {name for name, share in found.items() if share >= 0.75} >= SPARSE
    in_file = zero_shares(convert_quantized(aware, keras.ops.softmax)).values()
    # A channel that is all zero gets one weight in the file, to give its bias a scale.
    assert sum(share >= 0.7 for share in in_file) >= len(SPARSE)


def test_zeros_of_a_plain_model_can_be_held_again(tmp_path):
    plain = strip_sparsity(sparsify(network(), pattern="2:4"))
    held = keep_zeros(plain)
    loop(held, tmp_path, epochs=1).run()
    assert sparsity_of(held) == sparsity_of(plain)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (1.2, {}, "a sparsity of 1.2 must be at least 0 and less than 1"),
        (1, {}, "a sparsity of 1 would leave no weights"),
        (None, {}, "the pattern 'unstructured' needs a target"),
        (0.5, {"pattern": "4:2"}, "the pattern '4:2' would keep 4 of each 2 weights"),
        (0.5, {"pattern": "diagonal"}, "the pattern 'diagonal' is unknown; give 'unstructured', blocks"),
        (0.5, {"pattern": "0x4"}, "the pattern '0x4' is unknown"),
        (0.8, {"pattern": "2:4"}, "the pattern '2:4' has a sparsity of 0.5, not 0.8; leave target out"),
        ({"hiden": 0.8}, {}, "no layer 'hiden' has a kernel; did you mean 'hidden'"),
        ({"stem": 0.5}, {"pattern": "2:4"}, "the layer 'stem' has no groups of inputs for the pattern '2:4'"),
        (0.5, {"initial": 0.6}, "initial is 0.6; give a sparsity from 0 to the target, 0.5"),
    ],
)
def test_bad_options(target, options, message):
    with pytest.raises(UserError, match=message) as raised:
        sparsify(network(), target, **options)
    assert "\n" not in str(raised.value)


def test_models_that_cannot_be_made_sparse():
    image = keras.Input((4,))
    tiny = keras.Model(image, layers.Dense(2)(layers.Dense(2)(image)))
    with pytest.raises(UserError, match="no kernel is left to make sparse in the pattern 'unstructured': depthwise"):
        sparsify(tiny, 0.5)
    limited = layers.Dense(4, kernel_constraint="max_norm", name="limited")
    three = keras.Model(image, layers.Dense(2)(limited(layers.Dense(2)(image))))
    with pytest.raises(UserError, match="the layer 'limited' has the constraint MaxNorm on its kernel already"):
        sparsify(three, 0.5)
    with pytest.raises(UserError, match="0 <= begin <= end"):
        SparsitySchedule(begin=5, end=1)
    with pytest.raises(UserError, match=r"chosen for a kernel of \(2, 3\), but it is \(2, 2\) now; prune channels"):
        KeepZeros((2, 3), 0.5)(keras.ops.ones((2, 2)))
