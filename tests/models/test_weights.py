"""What a layer derives of its weights goes with them, wherever a model is copied."""

import keras
import numpy as np
import pytest

from pipeline.export.compress.resolution import at_resolution
from pipeline.export.convert import convert, rebuild
from pipeline.export.interpreter import LiteModel
from pipeline.models.weights import put
from pipeline.training.train import as_float32

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("float32")


def network(dtype: str = "float32", *, adapted: bool = True) -> keras.Model:
    """Return a model that standardises its images, inside a model and outside, as an EfficientNet does."""
    outer, inner = (keras.layers.Normalization(dtype="float32", name=name) for name in ("outer", "inner"))
    if adapted:
        outer.adapt(IMAGES)
        inner.adapt(IMAGES / 50)
    image = keras.Input((8, 8, 3), name="image")
    mean = keras.layers.GlobalAveragePooling2D(dtype=dtype)
    return keras.Model(image, mean(keras.Sequential([keras.Input((8, 8, 3)), inner])(outer(image))))


def by_assignment(model: keras.Model) -> keras.Model:
    other = network(adapted=False)
    put(other, model.get_weights())
    return other


@pytest.mark.parametrize(
    "copy", [by_assignment, rebuild, as_float32, lambda model: at_resolution(model, (8, 8))],
    ids=["put", "convert", "float32", "resolution"],
)  # fmt: skip
def test_a_copy_standardises_by_the_same_statistics(copy):
    model = network("mixed_bfloat16" if copy is as_float32 else "float32")
    expected = network()(IMAGES)
    assert np.abs(expected - IMAGES.mean(axis=(1, 2))).min() > 1  # the statistics matter
    np.testing.assert_allclose([copy(model)(image[None])[0] for image in IMAGES], expected, atol=1e-4)


def test_a_file_standardises_by_the_same_statistics():
    found = LiteModel(convert(network(), lambda outputs: outputs)).predict(IMAGES)
    np.testing.assert_allclose(found, network()(IMAGES), atol=1e-4)
