"""Small convolutional networks without residuals: the tutorial stack and LeNet-5."""

from typing import Literal

import keras
from pydantic import PositiveInt

from pipeline.models.blocks import conv_relu, dense_relu, image_input
from pipeline.models.heads import dense_logits
from pipeline.models.stages import require_size
from pipeline.registry import MODELS, Fraction


@MODELS.register
def simple_cnn(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    filters: tuple[PositiveInt, ...] = (32, 64, 64),
    units: PositiveInt = 64,
    padding: Literal["valid", "same"] = "valid",
    batch_norm: bool = False,
    dropout: Fraction = 0.0,
) -> keras.Model:
    """Stack of 3x3 convolutions with max pooling between them and one dense layer (the Keras CIFAR tutorial)."""
    _require_pixels(input_shape, [3 if padding == "valid" else 1] * len(filters), "simple_cnn")
    inputs, x = image_input(input_shape)
    for index, channels in enumerate(filters, 1):
        if index > 1:
            x = keras.layers.MaxPooling2D(name=f"conv{index - 1}_pool")(x)
        x = conv_relu(x, channels, 3, padding=padding, batch_norm=batch_norm, name=f"conv{index}")
    x = dense_relu(keras.layers.Flatten(name="flatten")(x), units, name="dense")
    return keras.Model(inputs, dense_logits(x, num_classes, dropout=dropout), name="simple_cnn")


@MODELS.register
def lenet5(input_shape: tuple[int, int, int] = (32, 32, 1), num_classes: int = 10) -> keras.Model:
    """LeNet-5 with today's ReLU and max pooling (LeCun et al. 1998, "Gradient-based learning", figure 2)."""
    _require_pixels(input_shape, [5, 5, 1], "lenet5")
    inputs, x = image_input(input_shape)
    for index, channels in enumerate((6, 16), 1):
        x = conv_relu(x, channels, 5, padding="valid", name=f"conv{index}")
        x = keras.layers.MaxPooling2D(name=f"conv{index}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for index, units in enumerate((120, 84), 1):
        x = dense_relu(x, units, name=f"dense{index}")
    return keras.Model(inputs, dense_logits(x, num_classes), name="lenet5")


def _require_pixels(input_shape: tuple[int, int, int], kernels: list[int], name: str) -> None:
    """Check that valid convolutions with a halving between each two leave at least one pixel."""
    least = 1
    for position, kernel in enumerate(reversed(kernels)):
        least = (2 * least if position else least) + kernel - 1
    require_size(input_shape, least, f"model {name} ends in a map without pixels")
