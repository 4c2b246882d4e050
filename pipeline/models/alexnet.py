"""AlexNet (Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks")."""

from typing import Literal

import keras
from pydantic import PositiveFloat, PositiveInt

from pipeline.models.blocks import conv_relu, image_input, scaled
from pipeline.models.heads import classify_flat
from pipeline.models.stages import has_small_stem, mark, require_size, require_stride
from pipeline.registry import MODELS, Fraction


@MODELS.register(alexnet={}, alexnet_tiny={"width": 0.125, "units": 16, "dropout": 0.0})
def alexnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    width: PositiveFloat = 1.0,
    units: PositiveInt | None = None,
    batch_norm: bool = False,
    stem: Literal["auto", "small", "imagenet"] = "auto",
    dropout: Fraction = 0.5,
) -> keras.Model:
    """AlexNet as one tower, without local response normalisation (Krizhevsky 2012; arXiv 1404.5997).

    The two dense layers have `units` each: 4096, or 512 where the stem is the small one.
    """
    small = has_small_stem(input_shape, stem)
    if small:
        require_stride(input_shape, 8, "alexnet")
    else:
        require_size(input_shape, 63, "model alexnet ends in a map without pixels")
    # The published layout loses pixels at the edges; small images have none to lose.
    padding = "same" if small else "valid"
    inputs, x = image_input(input_shape)
    if not small:
        x = keras.layers.ZeroPadding2D(2, name="stem_pad")(x)
    kernel, stride = (3, 1) if small else (11, 4)
    options = {"stride": stride, "padding": padding, "batch_norm": batch_norm}
    x = conv_relu(x, scaled(64, width), kernel, **options, name="stage1_block1")
    for stage, channels in enumerate(((192,), (384, 256, 256)), 2):
        x = mark(x, stride)
        x = keras.layers.MaxPooling2D(3, strides=2, padding=padding, name=f"stage{stage}_pool")(x)
        stride *= 2
        for index, filters in enumerate(channels, 1):
            size = 5 if stage == 2 else 3
            name = f"stage{stage}_block{index}"
            x = conv_relu(x, scaled(filters, width), size, batch_norm=batch_norm, name=name)
    x = keras.layers.MaxPooling2D(3, strides=2, padding=padding, name="last_pool")(mark(x, stride))
    units = units or (512 if small else 4096)
    return keras.Model(inputs, classify_flat(mark(x, 2 * stride), num_classes, units, dropout=dropout), name="alexnet")
