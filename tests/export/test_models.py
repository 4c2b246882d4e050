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
# Random weights make deep networks answer more sharply than trained ones, and quantisation errors larger.
LARGEST_MEAN = {
    "float32": 1e-5,
    "float16": 0.01,
    "dynamic": 0.1,
    "int8": 0.1,
    "uint8": 0.1,
    "int16x8": 0.04,
    "mixed": 0.1,
    "w4a8": 0.16,
    "weight_int4": 0.16,
}


def build(name: str) -> keras.Model:
    model = representatives.build(name, classes=4)
    rng = np.random.default_rng(0)
    for weight in model.weights:  # norms with the statistics of a trained network, not of a new one
        if weight.name in ("moving_mean", "beta"):
            weight.assign(rng.normal(0, 0.2, weight.shape))
        elif weight.name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def check(name: str, variants: Sequence[str]) -> None:
    model = build(name)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    wanted = keras.ops.softmax(model(images.astype("float32"), training=False)).numpy()
    content = convert(model, keras.ops.softmax)
    layers = compare_layers(model, content, images[:4])
    assert set(layers["layer"]) >= {layer.name for layer in model.layers}  # operations between layers have rows, too
    assert first_divergence(layers, BOUNDS["float32"]) is None
    for variant in variants:
        answers = LiteModel(RECIPES.build(variant, content, images)).predict(images)
        assert answers.shape == wanted.shape
        assert np.abs(answers - wanted).max() < (1e-4 if variant == "float32" else 1)
        assert np.abs(answers - wanted).mean() < LARGEST_MEAN[variant], variant


def test_the_table_is_whole():
    assert set(IN_EVERY_VARIANT) <= set(representatives.NAMES)
    assert set(LARGEST_MEAN) == set(RECIPES.names())


@pytest.mark.parametrize("name", IN_EVERY_VARIANT)
def test_model_converts_and_every_variant_runs(name):
    check(name, RECIPES.names())


@pytest.mark.parametrize("name", sorted(set(representatives.NAMES) - set(IN_EVERY_VARIANT)))
def test_every_other_family_converts(name):
    check(name, ["float32", "int8"])
