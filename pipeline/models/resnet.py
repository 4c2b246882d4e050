"""Residual networks (arXiv 1512.03385): the small-image family of section 4.2 and the ImageNet family, v1.5."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
from pydantic import PositiveInt

from pipeline.models.blocks import basic_block, bottleneck_block, conv_norm, image_input
from pipeline.models.heads import classify
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.registry import MODELS


@MODELS.register(
    resnet8={"blocks": 1},
    resnet14={"blocks": 2},
    resnet20={"blocks": 3},
    resnet32={"blocks": 5},
    resnet56={"blocks": 9},
)
def resnet_small(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    blocks: int,
    width: PositiveInt = 16,
) -> keras.Model:
    """Residual network for small images: three stages of 1, 2 and 4 x `width` channels (arXiv 1512.03385, 4.2)."""
    # A stage opens with a 1x1 projection where the paper pads with zero channels (option A): padded channels
    # cannot be pruned with the channels they are added to, and the projection costs 1 % of the parameters.
    stages = [(basic_block, blocks)] * 3
    name = f"resnet{6 * blocks + 2}"
    return residual_network(input_shape, num_classes, stages, width=width, stem="small", name=name)


@MODELS.register(
    resnet18={"blocks": (2, 2, 2, 2), "bottleneck": False},
    resnet34={"blocks": (3, 4, 6, 3), "bottleneck": False},
    resnet50={"blocks": (3, 4, 6, 3), "bottleneck": True},
    resnet101={"blocks": (3, 4, 23, 3), "bottleneck": True},
    resnet152={"blocks": (3, 8, 36, 3), "bottleneck": True},
    resnet_tiny={"blocks": (1, 1, 1, 1), "bottleneck": True, "width": 8},
)
def resnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    bottleneck: bool,
    width: PositiveInt = 64,
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Residual network of four stages, with bottlenecks from 50 layers (arXiv 1512.03385, table 1; v1.5 strides)."""
    stages = [(bottleneck_block if bottleneck else basic_block, count) for count in blocks]
    name = f"resnet{(3 if bottleneck else 2) * sum(blocks) + 2}"
    return residual_network(input_shape, num_classes, stages, width=width, stem=stem, name=name)


def residual_network(
    input_shape: tuple[int, int, int],
    num_classes: int,
    stages: Sequence[tuple[Callable[..., Any], int]],
    *,
    width: int,
    stem: str,
    name: str,
) -> keras.Model:
    """Build a network of residual blocks: `stages` names the block of each stage and how many of them follow.

    A block is called as `block(x, filters, stride=..., name=...)`; `filters` is `width` in the first stage and doubles
    with each halving of the image. `stem` is one of 3x3 ("small"), of two halvings ("imagenet"), or "auto". Strided
    windows are padded as Keras does it: on even maps they lie a pixel further down and right than the paper's.
    """
    small = has_small_stem(input_shape, stem)
    stride = 1 if small else 4  # of the first stage
    require_stride(input_shape, stride * 2 ** (len(stages) - 1), name)
    inputs, x = image_input(input_shape)
    if small:
        x = conv_norm(x, width, 3, name="stem")
    else:
        x = mark(conv_norm(x, width, 7, stride=2, name="stem"), 2)
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for level, (block, count) in enumerate(stages):
        for index in range(count):
            step = 2 if level > 0 and index == 0 else 1
            x = block(x, width * 2**level, stride=step, name=f"stage{level + 1}_block{index + 1}")
        x = mark(x, stride * 2**level)
    return keras.Model(inputs, classify(x, num_classes), name=name)
