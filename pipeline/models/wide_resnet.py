"""Wide residual networks: fewer blocks of more channels (arXiv 1605.07146)."""

from functools import partial
from typing import Literal

import keras
from pydantic import PositiveInt

from pipeline.models import preactivation
from pipeline.models.blocks import bottleneck_block
from pipeline.models.resnet import residual_network
from pipeline.models.resnet_v2 import three_stages
from pipeline.registry import MODELS, Fraction


@MODELS.register(
    wrn_10_1={"depth": 10, "widen": 1},
    wrn_16_4={"depth": 16, "widen": 4},
    wrn_16_8={"depth": 16, "widen": 8},
    wrn_28_10={"depth": 28, "widen": 10},
    wrn_40_4={"depth": 40, "widen": 4},
)
def wide_resnet_small(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    depth: int,
    widen: int,
    width: PositiveInt = 16,
    dropout: Fraction = 0.0,
) -> keras.Model:
    """Wide pre-activation network for small images, WRN-depth-widening (arXiv 1605.07146, table 1).

    `width` is that of the stem; `dropout`, 0.3 in the paper's experiments with it, is between a block's convolutions.
    """
    block = partial(preactivation.basic_block, dropout=dropout)
    name, blocks = f"wrn_{depth}_{widen}", (depth - 4) // 6
    return three_stages(input_shape, num_classes, block, blocks, stem=width, width=widen * width, name=name)


@MODELS.register(
    wide_resnet50_2={"blocks": (3, 4, 6, 3), "widen": 2},
    wide_resnet101_2={"blocks": (3, 4, 23, 3), "widen": 2},
    wide_resnet_tiny={"blocks": (1, 1, 1, 1), "widen": 2, "width": 8},
)
def wide_resnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    widen: int,
    width: PositiveInt = 64,
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Residual network whose bottlenecks have wider 3x3 convolutions (arXiv 1605.07146, table 8)."""
    stages = [(partial(bottleneck_block, group_width=64 * widen), count) for count in blocks]
    name = f"wide_resnet{3 * sum(blocks) + 2}_{widen}"
    return residual_network(input_shape, num_classes, stages, width=width, stem=stem, name=name)
