"""GhostNet: half of the features are cheap filters of the other half (arXiv 1911.11907)."""

from functools import partial
from typing import Any, Literal

import keras
from pydantic import PositiveFloat

from pipeline.models.attention import squeeze_excite
from pipeline.models.blocks import conv_norm, depthwise_norm, ghost_module, scaled
from pipeline.models.heads import dense_logits
from pipeline.models.trunk import trunk
from pipeline.registry import MODELS, Fraction

# Kernel, expanded channels, channels, attention and level of each block (table 7).
_BLOCKS = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 2),
    (5, 72, 40, True, 3),
    (5, 120, 40, True, 3),
    (3, 240, 80, False, 4),
    (3, 200, 80, False, 4),
    *((3, 184, 80, False, 4),) * 2,
    (3, 480, 112, True, 4),
    (3, 672, 112, True, 4),
    (5, 672, 160, True, 5),
    (5, 960, 160, False, 5),
    (5, 960, 160, True, 5),
    (5, 960, 160, False, 5),
    (5, 960, 160, True, 5),
)
_TINY = (
    (3, 32, 32, False, 2),
    (5, 96, 32, True, 3),
    (3, 128, 64, False, 4),
    (3, 128, 64, True, 4),
    (5, 192, 96, True, 5),
)


@MODELS.register(
    ghostnet={"blocks": _BLOCKS, "units": 1280},
    ghostnet_tiny={"blocks": _TINY, "units": 128},
)
def ghostnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[tuple[int, int, int, bool, int], ...],
    units: int,
    width: PositiveFloat = 1.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.2,
) -> keras.Model:
    """Bottlenecks of ghost modules, which filter half of their features from the other half (arXiv 1911.11907)."""
    layout = [
        (
            level,
            partial(
                _bottleneck,
                filters=_scaled(filters, width),
                expanded=_scaled(expanded, width),
                kernel_size=kernel_size,
                attends=attends,
            ),
        )
        for kernel_size, expanded, filters, attends, level in blocks
    ]
    inputs, x = trunk(
        input_shape, layout, filters=_scaled(16, width), stem=stem, activation="relu", epsilon=1e-5, name="ghostnet"
    )
    x = conv_norm(x, _scaled(blocks[-1][1], width), 1, name="last")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="head")(x)
    return keras.Model(inputs, dense_logits(x, num_classes, dropout=dropout), name="ghostnet")


def _scaled(filters: int, width: float) -> int:
    return scaled(filters, width, multiple=4)


def _bottleneck(x: Any, filters: int, *, expanded: int, kernel_size: int, attends: bool, stride: int, name: str) -> Any:
    """Expand and project by ghost modules, with strided filters between them (figure 3)."""
    y = ghost_module(x, expanded, activation="relu", name=f"{name}_expand")
    if stride > 1:
        y = depthwise_norm(y, kernel_size, stride=stride, activation=None, name=f"{name}_depthwise")
    if attends:
        y = squeeze_excite(y, _scaled(expanded, 0.25), gate="hard_sigmoid", name=f"{name}_attention")
    y = ghost_module(y, filters, activation=None, name=f"{name}_project")
    if x.shape != y.shape:
        x = depthwise_norm(x, kernel_size, stride=stride, activation=None, name=f"{name}_shortcut_depthwise")
        x = conv_norm(x, filters, 1, activation=None, name=f"{name}_shortcut")
    return keras.layers.Add(name=f"{name}_add")([x, y])
