"""Aggregated residual networks: bottlenecks whose 3x3 convolution has groups (arXiv 1611.05431)."""

from functools import partial
from typing import Literal

import keras
from pydantic import PositiveInt

from pipeline.models.blocks import bottleneck_block
from pipeline.models.resnet import residual_network
from pipeline.registry import MODELS


@MODELS.register(
    resnext29_8x64d={"blocks": 3, "groups": 8, "group_width": 64},
    resnext29_16x64d={"blocks": 3, "groups": 16, "group_width": 64},
    resnext_small_tiny={"blocks": 1, "groups": 4, "group_width": 32, "width": 8},
)
def resnext_small(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    blocks: int,
    groups: int,
    group_width: int,
    width: PositiveInt = 64,
) -> keras.Model:
    """Three stages of bottlenecks with grouped convolutions, for small images (arXiv 1611.05431, 5.3)."""
    block = partial(bottleneck_block, groups=groups, group_width=group_width)
    name = f"resnext{9 * blocks + 2}_{groups}x{group_width}d"
    return residual_network(input_shape, num_classes, [(block, blocks)] * 3, width=width, stem="small", name=name)


@MODELS.register(
    resnext50_32x4d={"blocks": (3, 4, 6, 3), "groups": 32, "group_width": 4},
    resnext101_32x8d={"blocks": (3, 4, 23, 3), "groups": 32, "group_width": 8},
    resnext_tiny={"blocks": (1, 1, 1, 1), "groups": 4, "group_width": 32, "width": 8},
)
def resnext(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    groups: int,
    group_width: int,
    width: PositiveInt = 64,
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Four stages of bottlenecks with grouped convolutions (arXiv 1611.05431, table 1)."""
    block = partial(bottleneck_block, groups=groups, group_width=group_width)
    stages = [(block, count) for count in blocks]
    name = f"resnext{3 * sum(blocks) + 2}_{groups}x{group_width}d"
    return residual_network(input_shape, num_classes, stages, width=width, stem=stem, name=name)
