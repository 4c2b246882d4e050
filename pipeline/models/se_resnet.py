"""Squeeze-and-excitation residual networks: every block weighs its channels (arXiv 1709.01507)."""

from functools import partial
from typing import Any, Literal

import keras
from pydantic import PositiveInt

from pipeline.models.attention import squeeze_excite
from pipeline.models.blocks import basic_block, bottleneck_block
from pipeline.models.resnet import residual_network
from pipeline.registry import MODELS


@MODELS.register(
    se_resnet18={"blocks": (2, 2, 2, 2), "bottleneck": False},
    se_resnet34={"blocks": (3, 4, 6, 3), "bottleneck": False},
    se_resnet50={"blocks": (3, 4, 6, 3), "bottleneck": True},
    se_resnet101={"blocks": (3, 4, 23, 3), "bottleneck": True},
    se_resnet152={"blocks": (3, 8, 36, 3), "bottleneck": True},
    se_resnet_tiny={"blocks": (1, 1, 1, 1), "bottleneck": False, "width": 8, "reduction": 2},
)
def se_resnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    bottleneck: bool,
    width: PositiveInt = 64,
    reduction: PositiveInt = 16,
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Residual network whose blocks weigh their channels by squeeze-and-excitation (arXiv 1709.01507, table 1).

    Between the gate's two layers a block has a `reduction`th of its channels.
    """
    block = partial(bottleneck_block if bottleneck else basic_block, attend=partial(_gate, reduction=reduction))
    name = f"se_resnet{(3 if bottleneck else 2) * sum(blocks) + 2}"
    stages = [(block, count) for count in blocks]
    return residual_network(input_shape, num_classes, stages, width=width, stem=stem, name=name)


def _gate(x: Any, *, reduction: int, name: str) -> Any:
    return squeeze_excite(x, max(x.shape[-1] // reduction, 1), name=f"{name}_se")
