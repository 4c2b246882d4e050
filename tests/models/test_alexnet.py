"""AlexNet: golden counts, the geometry of its maps, its options."""

import keras
import pytest

from pipeline.errors import UserError
from pipeline.models.inspect import summary
from pipeline.models.stages import stages
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS


def by_hand(widths: tuple[int, ...], units: int, classes: int = 1000) -> int:
    """Count five convolutions and three dense layers over 6x6 pixels, each with a bias."""
    kernels = (11, 5, 3, 3, 3)
    channels = (3, *widths)
    convolutions = sum(k * k * channels[i] * channels[i + 1] + channels[i + 1] for i, k in enumerate(kernels))
    dense = (36 * widths[-1] + 1) * units + (units + 1) * units + (units + 1) * classes
    return convolutions + dense


def test_it_has_the_parameters_and_multiplications_of_torchvisions():
    cost = summary("alexnet")
    assert cost.parameters == cost.trainable == 61_100_840
    assert by_hand((64, 192, 384, 256, 256), 4096) == 61_100_840
    assert round(cost.macs / 1e9, 3) == 0.714


def test_the_tiny_row_has_its_parameters():
    assert summary("alexnet_tiny").parameters == by_hand((8, 24, 48, 32, 32), 16) == 76_976


@pytest.mark.parametrize(
    ("shape", "stem", "sizes"),
    [
        ((32, 32, 3), "auto", {0: (32, 32, 8), 1: (16, 16, 24), 2: (8, 8, 32), 3: (4, 4, 32)}),
        ((224, 131, 1), "auto", {2: (55, 32, 8), 3: (27, 15, 24), 4: (13, 7, 32), 5: (6, 3, 32)}),
        ((63, 63, 3), "imagenet", {2: (15, 15, 8), 3: (7, 7, 24), 4: (3, 3, 32), 5: (1, 1, 32)}),
    ],
)
def test_maps_are_torchvisions_or_exact_halves_of_small_images(shape, stem, sizes):
    model = MODELS.build("alexnet_tiny", shape, 2, stem=stem)
    assert {level: tensor.shape[1:] for level, tensor in stages(model).items()} == sizes


@pytest.mark.parametrize(("shape", "stem", "least"), [((62, 70, 3), "imagenet", "63x70"), ((7, 7, 3), "auto", "8x8")])
def test_an_image_that_is_too_small_is_refused(shape, stem, least):
    with pytest.raises(UserError, match=f"model alexnet .* give at least {least}$"):
        MODELS.build("alexnet", shape, 10, stem=stem)


def test_batch_norm_takes_the_place_of_every_convolutions_bias():
    model = MODELS.build("alexnet", (32, 32, 3), 2, width=0.125, units=8, batch_norm=True, dropout=0.0)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert [norm.output.shape[-1] for norm in norms] == [8, 24, 48, 32, 32]
    assert not any(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in model.layers)


@pytest.mark.parametrize(("stem", "units"), [("small", 512), ("imagenet", 4096)])
def test_the_dense_layers_are_smaller_for_small_images(stem, units):
    with without_values():
        model = MODELS.build("alexnet", (64, 64, 3), 2, width=0.125, stem=stem)
    assert [model.get_layer(name).units for name in ("dense1", "dense2")] == [units, units]
