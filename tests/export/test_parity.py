"""Layer by layer, a file is the Keras model, or the first layer that is not is named."""

import keras
import numpy as np
import pandas as pd
import pytest
from representatives import settle
from seeding import set_seed
from small import network

from pipeline.export.compress.quantize_aware import calibrated
from pipeline.export.convert import convert
from pipeline.export.parity import (
    BOUNDS,
    Match,
    _figures,
    check_layers,
    compare_layers,
    first_divergence,
    noisiest_layers,
)
from pipeline.export.variants import build_variants, describe_model
from pipeline.registry import MODELS, RECIPES

SMALL = {
    "simple_cnn": {},
    "lenet5": {},
    "resnet8": {},
    "mobilenet_v1": {"width": 0.25},
    "mobilenet_v2": {"width": 0.35},
    "unet": {"backbone": "resnet8"},
}


def pictures(size: int, channels: int = 3, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels)).astype(np.uint8)


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_of_a_float_file_is_that_of_keras_or_is_fused_into_one_that_is(name):
    set_seed(0)
    model = MODELS.build(name, (32, 32, 3), 5, **SMALL[name])
    layers = compare_layers(model, convert(model, keras.ops.softmax), pictures(32))
    assert sorted(layers["layer"]) == sorted(layer.name for layer in model.layers)
    own = layers["tensor"].notna()
    assert own.sum() >= 0.2 * len(layers)
    assert layers["layer"].iloc[-1] in set(layers.loc[own, "layer"])  # the logits are in the file, before the softmax
    assert layers.loc[own, "sqnr_db"].min() > BOUNDS["float32"]
    assert layers.loc[own, "cosine"].min() > 0.9999
    assert set(layers.loc[~own, "fused_into"]) <= set(layers.loc[own, "layer"])


def test_an_unpacked_float16_kernel_is_not_taken_for_an_output():
    set_seed(1)
    image = keras.Input((3, 3, 16), name="image")  # the output (1, 3, 3, 16) has the shape of the kernel
    depthwise = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(image)
    variance = keras.initializers.RandomUniform(0.5, 1.5)
    norm = keras.layers.BatchNormalization(moving_mean_initializer="ones", moving_variance_initializer=variance)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(norm(depthwise))))
    content = RECIPES.build("float16", convert(model, keras.ops.softmax), pictures(3, 16))
    layers = compare_layers(model, content, pictures(3, 16))
    assert first_divergence(layers, BOUNDS["float16"]) is None
    assert not layers["tensor"].fillna("").str.endswith("_dequant").any()


def preactivated(gamma: float) -> keras.Model:
    """Return a network whose second norm stands alone: in a file it is a product and a sum that takes in the ReLU."""
    set_seed(2)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(8, 3, name="conv")(image)
    x = keras.layers.Add(name="add")([x, keras.layers.ReLU(name="branch")(x)])
    gammas, betas = (keras.initializers.Constant(value) for value in (gamma, 0.5))
    x = keras.layers.BatchNormalization(gamma_initializer=gammas, beta_initializer=betas, name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.ReLU(name="relu")(x))
    return keras.Model(image, keras.layers.Dense(4, name="logits")(x))


def test_a_step_inside_a_layer_is_not_taken_for_its_output():
    model = preactivated(1.0)
    layers = compare_layers(model, convert(model, keras.ops.softmax), pictures(8)).set_index("layer")
    assert layers.loc["norm", "fused_into"] == "relu"
    assert layers.loc["relu", "sqnr_db"] > BOUNDS["float32"]
    faulty = compare_layers(model, convert(preactivated(1.2), keras.ops.softmax), pictures(8))
    assert first_divergence(faulty, BOUNDS["float32"]) == "relu"


def test_a_step_inside_a_separable_convolution_is_not_taken_for_the_norm_after_it():
    set_seed(3)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(6, 3, name="conv")(image)
    x = keras.layers.SeparableConv2D(6, 3, padding="same", use_bias=False, name="separable")(x)  # as wide in between
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="norm")(x))
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(keras.layers.GlobalAveragePooling2D()(x)))
    layers = compare_layers(model, convert(model, keras.ops.softmax), pictures(8)).set_index("layer")
    assert list(layers.loc[["separable", "norm"], "fused_into"]) == ["relu", "relu"]
    assert layers["sqnr_db"].min() > BOUNDS["float32"]


class ScaledSum(keras.layers.Layer):
    """Adds a fifth of its second input, as the blocks of InceptionResNetV2 do."""

    def call(self, inputs):
        return inputs[0] + 0.2 * inputs[1]


def scaled(factors: dict[str, float]) -> keras.Model:
    """Return a network with a scaled sum, and factors on the kernels of some layers."""
    set_seed(4)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    x = ScaledSum(name="sum")([x, keras.layers.Conv2D(6, 1, name="branch")(x)])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.ReLU(name="relu")(x))
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(x))
    for layer, factor in factors.items():
        kernel = model.get_layer(layer).kernel
        kernel.assign(kernel * factor)
    return model


