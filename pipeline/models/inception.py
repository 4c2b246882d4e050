"""Inception networks: branches of several kernel sizes side by side (arXiv 1409.4842 and 1512.00567)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
from pydantic import PositiveFloat

from pipeline.models.blocks import conv_norm, image_input, scaled
from pipeline.models.heads import classify
from pipeline.models.stages import has_small_stem, mark, require_size, require_stride
from pipeline.registry import MODELS, Fraction

# A convolution: channels, kernel, and where it is not 1 the stride. A pooling: its kind, kernel, and the stride.
_Step = tuple[Any, ...]
_POOLS = {"average": keras.layers.AveragePooling2D, "max": keras.layers.MaxPooling2D}

# Channels of each module by stage: 1x1, before and of 3x3, before and of 5x5, after pooling (arXiv 1409.4842, table 1).
_V1 = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
# Inception v3: channels after pooling of the first modules, channels inside the 7x7 branches of the second ones.
_V3_POOLED, _V3_INSIDE = (32, 64, 64), (128, 160, 160, 192)


@dataclass(frozen=True)
class _Parts:
    """What the modules of one network are built with; `padding` is that of every layer that strides."""

    width: float
    padding: str = "same"
    scale: bool = True

    def conv(self, x: Any, filters: int, kernel: Any, *, padding: str = "same", stride: int = 1, name: str) -> Any:
        """Convolve to `filters` times the width, normalise, apply ReLU."""
        filters = scaled(filters, self.width)
        options = {"stride": stride, "padding": padding, "epsilon": 1e-3, "scale": self.scale}  # the published epsilon
        return conv_norm(x, filters, kernel, name=name, **options)

    def chain(self, x: Any, steps: Sequence[_Step], name: str) -> Any:
        """Apply convolutions and poolings one after the other."""
        for index, (what, kernel, *strides) in enumerate(steps, 1):
            options = {"padding": self.padding if strides else "same", "name": f"{name}_{index}"}
            stride = strides[0] if strides else 1
            if what in _POOLS:
                x = _POOLS[what](kernel, strides=stride, **options)(x)
            else:
                x = self.conv(x, what, kernel, stride=stride, **options)
        return x

    def module(self, x: Any, branches: Sequence[Sequence[_Step]], name: str) -> Any:
        """Join the channels of several chains that read the same tensor."""
        made = [self.chain(x, steps, f"{name}_branch{index}") for index, steps in enumerate(branches, 1)]
        return keras.layers.Concatenate(name=f"{name}_concat")(made)


@MODELS.register(googlenet={"blocks": (2, 5, 2)}, googlenet_tiny={"blocks": (1, 1, 1), "width": 0.125})
def googlenet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    width: PositiveFloat = 1.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.2,
) -> keras.Model:
    """GoogLeNet, Inception v1: modules of 1x1, 3x3 and pooling branches (arXiv 1409.4842, table 1).

    As torchvision has it: with batch norm, a 3x3 kernel for the published 5x5, and no auxiliary classifiers.
    """
    small = has_small_stem(input_shape, stem)
    stride = 1 if small else 4  # before the first halving between stages
    require_stride(input_shape, 8 * stride, "googlenet")
    parts = _Parts(width)
    inputs, x = image_input(input_shape)
    if small:
        x = parts.conv(x, 64, 3, name="stem_1")
    else:
        x = mark(parts.conv(x, 64, 7, stride=2, name="stem_1"), 2)
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    x = parts.chain(x, [(64, 1), (192, 3)], "stem_2")
    for stage, (count, rows) in enumerate(zip(blocks, _V1, strict=True), 1):
        # The last pooling is of 2x2 pixels.
        x = keras.layers.MaxPooling2D(2 if stage == 3 else 3, 2, "same", name=f"stage{stage}_pool")(mark(x, stride))
        stride *= 2
        for block, (one, before3, three, before5, five, pooled) in enumerate(rows[:count], 1):
            branches = [[(one, 1)], [(before3, 1), (three, 3)], [(before5, 1), (five, 3)], [("max", 3), (pooled, 1)]]
            x = parts.module(x, branches, f"stage{stage}_block{block}")
    return keras.Model(inputs, classify(mark(x, stride), num_classes, dropout=dropout), name="googlenet")


@MODELS.register(inception_v3={"blocks": (3, 4, 2)}, inception_v3_tiny={"blocks": (1, 1, 1), "width": 0.125})
def inception_v3(
    input_shape: tuple[int, int, int] = (299, 299, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    width: PositiveFloat = 1.0,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.2,
) -> keras.Model:
    """Inception v3: modules whose larger kernels are factorised (arXiv 1512.00567, table 1)."""
    small = has_small_stem(input_shape, stem)
    if small:
        require_stride(input_shape, 8, "inception_v3")
    else:
        require_size(input_shape, 75, "model inception_v3 ends in a map without pixels")
    # The published layout loses pixels at the edges; small images have none to lose. Its norms have no scale.
    parts = _Parts(width, padding="same" if small else "valid", scale=False)
    inputs, x = image_input(input_shape)
    x = _v3_stem(x, parts, small)
    stride = 1 if small else 4
    x = keras.layers.MaxPooling2D(3, strides=2, padding=parts.padding, name="stage1_pool")(mark(x, stride))
    for block, pooled in enumerate(_V3_POOLED[: blocks[0]], 1):
        branches = [[(64, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)], [("average", 3), (pooled, 1)]]
        x = parts.module(x, branches, f"stage1_block{block}")
    reduction = [[(384, 3, 2)], [(64, 1), (96, 3), (96, 3, 2)], [("max", 3, 2)]]
    x = parts.module(mark(x, 2 * stride), reduction, "stage2_reduction")
    for block, inside in enumerate(_V3_INSIDE[: blocks[1]], 1):
        x = parts.module(x, _factorised(inside), f"stage2_block{block}")
    reduction = [[(192, 1), (320, 3, 2)], [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)], [("max", 3, 2)]]
    x = parts.module(mark(x, 4 * stride), reduction, "stage3_reduction")
    for block in range(1, blocks[2] + 1):
        x = _expanded(x, parts, f"stage3_block{block}")
    return keras.Model(inputs, classify(mark(x, 8 * stride), num_classes, dropout=dropout), name="inception_v3")


def _v3_stem(x: Any, parts: _Parts, small: bool) -> Any:
    x = parts.conv(x, 32, 3, stride=1 if small else 2, padding=parts.padding, name="stem_1")
    x = parts.conv(x, 32, 3, padding=parts.padding, name="stem_2")
    x = parts.conv(x, 64, 3, name="stem_3")
    if not small:
        x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(mark(x, 2))
    x = parts.conv(x, 80, 1, name="stem_4")
    return parts.conv(x, 192, 3, padding=parts.padding, name="stem_5")


def _factorised(inside: int) -> list[list[_Step]]:
    """Return the branches of figure 6: 7x7 kernels as 1x7 and 7x1, once and twice."""
    row, column = (1, 7), (7, 1)
    once = [(inside, 1), (inside, row), (192, column)]
    twice = [(inside, 1), (inside, column), (inside, row), (inside, column), (192, row)]
    return [[(192, 1)], once, twice, [("average", 3), (192, 1)]]


def _expanded(x: Any, parts: _Parts, name: str) -> Any:
    """Build the module of figure 7, whose 3x3 kernels are a 1x3 and a 3x1 side by side."""
    split = [[(384, (1, 3))], [(384, (3, 1))]]
    made = [
        parts.chain(x, [(320, 1)], f"{name}_branch1"),
        parts.module(parts.chain(x, [(384, 1)], f"{name}_branch2"), split, f"{name}_branch2_split"),
        parts.module(parts.chain(x, [(448, 1), (384, 3)], f"{name}_branch3"), split, f"{name}_branch3_split"),
        parts.chain(x, [("average", 3), (192, 1)], f"{name}_branch4"),
    ]
    return keras.layers.Concatenate(name=f"{name}_concat")(made)
