"""EfficientNets: one network scaled in width, depth and resolution together (arXiv 1905.11946)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import keras

from pipeline.models.attention import squeeze_excite
from pipeline.models.blocks import conv_norm, inverted_residual, scaled
from pipeline.models.heads import classify
from pipeline.models.trunk import trunk
from pipeline.registry import MODELS, Fraction

_EPSILON = 1e-3

# Kernel, expansion, channels, count and level of each group of blocks of B0 (table 1).
_GROUPS = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 3),
    (3, 6, 80, 3, 4),
    (5, 6, 112, 3, 4),
    (5, 6, 192, 4, 5),
    (3, 6, 320, 1, 5),
)
_STEM, _HEAD = 32, 1280

Coefficients = tuple[float, float, int]


def compound_scaling(phi: float, coefficients: Coefficients = (1.0, 1.0, 224)) -> Coefficients:
    """Scale (width, depth, resolution in pixels) by 1.1**phi, 1.2**phi and 1.15**phi (section 3.3, equation 3).

    Each step of phi costs about twice the multiply-accumulates: 1.2 x 1.1**2 x 1.15**2 = 1.92.
    """
    width, depth, resolution = coefficients
    return width * 1.1**phi, depth * 1.2**phi, round(resolution * 1.15**phi)


# Width, depth and resolution as published (tensorflow/tpu, efficientnet_builder.py): to B3 the rule's for phi = 0, 0.5,
# 1 and 2, rounded; beyond it less deep than the rule has it.
@MODELS.register(
    efficientnet_b0={"coefficients": (1.0, 1.0, 224)},
    efficientnet_b1={"coefficients": (1.0, 1.1, 240)},
    efficientnet_b2={"coefficients": (1.1, 1.2, 260)},
    efficientnet_b3={"coefficients": (1.2, 1.4, 300)},
    efficientnet_b4={"coefficients": (1.4, 1.8, 380)},
    efficientnet_b5={"coefficients": (1.6, 2.2, 456)},
    efficientnet_b6={"coefficients": (1.8, 2.6, 528)},
    efficientnet_b7={"coefficients": (2.0, 3.1, 600)},
    efficientnet_tiny={"coefficients": (1.0, 1.0, 224), "phi": -14},
)
def efficientnet(
    input_shape: tuple[int, int, int] | None = None,
    num_classes: int = 1000,
    *,
    coefficients: Coefficients,
    phi: float = 0.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.2,
    stochastic_depth: Fraction = 0.2,
) -> keras.Model:
    """Inverted residuals with attention, in width and depth scaled together (arXiv 1905.11946); phi scales on.

    Without `input_shape` images have the published resolution. `phi` scales the network by the paper's rule: -2 of B0
    costs a quarter of it. The paper trains larger networks with more dropout, 0.5 for B7. `stochastic_depth` is the
    rate towards which it grows, block by block from 0, and which a block behind the last would have.
    """
    width, depth, resolution = compound_scaling(phi, coefficients)
    groups = [
        (kernel_size, expansion, filters, math.ceil(count * depth), level)
        for kernel_size, expansion, filters, count, level in _GROUPS
    ]
    blocks = _blocks(groups, width, stochastic_depth, activation="silu", attention=_attention)
    inputs, x = trunk(
        input_shape or (resolution, resolution, 3),
        blocks,
        filters=scaled(_STEM, width),
        stem=stem,
        activation="silu",
        epsilon=_EPSILON,
        name="efficientnet",
    )
    x = conv_norm(x, scaled(_HEAD, width), 1, activation="silu", epsilon=_EPSILON, name="last")
    return keras.Model(inputs, classify(x, num_classes, dropout=dropout), name="efficientnet")


# As published (tensorflow/tpu, lite/efficientnet_lite_builder.py).
@MODELS.register(
    efficientnet_lite0={"coefficients": (1.0, 1.0, 224)},
    efficientnet_lite1={"coefficients": (1.0, 1.1, 240)},
    efficientnet_lite2={"coefficients": (1.1, 1.2, 260)},
    efficientnet_lite3={"coefficients": (1.2, 1.4, 280)},
    efficientnet_lite4={"coefficients": (1.4, 1.8, 300)},
    efficientnet_lite_tiny={"coefficients": (1.0, 1.0, 224), "phi": -14},
)
def efficientnet_lite(
    input_shape: tuple[int, int, int] | None = None,
    num_classes: int = 1000,
    *,
    coefficients: Coefficients,
    phi: float = 0.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.2,
    stochastic_depth: Fraction = 0.2,
) -> keras.Model:
    """EfficientNet for integer chips: ReLU6, no attention, one stem and head for all sizes (tensorflow/tpu, lite).

    The options are those of `efficientnet`. The first and the last group of blocks are not deepened.
    """
    width, depth, resolution = compound_scaling(phi, coefficients)
    ends = (_GROUPS[0], _GROUPS[-1])
    groups = [(*group[:3], group[3] if group in ends else math.ceil(group[3] * depth), group[4]) for group in _GROUPS]
    inputs, x = trunk(
        input_shape or (resolution, resolution, 3),
        _blocks(groups, width, stochastic_depth, activation="relu6"),
        filters=_STEM,
        stem=stem,
        activation="relu6",
        epsilon=_EPSILON,
        name="efficientnet_lite",
    )
    x = conv_norm(x, _HEAD, 1, activation="relu6", epsilon=_EPSILON, name="last")
    return keras.Model(inputs, classify(x, num_classes, dropout=dropout), name="efficientnet_lite")


def _blocks(
    groups: list[tuple[int, int, int, int, int]],
    width: float,
    stochastic_depth: float,
    *,
    activation: str,
    attention: Callable[..., Any] | None = None,
) -> list[tuple[int, Callable[..., Any]]]:
    """Return the level and the function of every block; the rate of stochastic depth grows with the block."""
    rows = [row for row in groups for _ in range(row[3])]
    return [
        (
            level,
            partial(
                inverted_residual,
                filters=scaled(filters, width),
                expansion=expansion,
                kernel_size=kernel_size,
                activation=activation,
                attention=partial(attention, expansion=expansion) if attention else None,
                drop=stochastic_depth * index / len(rows),
                epsilon=_EPSILON,
            ),
        )
        for index, (kernel_size, expansion, filters, _, level) in enumerate(rows)
    ]


def _attention(x: Any, expansion: int, name: str) -> Any:
    """Squeeze to a quarter of what the block was given, not of what it expanded that to."""
    return squeeze_excite(x, max(1, x.shape[-1] // expansion // 4), activation="silu", name=name)