def test_a_factor_that_was_folded_in_is_no_fault():
    layers = compare_layers(scaled({}), convert(scaled({}), keras.ops.softmax), pictures(8)).set_index("layer")
    assert layers.loc["branch", "fused_into"] == "relu"
    assert layers["sqnr_db"].min() > BOUNDS["float32"]


@pytest.mark.parametrize("layer", ["conv", "branch", "logits"])
def test_a_factor_that_is_a_fault_is_one_where_it_is(layer):
    faulty = convert(scaled({layer: 2.0}), keras.ops.softmax)
    assert first_divergence(compare_layers(scaled({}), faulty, pictures(8)), BOUNDS["float32"]) == layer


# One of each kind of block, at the smallest size that it takes and this test can afford.
APPLICATIONS = {
    **dict.fromkeys(("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "MobileNet", "VGG16"), 32),
    **dict.fromkeys(("MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2"), 32),
    **dict.fromkeys(("InceptionResNetV2", "InceptionV3", "Xception"), 75),
}


@pytest.mark.applications
@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), APPLICATIONS.items())
def test_every_layer_of_an_application_is_compared_with_its_own(name, size):
    model = settle(MODELS.build(f"applications:{name}", (size, size, 3), 5))
    layers = compare_layers(model, convert(model, keras.ops.softmax), pictures(size))
    assert first_divergence(layers, BOUNDS["float32"]) is None


def test_a_planted_fault_is_found_where_it_is(keras_model, float_file, images):
    assert first_divergence(compare_layers(keras_model, float_file, images[:4]), 60) is None
    faulty = keras.models.clone_model(keras_model)
    faulty.set_weights(keras_model.get_weights())
    kernels = [layer for layer in faulty.layers if hasattr(layer, "kernel")]
    kernels[1].kernel.assign(kernels[1].kernel * 1.05)
    layers = compare_layers(faulty, float_file, images[:4])
    found = first_divergence(layers, 60)
    holder = layers.set_index("layer").loc[kernels[1].name, "fused_into"]
    assert found == (kernels[1].name if pd.isna(holder) else holder)


def test_a_float_file_of_another_model_is_refused_by_layer(keras_model, images, tmp_path, user_error):
    other = network()
    other.set_weights([weight * 1.1 for weight in keras_model.get_weights()])
    path = tmp_path / "float32.tflite"
    path.write_bytes(convert(other, keras.ops.softmax))
    with user_error("float32: the file computes something else than the Keras model from the layer", "60 are needed"):
        check_layers(keras_model, {"float32": path}, images[:4])


def test_integer_files_say_which_layer_is_noisiest(keras_model, variant_files, images):
    files = {name: variant_files[name] for name in ("float32", "float16", "int8", "int16x8")}
    layers = check_layers(keras_model, files, images[:4])
    worst = noisiest_layers(layers).set_index("variant")["noisiest_db"]
    assert worst["float32"] > worst["float16"] > worst["int8"]
    assert worst["int16x8"] > worst["int8"] > 10


def test_a_quantisation_aware_model_is_compared_with_what_it_computes(images, keras_model, tmp_path):
    aware = calibrated(keras_model, 8, [images[:32].astype("float32")])
    facts, paths = describe_model("small", keras_model, "abc"), {}
    for name, content in build_variants(aware, ["float32", "int8"], keras.ops.softmax, images[:8], facts):
        paths[name] = tmp_path / f"{name}.tflite"
        paths[name].write_bytes(content)
    layers = check_layers(aware, paths, images[:4])  # the float file holds the rounded kernels
    worst = noisiest_layers(layers).set_index("variant")["noisiest_db"]
    post = next(content for _, content in build_variants(keras_model, ["int8"], keras.ops.softmax, images[:32], facts))
    assert worst["int8"] > compare_layers(keras_model, post, images[:4])["sqnr_db"].min() + 3


def test_a_run_writes_what_its_files_compute(exported):
    results = exported.results.set_index("variant")
    assert (exported.run.export_dir / "parity.csv").is_file()
    assert results.loc["float32", "noisiest_db"] > 60
    assert results["noisiest_layer"].notna().all()
    assert "Inside the files" in exported.run.report_path.read_text(encoding="utf-8")


def test_silence_is_equal_to_silence_only():
    zeros, ones = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    assert _figures(Match("layer", "tensor", zeros, zeros))["sqnr_db"] == 120
    assert _figures(Match("layer", "tensor", zeros, ones))["sqnr_db"] < 0


def test_what_is_no_number_is_no_parity():
    expected = np.ones((1, 4), np.float32)
    exact, spoilt = expected.copy(), np.array([[1, 1, 1, np.nan]], np.float32)
    assert _figures(Match("layer", "tensor", expected, exact))["sqnr_db"] == 120
    figures = _figures(Match("layer", "tensor", expected, spoilt))
    assert figures["sqnr_db"] == -np.inf
    assert np.isnan([figures["max_abs"], figures["mean_abs"], figures["cosine"]]).all()
