"""The int8 score so far: a model whose kernels are for a while those of an int8 file."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

_LEVELS = 127  # symmetric, without the lowest level: that is what integer kernels want
_SMALLEST = 1e-12  # a channel whose weights are all zero still needs a scale
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


@contextlib.contextmanager
def int8_kernels(model: keras.Model) -> Iterator[None]:
    """Give a model the kernels of an int8 file, one scale per output channel, and its own back afterwards, bit by bit.

    Kernels only: activations stay float, so the score is one that the file can hardly beat. A batch norm behind a
    kernel scales whole channels, which per-channel rounding does not notice: nothing has to be folded.
    """
    # In place, not on a copy: the validation step is traced once, and holds under every strategy.
    own = {id(kernel): (kernel, axes, kernel.numpy()) for kernel, axes in _kernels(model)}
    try:
        for kernel, axes, value in own.values():
            kernel.assign(round_kernel(value, axes))
        yield
    finally:
        for kernel, _, value in own.values():
            kernel.assign(value)


def round_kernel(kernel: np.ndarray, channels: tuple[int, ...]) -> np.ndarray:
    """Round a kernel to 255 levels, symmetric around zero, with one scale for each position on the axes `channels`."""
    others = tuple(axis for axis in range(kernel.ndim) if axis not in channels)
    scale = np.maximum(np.abs(kernel).max(axis=others, keepdims=True), _SMALLEST) / _LEVELS
    return (np.rint(kernel / scale) * scale).astype(kernel.dtype)


def _kernels(model: keras.Model) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """Yield each kernel with the axes of its output channels."""
    for layer in model._flatten_layers():
        for name in _KERNELS:
            kernel = getattr(layer, name, None)
            if isinstance(kernel, keras.Variable):
                last = len(kernel.shape) - 1
                depthwise = name == "depthwise_kernel" or isinstance(layer, _DEPTHWISE)
                if depthwise:  # (..., C, multiplier)
                    yield kernel, (last - 1, last)
                else:  # (..., out, in) where transposed
                    yield kernel, (last - 1 if isinstance(layer, _TRANSPOSED) else last,)
