"""ShuffleNet v2: half of the channels pass each block untouched, and a shuffle mixes the halves (arXiv 1807.11164)."""

from typing import Any, Literal

import keras

from pipeline.models.blocks import conv_norm, depthwise_norm, image_input
from pipeline.models.heads import classify
from pipeline.models.layers.mixing import channel_shuffle
from pipeline.models.stages import has_small_stem, mark, require_stride
from pipeline.registry import MODELS


# Channels of the stem, of stages 2 to 4 and of the last convolution (table 5).
@MODELS.register(
    shufflenet_v2_x0_5={"filters": (24, 48, 96, 192, 1024), "blocks": (4, 8, 4)},
    shufflenet_v2_x1_0={"filters": (24, 116, 232, 464, 1024), "blocks": (4, 8, 4)},
    shufflenet_v2_x1_5={"filters": (24, 176, 352, 704, 1024), "blocks": (4, 8, 4)},
    shufflenet_v2_x2_0={"filters": (24, 244, 488, 976, 2048), "blocks": (4, 8, 4)},
    shufflenet_v2_tiny={"filters": (8, 16, 32, 64, 64), "blocks": (2, 3, 1)},
)
def shufflenet_v2(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    *,
    filters: tuple[int, ...],
    blocks: tuple[int, ...],
    stem: Literal["auto", "small", "imagenet"] = "auto",
) -> keras.Model:
    """Blocks that change half of the channels and shuffle both halves (arXiv 1807.11164, figure 3c and d).

    Channel pruning leaves whole what is shuffled, and narrows the inside of the blocks.
    """
    first, *others, last = filters
    small = has_small_stem(input_shape, stem)
    stride = 1 if small else 4
    require_stride(input_shape, 8 * stride, "shufflenet_v2")
    inputs, x = image_input(input_shape)
    x = conv_norm(x, first, 3, stride=1 if small else 2, name="stem")
    if not small:
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(mark(x, 2))
    for stage, (count, channels) in enumerate(zip(blocks, others, strict=True), 2):
        x = mark(x, stride)
        stride *= 2
        for index in range(count):
            x = _block(x, channels, 1 if index else 2, f"stage{stage}_block{index + 1}")
    x = conv_norm(mark(x, stride), last, 1, name="last")
    return keras.Model(inputs, classify(x, num_classes), name="shufflenet_v2")


def _block(x: Any, filters: int, stride: int, name: str) -> Any:
    half = filters // 2
    if stride == 1:
        kept, y = x[..., :half], x[..., half:]
    else:
        kept = depthwise_norm(x, 3, stride=stride, activation=None, name=f"{name}_left_depthwise")
        kept, y = conv_norm(kept, half, 1, name=f"{name}_left"), x
    y = conv_norm(y, half, 1, name=f"{name}_1")
    y = depthwise_norm(y, 3, stride=stride, activation=None, name=f"{name}_2")
    y = conv_norm(y, half, 1, name=f"{name}_3")
    return channel_shuffle(keras.layers.Concatenate(name=f"{name}_join")([kept, y]), 2, name=f"{name}_shuffle")
