"""Golden counts and small inputs of the tutorial stack and LeNet-5."""

import keras
import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.registry import MODELS


def test_the_tutorial_stack_has_its_122570_parameters():
    assert MODELS.build("simple_cnn", (32, 32, 3), 10).count_params() == 122_570


def test_lenet5_has_its_61706_parameters():
    assert MODELS.build("lenet5", (32, 32, 1), 10).count_params() == 61_706


def test_a_compact_network_takes_digits_as_they_are():
    model = MODELS.build("simple_cnn", (8, 8, 1), 10, filters=[16, 32], units=32, padding="same", batch_norm=True)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 2
    # Convolutions and their norms, then 4 x 4 x 32 features to 32 units to 10 classes.
    expected = (9 * 16 + 4 * 16) + (9 * 16 * 32 + 4 * 32) + (512 * 32 + 32) + (32 * 10 + 10)
    assert model.count_params() == expected


def test_dropout_acts_in_training_only():
    model = MODELS.build("simple_cnn", (16, 16, 1), 3, filters=[4], dropout=0.5)
    image = np.full((1, 16, 16, 1), 200.0, "float32")
    np.testing.assert_array_equal(model(image), model(image))
    assert np.any(model(image, training=True) != model(image, training=True))


def test_options_are_checked_and_closed():
    options = MODELS.options("simple_cnn")
    assert options().model_dump(mode="json") == {
        "filters": [32, 64, 64],
        "units": 64,
        "padding": "valid",
        "batch_norm": False,
        "dropout": 0.0,
    }
    assert options(filters=[8]).filters == (8,)
    assert MODELS.options("lenet5")().model_dump() == {}


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [("lenet5", {}, 16), ("simple_cnn", {}, 18), ("simple_cnn", {"padding": "same"}, 4)],
)
def test_the_smallest_image_is_named_and_works(name, options, least):
    model = MODELS.build(name, (least, least, 1), 2, **options)
    assert model(np.zeros((1, least, least, 1))).shape == (1, 2)
    size = least - 1
    with pytest.raises(UserError, match=f"{name} .* {size}x{size} is too small; give at least {least}x{least}$"):
        MODELS.build(name, (size, size, 1), 2, **options)
