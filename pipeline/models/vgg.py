"""VGG networks: blocks of 3x3 convolutions with max pooling after each (arXiv 1409.1556)."""

from typing import Literal

import keras
from pydantic import PositiveFloat, PositiveInt

from pipeline.models.blocks import conv_relu, image_input, scaled
from pipeline.models.heads import classify_flat
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.registry import MODELS, Fraction

_CHANNELS = (64, 128, 256, 512, 512)


@MODELS.register(
    vgg11={"blocks": (1, 1, 2, 2, 2), "batch_norm": False},
    vgg13={"blocks": (2, 2, 2, 2, 2), "batch_norm": False},
    vgg16={"blocks": (2, 2, 3, 3, 3), "batch_norm": False},
    vgg19={"blocks": (2, 2, 4, 4, 4), "batch_norm": False},
    vgg11_bn={"blocks": (1, 1, 2, 2, 2), "batch_norm": True},
    vgg13_bn={"blocks": (2, 2, 2, 2, 2), "batch_norm": True},
    vgg16_bn={"blocks": (2, 2, 3, 3, 3), "batch_norm": True},
    vgg19_bn={"blocks": (2, 2, 4, 4, 4), "batch_norm": True},
    vgg_tiny={"blocks": (1, 1, 1, 1, 1), "batch_norm": True, "width": 0.125, "units": 16, "dropout": 0.0},
)
def vgg(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    blocks: tuple[int, ...],
    batch_norm: bool,
    width: PositiveFloat = 1.0,
    units: PositiveInt | None = None,
    stem: Literal["auto", "small", "imagenet"] = "imagenet",
    dropout: Fraction = 0.5,
) -> keras.Model:
    """Five blocks of 3x3 convolutions and two dense layers (arXiv 1409.1556, table 1).

    The two dense layers have `units` each: 4096, or 512 for small images. Unlike other families these keep all
    poolings, as VGGs for CIFAR do; the small stem leaves out the first two, for eleven times the multiply-accumulates.
    """
    name = f"vgg{sum(blocks) + 3}{'_bn' if batch_norm else ''}"
    skipped = 2 if has_small_stem(input_shape, stem) else 0
    require_stride(input_shape, 2 ** (5 - skipped), name)
    inputs, x = image_input(input_shape)
    stride = 1
    for index, (count, filters) in enumerate(zip(blocks, _CHANNELS, strict=True), 1):
        for layer in range(1, count + 1):
            x = conv_relu(x, scaled(filters, width), 3, batch_norm=batch_norm, name=f"stage{index}_block{layer}")
        if index > skipped:
            x = keras.layers.MaxPooling2D(padding="same", name=f"stage{index}_pool")(mark(x, stride))
            stride *= 2
    units = units or (512 if has_small_stem(input_shape, "auto") else 4096)
    return keras.Model(inputs, classify_flat(mark(x, stride), num_classes, units, dropout=dropout), name=name)
