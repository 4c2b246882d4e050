"""MobileNets: depthwise separable convolutions (arXiv 1704.04861) and inverted residuals (arXiv 1801.04381)."""

from functools import partial
from typing import Literal

import keras
from pydantic import PositiveFloat

from pipeline.models.blocks import conv_norm, inverted_residual, scaled, separable_block
from pipeline.models.heads import classify
from pipeline.models.trunk import trunk
from pipeline.registry import MODELS, Fraction

# Of the published models. A depthwise channel can die: its variance goes to zero, and a smaller epsilon would
# blow its folded weights up beyond what one int8 scale can hold beside the others.
_EPSILON = 1e-3

# Channels of each separable block and its level: how often the image was halved (arXiv 1704.04861, table 1).
_V1 = ((64, 1), (128, 2), (128, 2), (256, 3), (256, 3), *((512, 4),) * 6, (1024, 5), (1024, 5))

# Expansion, channels, count and level of each group of blocks (arXiv 1801.04381, table 2).
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 3), (6, 64, 4, 4), (6, 96, 3, 4), (6, 160, 3, 5), (6, 320, 1, 5))

_trunk = partial(trunk, activation="relu6", epsilon=_EPSILON)


@MODELS.register
def mobilenet_v1(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    width: PositiveFloat = 1.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.001,
) -> keras.Model:
    """Stack of depthwise separable convolutions (arXiv 1704.04861)."""
    block = partial(separable_block, epsilon=_EPSILON)
    blocks = [(level, partial(block, filters=scaled(filters, width))) for filters, level in _V1]
    inputs, x = _trunk(input_shape, blocks, filters=scaled(32, width), stem=stem, name="mobilenet_v1")
    return keras.Model(inputs, classify(x, num_classes, dropout=dropout), name="mobilenet_v1")


@MODELS.register
def mobilenet_v2(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    width: PositiveFloat = 1.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.2,
) -> keras.Model:
    """Stack of inverted residuals with linear bottlenecks (arXiv 1801.04381)."""
    block = partial(inverted_residual, epsilon=_EPSILON)
    blocks = [
        (level, partial(block, filters=scaled(filters, width), expansion=expansion))
        for expansion, filters, count, level in _V2
        for _ in range(count)
    ]
    inputs, x = _trunk(input_shape, blocks, filters=scaled(32, width), stem=stem, name="mobilenet_v2")
    x = conv_norm(x, scaled(1280, max(width, 1.0)), 1, activation="relu6", epsilon=_EPSILON, name="last")
    return keras.Model(inputs, classify(x, num_classes, dropout=dropout), name="mobilenet_v2")
