"""Every family of models, on small pictures, becomes a file of builtin operators with equal answers, layer by layer."""

from collections.abc import Sequence

import keras
import numpy as np
import pytest
import representatives

from pipeline.export.convert import convert
from pipeline.export.interpreter import LiteModel
from pipeline.export.parity import BOUNDS, compare_layers, first_divergence
from pipeline.registry import RECIPES

# The others show the kinds of their own layers in the two kinds of files that differ most.
IN_EVERY_VARIANT = ("lenet5", "mobilenet_v2", "resnet8", "simple_cnn", "unet")
# Of how far the answers to different images lie from their mean: 1 would be a file that gives the same for all.
LARGEST_MEAN = {
    "float32": 1e-4,
    "float16": 0.03,
    "dynamic": 0.4,
    "int8": 0.6,
    "uint8": 0.6,
    "int16x8": 0.4,
    "mixed": 0.4,
}
# Random weights with norms that spread the channels: kernels of four bits, and depthwise ones of eight, leave noise of
# them, and are held to probabilities alone. That such files answer right when trained is shown on the digits.
NOISY = ("w4a8", "weight_int4", "mobilenet_v2", "mobilenet_v3_tiny", "applications:MobileNetV2")


# Patches of every size, so that networks see differences between them.
IMAGES = sum(
    np.random.default_rng(size).uniform(0, 255, (8, size, size, 3)).repeat(32 // size, 1).repeat(32 // size, 2) / 4
    for size in (1, 4, 8, 32)
).astype(np.uint8)


def build(name: str) -> keras.Model:
    model = representatives.build(name, classes=4)
    rng = np.random.default_rng(0)
    for weight in model.weights:  # norms with the statistics of a trained network, not of a new one
        if weight.name in ("moving_mean", "beta"):
            weight.assign(rng.normal(0, 0.2, weight.shape))
        elif weight.name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    if name in NOISY:
        return model
    # Logits that differ between the images, of whatever size they were: else nothing would be compared but a bias.
    logits = model(IMAGES.astype("float32"), training=False).numpy()
    kernel, bias = model.get_layer("logits").weights
    spread = logits.reshape(-1, logits.shape[-1]).std(axis=0)
    kernel.assign(kernel / spread)
    bias.assign((bias - logits.reshape(-1, logits.shape[-1]).mean(axis=0)) / spread)
    return model


def check(name: str, variants: Sequence[str]) -> None:
    model, images = build(name), IMAGES
    wanted = keras.ops.softmax(model(images.astype("float32"), training=False)).numpy()
    content = convert(model, keras.ops.softmax)
    layers = compare_layers(model, content, images[:4])
    assert set(layers["layer"]) >= {layer.name for layer in model.layers}  # operations between layers have rows, too
    # Without the logits, whose mean was taken out: the answers tell of them.
    assert first_divergence(layers.iloc[:-1], BOUNDS["float32"]) is None
    spread = np.abs(wanted - wanted.mean(axis=0)).mean()  # of the answers to different images
    for variant in variants:
        answers = LiteModel(RECIPES.build(variant, content, images)).predict(images)
        assert answers.shape == wanted.shape
        if variant == "float32":
            assert np.abs(answers - wanted).max() < 1e-4
        if name in NOISY or variant in NOISY:
            assert np.abs(answers - wanted).mean() < (0.17 if variant in NOISY else 0.1), variant
        else:
            assert np.abs(answers - wanted).mean() < LARGEST_MEAN[variant] * spread, variant


def test_the_table_is_whole():
    assert set(IN_EVERY_VARIANT) <= set(representatives.NAMES)
    assert {*LARGEST_MEAN, "w4a8", "weight_int4"} == set(RECIPES.names())


@pytest.mark.parametrize("name", IN_EVERY_VARIANT)
def test_model_converts_and_every_variant_runs(name):
    check(name, RECIPES.names())


@pytest.mark.parametrize("name", sorted(set(representatives.NAMES) - set(IN_EVERY_VARIANT)))
def test_every_other_family_converts(name):
    check(name, ["float32", "int8"])
