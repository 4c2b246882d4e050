"""U-Net: a backbone's stages as encoder, and a decoder with skip connections to full resolution."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from pydantic import PositiveInt

from pipeline.errors import UserError
from pipeline.models.blocks import conv_norm
from pipeline.models.heads import pixel_logits
from pipeline.models.stages import stages
from pipeline.registry import MODELS


@MODELS.register
def unet(
    input_shape: tuple[int, int, int] = (96, 96, 3),
    num_classes: int = 11,
    *,
    backbone: str = "resnet20",
    decoder_width: PositiveInt = 16,
) -> keras.Model:
    """Class of every pixel, from any backbone's stages and a decoder with skips (arXiv 1505.04597).

    The decoder has `decoder_width` channels at full resolution and twice as many at each coarser level.
    """
    inputs, levels = _encoder(input_shape, num_classes, backbone)
    coarsest = max(levels)
    x = levels[coarsest]
    for level in reversed(range(coarsest)):
        if level in levels:
            x = _up(x, levels[level].shape[1:3], f"up{level}")
            x = keras.layers.Concatenate(name=f"up{level}_skip")([x, levels[level]])
        else:
            x = _up(x, [math.ceil(side / 2**level) for side in input_shape[:2]], f"up{level}")
        x = _convolve_twice(x, decoder_width * 2**level, f"decoder{level}")
    return keras.Model(inputs, pixel_logits(x, num_classes), name="unet")


def _encoder(input_shape: tuple[int, int, int], num_classes: int, backbone: str) -> tuple[Any, dict[int, Any]]:
    if backbone not in MODELS.names():
        raise UserError(f"model.backbone: there is no model {backbone!r}; {MODELS.nearest(backbone)}", usage=True)
    # The backbone's own head is built too, and left out of the U-Net, which starts from the stages.
    encoder = MODELS.build(backbone, input_shape, num_classes)
    levels = stages(encoder)
    # One level alone, a vision transformer's patches, has nothing to take the outlines of classes from.
    if len(levels) < 2 or len(encoder.output.shape) != 2:
        raise UserError(
            f"model.backbone: unet cannot use {backbone!r}; give a classification network with stages, "
            "such as resnet20 or mobilenet_v2",
            usage=True,
        )
    return encoder.input, levels


def _up(x: Any, size: Sequence[int], name: str) -> Any:
    # Not keras.layers.Resizing: its call() defaults to training=True, and Keras hands that on to every layer after it,
    # so that their norms train in a plain model(x). Not "nearest", which is many operators in a .tflite file. float32
    # under every policy: XLA gives the gradient of a bfloat16 resize as float32 and then refuses to compile it.
    x = keras.layers.UpSampling2D(interpolation="bilinear", dtype="float32", name=name)(x)
    extra = [doubled - wanted for doubled, wanted in zip(x.shape[1:3], size, strict=True)]
    if max(extra) > 0:  # an odd size was rounded up when it was halved
        x = keras.layers.Cropping2D([(0, max(pixels, 0)) for pixels in extra], name=f"{name}_crop")(x)
    if min(extra) < 0:  # a backbone without padding lost pixels at every edge
        missing = [max(-pixels, 0) for pixels in extra]
        sides = [(pixels // 2, pixels - pixels // 2) for pixels in missing]
        x = keras.layers.ZeroPadding2D(sides, name=f"{name}_pad")(x)
    return x


def _convolve_twice(x: Any, filters: int, name: str) -> Any:
    return conv_norm(conv_norm(x, filters, 3, name=f"{name}_1"), filters, 3, name=f"{name}_2")
