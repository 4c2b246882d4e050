"""DenseNets: every layer reads all layers of its block (arXiv 1608.06993), for ImageNet and for small images."""

from typing import Any, Literal

import keras

from pipeline.models.blocks import conv, image_input, norm_act
from pipeline.models.heads import classify
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.registry import MODELS


@MODELS.register(
    densenet121={"blocks": (6, 12, 24, 16), "growth": 32},
    densenet161={"blocks": (6, 12, 36, 24), "growth": 48},
    densenet169={"blocks": (6, 12, 32, 32), "growth": 32},
    densenet201={"blocks": (6, 12, 48, 32), "growth": 32},
    densenet_tiny={"blocks": (2, 1, 1, 1), "growth": 8},
)
def densenet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    growth: int,
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Densely connected network of four blocks (arXiv 1608.06993, table 1).

    A norm before its convolution cannot fold into one: it stays in the file, a multiplication and an addition each.
    """
    name = f"densenet{2 * sum(blocks) + len(blocks) + 1}"
    small = has_small_stem(input_shape, stem)
    stride = 1 if small else 4  # of the first block
    require_stride(input_shape, 8 * stride, name)
    inputs, x = image_input(input_shape)
    if small:
        x = conv(x, 2 * growth, 3, name="stem")
    else:
        # Not padding="same": it would put the odd pixel to the other side than the published network.
        x = keras.layers.ZeroPadding2D(3, name="stem_pad")(x)
        x = conv(x, 2 * growth, 7, stride=2, padding="valid", name="stem")
        x = mark(norm_act(x, "relu", name="stem"), 2)
        x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    x = _dense_stages(x, blocks, growth, stride)
    return keras.Model(inputs, classify(x, num_classes), name=name)


@MODELS.register(
    densenet_bc100={"layers": 16, "growth": 12},
    densenet_bc190={"layers": 31, "growth": 40},
    densenet_bc_tiny={"layers": 1, "growth": 8},
)
def densenet_bc(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    layers: int,
    growth: int,
) -> keras.Model:
    """Densely connected network for small images: three blocks with bottlenecks (arXiv 1608.06993, table 2)."""
    name = f"densenet_bc{6 * layers + 4}"
    require_stride(input_shape, 4, name)
    inputs, x = image_input(input_shape)
    x = conv(x, 2 * growth, 3, name="stem")
    x = _dense_stages(x, (layers,) * 3, growth, 1)
    return keras.Model(inputs, classify(x, num_classes), name=name)


def _dense_stages(x: Any, blocks: tuple[int, ...], growth: int, stride: int) -> Any:
    """Stack dense blocks, each at half the resolution of the one before, and mark what each gives, normalised."""
    for index, count in enumerate(blocks, 1):
        name = f"stage{index}"
        if index > 1:
            x = conv(x, x.shape[-1] // 2, 1, name=f"{name}_transition")
            # "same" matters for odd sizes only: the mean of a border pixel is over the pixels that are there.
            x = keras.layers.AveragePooling2D(2, padding="same", name=f"{name}_pool")(x)
            stride *= 2
        for block in range(1, count + 1):
            x = _dense_layer(x, growth, f"{name}_block{block}")
        x = mark(norm_act(x, "relu", name=f"{name}_last"), stride)
    return x


def _dense_layer(x: Any, growth: int, name: str) -> Any:
    y = norm_act(x, "relu", name=f"{name}_1")
    y = norm_act(conv(y, 4 * growth, 1, name=f"{name}_1"), "relu", name=f"{name}_2")
    y = conv(y, growth, 3, name=f"{name}_2")
    return keras.layers.Concatenate(name=f"{name}_concat")([x, y])
