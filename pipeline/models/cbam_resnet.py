"""Residual networks with the convolutional block attention module: what to look at, then where (arXiv 1807.06521)."""

from functools import partial
from typing import Any, Literal

import keras
from pydantic import PositiveInt

from pipeline.models.attention import channel_attention, spatial_attention
from pipeline.models.blocks import basic_block, bottleneck_block
from pipeline.models.resnet import residual_network
from pipeline.registry import MODELS


@MODELS.register(
    cbam_resnet18={"blocks": (2, 2, 2, 2), "bottleneck": False},
    cbam_resnet50={"blocks": (3, 4, 6, 3), "bottleneck": True},
    cbam_resnet_tiny={"blocks": (1, 1, 1, 1), "bottleneck": False, "width": 8, "reduction": 2},
)
def cbam_resnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    bottleneck: bool,
    width: PositiveInt = 64,
    reduction: PositiveInt = 16,
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Residual network whose blocks weigh their channels, then their places (CBAM, arXiv 1807.06521, table 4).

    Between the channel gate's two layers a block has a `reduction`th of its channels.
    """
    block = partial(bottleneck_block if bottleneck else basic_block, attend=partial(_attend, reduction=reduction))
    name = f"cbam_resnet{(3 if bottleneck else 2) * sum(blocks) + 2}"
    stages = [(block, count) for count in blocks]
    return residual_network(input_shape, num_classes, stages, width=width, stem=stem, name=name)


def _attend(x: Any, *, reduction: int, name: str) -> Any:
    x = channel_attention(x, max(x.shape[-1] // reduction, 1), name=f"{name}_channel")
    return spatial_attention(x, name=f"{name}_spatial")
