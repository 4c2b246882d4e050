"""Every registered model, narrow and on small pictures, becomes a file of builtin operators with the same answers."""

from collections.abc import Sequence

import keras
import numpy as np
import pytest

from pipeline.export.convert import convert
from pipeline.export.interpreter import LiteModel
from pipeline.registry import MODELS, RECIPES

# The deep and wide ones convert for minutes, and are built of the same blocks as their small relatives.
QUICK = ("lenet5", "mobilenet_v2", "resnet8", "simple_cnn", "unet")
NARROW = {"width": {int: 8, float: 0.25}, "decoder_width": {int: 4}}
COUNT = 15
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
    keras.utils.set_random_seed(0)
    options = {
        option: NARROW[option][type(field.default)]
        for option, field in MODELS.options(name).model_fields.items()
        if option in NARROW
    }
    model = MODELS.build(name, (32, 32, 3), 4, **options)
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
    for variant in variants:
        answers = LiteModel(RECIPES.build(variant, content, images)).predict(images)
        assert answers.shape == wanted.shape
        assert np.abs(answers - wanted).max() < (1e-4 if variant == "float32" else 1)
        assert np.abs(answers - wanted).mean() < LARGEST_MEAN[variant], variant


def test_the_table_is_whole():
    assert set(QUICK) <= set(MODELS.names())
    assert len(MODELS.names()) >= COUNT
    assert set(LARGEST_MEAN) == set(RECIPES.names())


@pytest.mark.parametrize("name", QUICK)
def test_model_converts_and_every_variant_runs(name):
    check(name, RECIPES.names())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS.names()) - set(QUICK)))
def test_every_other_model_converts(name):
    check(name, ["float32"])
