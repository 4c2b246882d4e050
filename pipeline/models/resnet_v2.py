"""Residual networks with pre-activation (arXiv 1603.05027): the small-image family and the ImageNet family."""

from functools import partial
from typing import Literal

import keras
from pydantic import PositiveInt

from pipeline.models.blocks import conv, image_input, norm_act
from pipeline.models.heads import classify
from pipeline.models.preactivation import Block, basic_block, bottleneck_block
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.registry import MODELS


@MODELS.register(
    resnet8_v2={"blocks": 1},
    resnet20_v2={"blocks": 3},
    resnet56_v2={"blocks": 9},
    resnet110_v2={"blocks": 18},
)
def resnet_v2_small(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    blocks: int,
    width: PositiveInt = 16,
) -> keras.Model:
    """Pre-activation network for small images: three stages of 1, 2 and 4 x `width` channels (arXiv 1603.05027, 3)."""
    name = f"resnet{6 * blocks + 2}_v2"
    return three_stages(input_shape, num_classes, basic_block, blocks, stem=width, width=width, name=name)


def three_stages(
    input_shape: tuple[int, int, int],
    num_classes: int,
    block: Block,
    blocks: int,
    *,
    stem: int,
    width: int,
    name: str,
) -> keras.Model:
    """Build a pre-activation network for small images: `stem` channels, then stages of 1, 2 and 4 x `width`.

    Strided windows are padded as in `residual_network`.
    """
    require_stride(input_shape, 4, name)
    inputs, x = image_input(input_shape)
    x = norm_act(conv(x, stem, 3, name="stem"), "relu", name="stem")
    for stage, stride in enumerate((1, 2, 4), 1):
        for index in range(blocks):
            step = 2 if stage > 1 and index == 0 else 1
            opens = stage == 1 and index == 0
            x = block(x, stride * width, stride=step, opens=opens, name=f"stage{stage}_block{index + 1}")
        if stride < 4:
            x = mark(x, stride)
    x = mark(norm_act(x, "relu", name="last"), 4)
    return keras.Model(inputs, classify(x, num_classes), name=name)


@MODELS.register(
    resnet18_v2={"blocks": (2, 2, 2, 2), "bottleneck": False},
    resnet34_v2={"blocks": (3, 4, 6, 3), "bottleneck": False},
    resnet50_v2={"blocks": (3, 4, 6, 3), "bottleneck": True},
    resnet101_v2={"blocks": (3, 4, 23, 3), "bottleneck": True},
    resnet152_v2={"blocks": (3, 8, 36, 3), "bottleneck": True},
    resnet_v2_tiny={"blocks": (2, 1, 1, 1), "bottleneck": True, "width": 8},
)
def resnet_v2(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    bottleneck: bool,
    width: PositiveInt = 64,
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Pre-activation network of four stages, with bottlenecks from 50 layers (arXiv 1603.05027, 4.3).

    As in keras.applications the last block of a stage halves the image, not the first block of the next, and
    convolutions have a bias where no norm follows. Its explicit padding is not repeated: it puts the strided
    convolutions half a pixel elsewhere on maps of even size.
    """
    name = f"resnet{(3 if bottleneck else 2) * sum(blocks) + 2}_v2"
    small = has_small_stem(input_shape, stem)
    stride = 1 if small else 4  # of the first stage
    require_stride(input_shape, 8 * stride, name)
    inputs, x = image_input(input_shape)
    if small:
        x = conv(x, width, 3, name="stem")
    else:
        x = mark(conv(x, width, 7, stride=2, bias=True, name="stem"), 2)
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    x = norm_act(x, "relu", name="stem")
    block = partial(bottleneck_block if bottleneck else basic_block, bias=True)
    for stage, count in enumerate(blocks, 1):
        for index in range(count):
            halves = index == count - 1 and stage < len(blocks)
            if halves:
                x, stride = mark(x, stride), 2 * stride
            step, opens = 2 if halves else 1, stage == 1 and index == 0
            x = block(x, width * 2 ** (stage - 1), stride=step, opens=opens, name=f"stage{stage}_block{index + 1}")
    x = mark(norm_act(x, "relu", name="last"), stride)
    return keras.Model(inputs, classify(x, num_classes), name=name)
