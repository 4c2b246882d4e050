"""Gaussian smoothing of whole batches, as one matrix product for each side."""

import tensorflow as tf


def smooth(values: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
    """Smooth float32 (B, H, W, C) by a Gaussian of `sigma` pixels, (B,) or (1,), mirrored at the borders."""
    count, height, width, channels = values.shape
    for size, other in ((height, width), (width, height)):
        rows = tf.matmul(kernel(size, sigma), tf.reshape(values, (count, size, other * channels)))
        values = tf.transpose(tf.reshape(rows, (count, size, other, channels)), (0, 2, 1, 3))
    return values


def kernel(size: int, sigma: tf.Tensor) -> tf.Tensor:
    """Return the matrices that smooth a side of `size` pixels, float32 (B, size, size): every row sums to 1."""
    pixels = tf.range(size, dtype=tf.float32)
    ahead, mirrored = pixels[:, None] - pixels[None, :], pixels[:, None] + pixels[None, :] + 1
    exponent = -0.5 / tf.square(sigma)[:, None, None]
    weights = sum(tf.exp(exponent * tf.square(steps)) for steps in (ahead, mirrored, mirrored - 2 * size))
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)
