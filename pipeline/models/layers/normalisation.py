"""Norms that Keras has no layer of its own for, from layers that it has."""

from typing import Any

import keras
from keras import ops


def instance_norm(x: Any, *, epsilon: float = 1e-5, name: str) -> Any:
    """Give each channel of each image mean 0 and variance 1, then a learned scale and offset (arXiv 1607.08022)."""
    return keras.layers.GroupNormalization(groups=-1, epsilon=epsilon, name=name)(x)


def local_response_norm(
    x: Any, *, size: int = 5, bias: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, name: str
) -> Any:
    """Divide each value of (B, H, W, C) by (bias + alpha * sum of squares over `size` channels around its own)^beta.

    The defaults are those of Krizhevsky et al. 2012, "ImageNet classification", section 3.3. `size` is odd; channels
    beyond the first and last count as zero. The squares are not averaged: PyTorch's alpha is `size` times ours.
    """
    height, width, channels = x.shape[1:]
    # float32 under every policy: next to a bias of 2, bfloat16 would lose most sums whole.
    squares = keras.layers.Multiply(dtype="float32", name=f"{name}_square")([x, x])
    # Channels become columns of a picture, so that a pooling layer can slide over them.
    squares = keras.layers.Reshape((height * width, channels, 1), dtype="float32", name=f"{name}_lay")(squares)
    squares = keras.layers.ZeroPadding2D((0, size // 2), dtype="float32", name=f"{name}_pad")(squares)
    means = keras.layers.AveragePooling2D((1, size), strides=1, dtype="float32", name=f"{name}_mean")(squares)
    means = keras.layers.Reshape((height, width, channels), dtype="float32", name=f"{name}_raise")(means)
    return keras.layers.Multiply(name=name)([x, ops.power(bias + alpha * size * means, -beta)])
