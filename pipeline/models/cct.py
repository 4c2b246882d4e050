"""Compact convolutional transformers: convolutions make the tokens, so that small data sets do (arXiv 2104.05704)."""

import keras

from pipeline.models.blocks import conv, image_input
from pipeline.models.heads import dense_logits
from pipeline.models.stages import mark, require_stride
from pipeline.models.transformer import add_positions, encoder_blocks, layer_norm, sequence_pool
from pipeline.registry import MODELS, Fraction

_STEM = 64  # channels of all tokenizing convolutions but the last


@MODELS.register(
    cct_tiny={"blocks": 2, "heads": 4, "ratio": 2, "size": 32, "kernel": 3, "convolutions": 2},
    cct_2_3x2={"blocks": 2, "heads": 2, "ratio": 1, "size": 128, "kernel": 3, "convolutions": 2},
    cct_4_3x2={"blocks": 4, "heads": 2, "ratio": 1, "size": 128, "kernel": 3, "convolutions": 2},
    cct_6_3x1={"blocks": 6, "heads": 4, "ratio": 2, "size": 256, "kernel": 3, "convolutions": 1},
    cct_6_3x2={"blocks": 6, "heads": 4, "ratio": 2, "size": 256, "kernel": 3, "convolutions": 2},
    cct_7_3x1={"blocks": 7, "heads": 4, "ratio": 2, "size": 256, "kernel": 3, "convolutions": 1},
    cct_7_3x2={"blocks": 7, "heads": 4, "ratio": 2, "size": 256, "kernel": 3, "convolutions": 2},
    cct_14_7x2={"blocks": 14, "heads": 6, "ratio": 3, "size": 384, "kernel": 7, "convolutions": 2},
)
def cct(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    blocks: int,
    heads: int,
    ratio: int,
    size: int,
    kernel: int,
    convolutions: int,
    dropout: Fraction = 0.0,
    stochastic_depth: Fraction = 0.1,
) -> keras.Model:
    """Transformer over tokens that convolutions make, CCT-blocks/kernel x convolutions (arXiv 2104.05704, 3.3).

    Each convolution halves the image by its pooling, and once more by its stride where the kernel is 7 (for 224x224).
    There are as many position embeddings as tokens; a weighted mean of the tokens gives the answer. Blocks normalise
    before each branch, as in the paper; the authors' code also normalises the sum between the branches.
    """
    name = f"cct_{blocks}_{kernel}x{convolutions}"
    step = 2 if kernel > 3 else 1
    require_stride(input_shape, (2 * step) ** convolutions, name)
    inputs, x = image_input(input_shape)
    stride = 1
    for index in range(1, convolutions + 1):
        channels = size if index == convolutions else _STEM
        x = conv(x, channels, kernel, stride=step, name=f"tokens{index}")
        x = keras.layers.Activation("relu", name=f"tokens{index}_relu")(x)
        x, stride = mark(x, stride * step), 2 * stride * step
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name=f"tokens{index}_pool")(x)
        if step > 1 and index < convolutions:  # or the next convolution gives this level
            x = mark(x, stride)
    map_shape = x.shape[1:]
    x = add_positions(inputs, keras.layers.Reshape((-1, size), name="tokens")(x))
    if dropout:
        x = keras.layers.Dropout(dropout, name="positions_dropout")(x)
    for block in encoder_blocks(blocks, heads, ratio * size, dropout=dropout, stochastic_depth=stochastic_depth):
        x = block(x)
    x = layer_norm(x, name="last_norm")
    x = mark(keras.layers.Reshape(map_shape, name="last_map")(x), stride)
    x = sequence_pool(keras.layers.Reshape((-1, size), name="last_tokens")(x))
    return keras.Model(inputs, dense_logits(x, num_classes), name=name)
