"""ConvNeXt: a residual network with the ways of a transformer (arXiv 2201.03545)."""

from functools import partial
from typing import Any, Literal

import keras
from pydantic import PositiveFloat

from pipeline.models.blocks import image_input
from pipeline.models.heads import dense_logits
from pipeline.models.layers.regularisation import stochastic_depth
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.registry import MODELS, Fraction

_init = partial(keras.initializers.TruncatedNormal, stddev=0.02)


# convnext_tiny is the published one; the first row is the one for tests and 32x32 images.
@MODELS.register(
    convnext_micro_tiny={"blocks": (1, 1, 2, 1), "filters": (8, 16, 32, 64), "layer_scale": 0.5},
    convnext_tiny={"blocks": (3, 3, 9, 3), "filters": (96, 192, 384, 768)},
    convnext_small={"blocks": (3, 3, 27, 3), "filters": (96, 192, 384, 768)},
    convnext_base={"blocks": (3, 3, 27, 3), "filters": (128, 256, 512, 1024)},
    convnext_large={"blocks": (3, 3, 27, 3), "filters": (192, 384, 768, 1536)},
)
def convnext(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    filters: tuple[int, ...],
    stem: Literal["auto", "small", "imagenet"] = "auto",
    layer_scale: PositiveFloat = 1e-6,
    stochastic_depth: Fraction = 0.1,
) -> keras.Model:
    """Four stages of 7x7 depthwise blocks with layer normalisation and GELU (arXiv 2201.03545).

    `stochastic_depth` is the rate of the last block, and grows from 0 at the first; the paper has 0.1 for tiny, 0.4
    for small, 0.5 for base and large. `layer_scale` is what each block's branch starts to be multiplied by.
    """
    small = has_small_stem(input_shape, stem)
    stride = 1 if small else 4
    require_stride(input_shape, 8 * stride, "convnext")
    inputs, x = image_input(input_shape)
    x = _norm(_conv(x, filters[0], 3 if small else 4, "stem_conv", stride=stride), "stem_norm")
    rates = iter(stochastic_depth * index / max(sum(blocks) - 1, 1) for index in range(sum(blocks)))
    for stage, (count, channels) in enumerate(zip(blocks, filters, strict=True), 1):
        if stage > 1:
            x = _norm(mark(x, stride), f"stage{stage}_norm")
            x = _conv(x, channels, 2, f"stage{stage}_conv", stride=2)
            stride *= 2
        for index in range(count):
            x = _block(x, layer_scale, next(rates), f"stage{stage}_block{index + 1}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(mark(x, stride))
    return keras.Model(inputs, dense_logits(_norm(x, "head_norm"), num_classes), name="convnext")


def _block(x: Any, layer_scale: float, drop: float, name: str) -> Any:
    """Filter each channel 7x7, normalise, expand four times, project, scale, add (figure 4)."""
    channels = x.shape[-1]
    y = keras.layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=_init(), name=f"{name}_depthwise")(x)
    y = _conv(_norm(y, f"{name}_norm"), 4 * channels, 1, f"{name}_expand")
    y = keras.layers.Activation("gelu", name=f"{name}_gelu")(y)
    y = _conv(y, channels, 1, f"{name}_project")
    # A number per channel: Keras has no public layer for that, and a depthwise 1x1 convolution is one.
    scale = keras.layers.DepthwiseConv2D(
        1, use_bias=False, depthwise_initializer=keras.initializers.Constant(layer_scale), name=f"{name}_scale"
    )
    return keras.layers.Add(name=f"{name}_add")([x, stochastic_depth(scale(y), drop, name=f"{name}_drop")])


def _conv(x: Any, filters: int, kernel_size: int, name: str, *, stride: int = 1) -> Any:
    return keras.layers.Conv2D(
        filters, kernel_size, strides=stride, padding="same", kernel_initializer=_init(), name=name
    )(x)


def _norm(x: Any, name: str) -> Any:
    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)(x)
