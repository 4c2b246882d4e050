"""Xception: residual blocks of separable convolutions (arXiv 1610.02357)."""

from functools import partial
from typing import Any, Literal

import keras
from pydantic import PositiveFloat

from pipeline.models.blocks import conv_norm, depthwise_conv, image_input, scaled
from pipeline.models.heads import classify
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.registry import MODELS, Fraction

_conv_norm = partial(conv_norm, epsilon=1e-3)  # of the published model


@MODELS.register(xception={"middle": 8}, xception_tiny={"middle": 1, "width": 0.0625})
def xception(
    input_shape: tuple[int, int, int] = (299, 299, 3),
    num_classes: int = 1000,
    *,
    middle: int,
    width: PositiveFloat = 1.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.5,
) -> keras.Model:
    """Residual blocks of separable convolutions: entry, `middle` and exit flow (arXiv 1610.02357, figure 5)."""
    small = has_small_stem(input_shape, stem)
    require_stride(input_shape, 8 if small else 32, "xception")
    inputs, x = image_input(input_shape)
    stride = 1 if small else 2
    # The published stem loses two pixels at each edge; small images have none to lose.
    padding = "same" if small else "valid"
    x = _conv_norm(x, scaled(32, width), 3, stride=stride, padding=padding, name="stem_1")
    x = _conv_norm(x, scaled(64, width), 3, padding=padding, name="stem_2")
    narrow, broad = scaled(256, width), scaled(728, width)
    if small:
        x = _block(x, (scaled(128, width),) * 2, activate=False, stride=1, name="block1")
    else:
        x = _block(mark(x, 2), (scaled(128, width),) * 2, activate=False, name="block1")
        stride *= 2
    for index, filters in enumerate((narrow, broad), 2):
        x = _block(mark(x, stride), (filters,) * 2, name=f"block{index}")
        stride *= 2
    for index in range(4, 4 + middle):
        x = _block(x, (broad,) * 3, stride=1, name=f"block{index}")
    x = _block(mark(x, stride), (broad, scaled(1024, width)), name=f"block{4 + middle}")
    for index, filters in enumerate((1536, 2048), 1):
        x = _separable(x, scaled(filters, width), activation="relu", name=f"last_{index}")
    return keras.Model(inputs, classify(mark(x, 2 * stride), num_classes, dropout=dropout), name="xception")


def _block(x: Any, filters: tuple[int, ...], *, activate: bool = True, stride: int = 2, name: str) -> Any:
    """Add separable convolutions, each after a ReLU, to a shortcut; `activate` says whether the first has its own."""
    y, shortcut = x, x
    if stride > 1 or filters[-1] != x.shape[-1]:
        shortcut = _conv_norm(x, filters[-1], 1, stride=stride, activation=None, name=f"{name}_shortcut")
    for index, channels in enumerate(filters, 1):
        if activate or index > 1:
            y = keras.layers.Activation("relu", name=f"{name}_{index}_relu")(y)
        y = _separable(y, channels, activation=None, name=f"{name}_{index}")
    if stride > 1:
        y = keras.layers.MaxPooling2D(3, strides=stride, padding="same", name=f"{name}_pool")(y)
    return keras.layers.Add(name=f"{name}_add")([y, shortcut])


def _separable(x: Any, filters: int, *, activation: str | None, name: str) -> Any:
    # Two layers, as the file has them: quantization-aware training and pruning then see both.
    x = depthwise_conv(x, 3, name=f"{name}_depthwise")
    return _conv_norm(x, filters, 1, activation=activation, name=f"{name}_pointwise")
