"""Bottleneck transformers: a residual network whose last stage attends over space (arXiv 2101.11605)."""

from functools import partial
from typing import Any, Literal

import keras
from pydantic import PositiveInt

from pipeline.models.attention import self_attention
from pipeline.models.blocks import add_shortcut, bottleneck_block, conv_norm, norm_act
from pipeline.models.resnet import residual_network
from pipeline.registry import MODELS


@MODELS.register(
    botnet50={"blocks": (3, 4, 6, 3), "heads": 4},
    botnet101={"blocks": (3, 4, 23, 3), "heads": 4},
    botnet_tiny={"blocks": (1, 1, 1, 1), "heads": 2, "width": 8},
)
def botnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    heads: int,
    width: PositiveInt = 64,
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Residual network whose last stage attends over space instead of convolving (BoTNet, arXiv 2101.11605, table 1).

    Positions are relative: two tables for each block, which grow with the image.
    """
    attending = partial(_attention_block, heads=heads)
    stages = [*((bottleneck_block, count) for count in blocks[:-1]), (attending, blocks[-1])]
    name = f"botnet{3 * sum(blocks) + 2}"
    return residual_network(input_shape, num_classes, stages, width=width, stem=stem, name=name)


def _attention_block(x: Any, filters: int, *, heads: int, stride: int = 1, name: str) -> Any:
    """Attend where `bottleneck_block` has its 3x3 convolution; a stride averages afterwards (arXiv 2101.11605)."""
    y = conv_norm(x, filters, 1, name=f"{name}_1")
    y = self_attention(y, heads, name=f"{name}_2")
    if stride > 1:
        y = keras.layers.AveragePooling2D(stride, padding="same", name=f"{name}_2_pool")(y)
    y = norm_act(y, "relu", name=f"{name}_2")
    y = conv_norm(y, 4 * filters, 1, activation=None, name=f"{name}_3")
    return add_shortcut(x, y, stride, name)
