"""Gradients of 1×1 convolutions as matrix products, which they are.

oneDNN has no fast kernel for the filter gradient of a convolution with few output channels (48 → 8 channels: up to
five times slower than the matrix product), nor for the input gradient of a strided 1×1 convolution. MobileNets are
made of the former, the shortcuts of residual networks are the latter. As with the fused norm, only the layer
instances are changed, and put back afterwards.

And with AVX-512, TensorFlow 2.21's oneDNN writes past its memory in the filter gradient of a strided 1×1 convolution
of one image (seen with 1 to 12 input channels, not with 16 and more, nor with two images). A gradient that is taken
eagerly computes it, wanted or not.
"""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf

from pipeline.training.fused_norm import all_layers, fused_norm


@contextlib.contextmanager
def pointwise_products(model: keras.Model) -> Iterator[int]:
    """Compute the gradients of the model's 1×1 convolutions as products; yields how many layers were changed.

    A function that was traced inside keeps them after the end.
    """
    changed = [layer for layer in all_layers(model) if _changeable(layer)]
    for layer in changed:
        vars(layer)["convolution_op"] = functools.partial(_convolve, stride=layer.strides[0])
    try:
        yield len(changed)
    finally:
        for layer in changed:
            del vars(layer)["convolution_op"]


@contextlib.contextmanager
def faster_ops(model: keras.Model) -> Iterator[None]:
    """Use everything that makes training steps faster on a CPU with oneDNN: fused norms and pointwise products."""
    with fused_norm(model), pointwise_products(model):
        yield


def _convolve(inputs: tf.Tensor, kernel: tf.Tensor, *, stride: int) -> tf.Tensor:
    if stride > 1:
        # A pooling over one pixel skips the others, and its gradient is much faster than that of a strided slice.
        inputs = tf.nn.avg_pool2d(inputs, 1, stride, "VALID")
    return pointwise_conv(inputs, tf.convert_to_tensor(kernel))


@tf.custom_gradient
def pointwise_conv(inputs: tf.Tensor, kernel: tf.Tensor):
    """Convolve (N, H, W, C) by (1, 1, C, D)."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        channels, filters = kernel.shape[2:]
        of_inputs = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=[1, 1, 1, 1], padding="VALID"
        )
        pixels, answers = tf.reshape(inputs, (-1, channels)), tf.reshape(upstream, (-1, filters))
        return of_inputs, tf.reshape(tf.matmul(pixels, answers, transpose_a=True), kernel.shape)

    return tf.nn.conv2d(inputs, kernel, 1, "VALID"), gradient


def _changeable(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.kernel_size == (1, 1)
        and layer.strides[0] == layer.strides[1]
        and layer.groups == 1
        and layer.data_format == "channels_last"
    )
