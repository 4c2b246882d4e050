"""Quantisation-aware training of keras.applications: it inserts, trains a step and converts (random weights)."""

import keras
import numpy as np
import pytest
from seeding import set_seed

from pipeline.export import flatbuffer
from pipeline.export.compress.quantize_aware import calibrate, float_islands, quantize_aware
from pipeline.export.compress.quantized_file import convert_quantized
from pipeline.export.interpreter import LiteModel

# image size, and the layers without an integer rule
NETWORKS = {
    "MobileNetV2": (32, 0),
    "MobileNetV3Small": (32, 0),
    "EfficientNetV2B0": (32, 0),
    "ResNet50": (32, 0),
    "DenseNet121": (32, 0),
    "InceptionV3": (75, 0),
    "Xception": (71, 0),
    "NASNetMobile": (32, 0),
    "ConvNeXtTiny": (32, 41),  # LayerNormalization, LayerScale
}


def test_all_that_the_issue_names_are_here():
    assert len(NETWORKS) == 9


@pytest.mark.applications
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_inserts_trains_and_converts(name):
    size, islands = NETWORKS[name]
    set_seed(0)
    build = getattr(keras.applications, name)
    model = build(input_shape=(size, size, 3), weights=None, classes=10, classifier_activation=None)
    aware = quantize_aware(model)
    assert len(float_islands(aware)) == islands
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3)).astype("float32")
    aware.compile(keras.optimizers.SGD(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(aware.train_on_batch(images, np.arange(8)))
    calibrate(aware, [images])
    content = convert_quantized(aware, lambda outputs: outputs)
    floats = {op.name for op in flatbuffer.operators(content) if op.outputs[0].dtype == "float32"}
    assert bool(floats) == bool(islands)
    assert not floats & set(flatbuffer.WITH_WEIGHTS)
    lite = LiteModel(content)
    # The largest difference is chance in so deep a network without training: a step early on is many at the end.
    assert np.abs(lite.predict(images) - np.asarray(aware(images))).mean() <= 4 * lite.output.scale
