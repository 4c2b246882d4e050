"""Blocks that normalise and activate before they convolve, so that the sum stays as it is (arXiv 1603.05027)."""

from collections.abc import Callable
from typing import Any

import keras

from pipeline.models.blocks import conv, norm_act

# Called as `block(x, filters, stride=..., opens=..., name=...)`; the first block of a network `opens` it: its input is
# activated already, before the paths part (arXiv 1603.05027, section 5).
Block = Callable[..., Any]


def basic_block(
    x: Any,
    filters: int,
    *,
    stride: int = 1,
    opens: bool = False,
    dropout: float = 0.0,
    bias: bool = False,
    name: str,
) -> Any:
    """Add two 3x3 convolutions to a shortcut that nothing activates; `dropout` is between them (arXiv 1605.07146).

    With `bias` the convolutions have one that no norm follows.
    """
    y = x if opens else norm_act(x, "relu", name=f"{name}_0")
    shortcut = _shortcut(x, y, filters, stride, bias, name)
    y = conv(y, filters, 3, stride=stride, name=f"{name}_1")
    y = norm_act(y, "relu", name=f"{name}_1")
    if dropout:
        y = keras.layers.Dropout(dropout, name=f"{name}_dropout")(y)
    y = conv(y, filters, 3, bias=bias, name=f"{name}_2")
    return keras.layers.Add(name=f"{name}_add")([shortcut, y])


def bottleneck_block(
    x: Any, filters: int, *, stride: int = 1, opens: bool = False, bias: bool = False, name: str
) -> Any:
    """Add a 1x1, 3x3, 1x1 bottleneck of 4 x `filters` outputs to a shortcut that nothing activates.

    With `bias` the convolutions have one that no norm follows.
    """
    y = x if opens else norm_act(x, "relu", name=f"{name}_0")
    shortcut = _shortcut(x, y, 4 * filters, stride, bias, name)
    y = norm_act(conv(y, filters, 1, name=f"{name}_1"), "relu", name=f"{name}_1")
    y = norm_act(conv(y, filters, 3, stride=stride, name=f"{name}_2"), "relu", name=f"{name}_2")
    y = conv(y, 4 * filters, 1, bias=bias, name=f"{name}_3")
    return keras.layers.Add(name=f"{name}_add")([shortcut, y])


def _shortcut(x: Any, activated: Any, channels: int, stride: int, bias: bool, name: str) -> Any:
    if x.shape[-1] != channels:
        return conv(activated, channels, 1, stride=stride, bias=bias, name=f"{name}_shortcut")
    return keras.layers.MaxPooling2D(1, strides=stride, name=f"{name}_shortcut_pool")(x) if stride > 1 else x
