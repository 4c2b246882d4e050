"""MobileNets: depthwise separable convolutions (arXiv 1704.04861) and inverted residuals (arXiv 1801.04381)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import keras
from pydantic import PositiveFloat

from pipeline.models.blocks import conv_norm, image_input, inverted_residual, scaled, separable_block
from pipeline.models.heads import classify
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.registry import MODELS, Fraction

# Of the published models. A depthwise channel can die: its variance goes to zero, and a smaller epsilon would
# blow its folded weights up beyond what one int8 scale can hold beside the others.
_EPSILON = 1e-3

# Channels of each separable block and its level: how often the image was halved (arXiv 1704.04861, table 1).
_V1 = ((64, 1), (128, 2), (128, 2), (256, 3), (256, 3), *((512, 4),) * 6, (1024, 5), (1024, 5))

# Expansion, channels, count and level of each group of blocks (arXiv 1801.04381, table 2).
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 3), (6, 64, 4, 4), (6, 96, 3, 4), (6, 160, 3, 5), (6, 320, 1, 5))

_Block = Callable[..., Any]


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
    blocks = [(level, partial(separable_block, filters=scaled(filters, width))) for filters, level in _V1]
    inputs, x = _trunk(input_shape, width, stem, blocks, "mobilenet_v1")
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
    blocks = [
        (level, partial(inverted_residual, filters=scaled(filters, width), expansion=expansion))
        for expansion, filters, count, level in _V2
        for _ in range(count)
    ]
    inputs, x = _trunk(input_shape, width, stem, blocks, "mobilenet_v2")
    x = conv_norm(x, scaled(1280, max(width, 1.0)), 1, activation="relu6", epsilon=_EPSILON, name="last")
    return keras.Model(inputs, classify(x, num_classes, dropout=dropout), name="mobilenet_v2")


def _trunk(
    input_shape: tuple[int, int, int], width: float, stem: str, blocks: list[tuple[int, _Block]], name: str
) -> tuple[Any, Any]:
    """Build the stem and the blocks, each at its level's stride; return the input and the last level."""
    skipped = 2 if has_small_stem(input_shape, stem) else 0
    require_stride(input_shape, 2 ** (5 - skipped), name)
    inputs, x = image_input(input_shape)
    stride = 1 if skipped else 2
    x = conv_norm(x, scaled(32, width), 3, stride=stride, activation="relu6", epsilon=_EPSILON, name="stem")
    for index, (level, block) in enumerate(blocks, 1):
        step = 2 ** max(level - skipped, 0) // stride
        if step > 1:
            x = mark(x, stride)
        x = block(x, stride=step, epsilon=_EPSILON, name=f"block{index}")
        stride *= step
    return inputs, mark(x, stride)
