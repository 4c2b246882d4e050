"""Augmentations that recolour pixels: any run of them is one affine map of colours per image.

Each draws a 4x4 matrix per image that maps (red, green, blue, 1). Matrices multiply, and values are clipped to 0..255
once, at the end. Grey images (one channel) take the same maps at red = green = blue: brightness and contrast work,
saturation, hue and grey change nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from pydantic import PositiveFloat

from pipeline.data.augment.compiled import compiled
from pipeline.data.augment.draw import Batch, per_pixel, uniform
from pipeline.registry import AUGMENTATIONS, Fraction

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in JPEG and Pillow
_YIQ = np.array([LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
_RGB = np.linalg.inv(_YIQ)


@dataclass(frozen=True)
class Color:
    """A drawn map of colours.

    Args:
        draw: function of each image's mean colour, float32 (B, 3), and a seed (2,) to float32 (B, 4, 4).
    """

    draw: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@AUGMENTATIONS.register
def brightness(*, amount: PositiveFloat = 0.2) -> Color:
    """Multiply by a factor between 1 - amount and 1 + amount, not below 0."""
    return Color(lambda mean, seed: brighten(_factor(seed, mean, amount)))


@AUGMENTATIONS.register
def contrast(*, amount: PositiveFloat = 0.2) -> Color:
    """Spread values about the image's mean luma by a factor between 1 - amount and 1 + amount, not below 0."""
    return Color(lambda mean, seed: spread(_factor(seed, mean, amount), mean))


@AUGMENTATIONS.register
def saturation(*, amount: PositiveFloat = 0.2) -> Color:
    """Move colours from or to their luma by a factor between 1 - amount and 1 + amount, not below 0."""
    return Color(lambda mean, seed: saturate(_factor(seed, mean, amount)))


@AUGMENTATIONS.register
def hue(*, amount: Fraction = 0.05) -> Color:
    """Turn the colour circle (the plane of constant luma in YIQ) by up to `amount` of a full turn either way."""

    def draw(mean: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        (angle,) = uniform(seed, mean.shape[0], (-2 * math.pi * amount, 2 * math.pi * amount))
        return turn_hue(angle)

    return Color(draw)


@AUGMENTATIONS.register
def grey(*, probability: Fraction = 0.1) -> Color:
    """Turn an image grey (its luma in every channel) with the given probability."""

    def draw(mean: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        (chance,) = uniform(seed, mean.shape[0], (0, 1))
        return saturate(tf.where(chance < probability, 0.0, 1.0))

    return Color(draw)


def brighten(factor: tf.Tensor) -> tf.Tensor:
    """Multiply by factor (B,): float32 (B, 4, 4)."""
    return _affine(per_matrix(factor) * tf.eye(3))


def spread(factor: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    """Scale distances to the luma of the mean colour (B, 3) by factor (B,): float32 (B, 4, 4)."""
    offset = (1 - factor) * tf.linalg.matvec(mean, tf.constant(LUMA))
    return _affine(per_matrix(factor) * tf.eye(3), tf.tile(offset[:, None], (1, 3)))


def saturate(factor: tf.Tensor) -> tf.Tensor:
    """Scale distances to each pixel's luma by factor (B,): float32 (B, 4, 4). Every row sums to 1."""
    luma = tf.constant([LUMA] * 3)
    return _affine(per_matrix(factor) * (tf.eye(3) - luma) + luma)


def turn_hue(angle: tf.Tensor) -> tf.Tensor:
    """Rotate the two chroma axes of YIQ by `angle` radians (B,): float32 (B, 4, 4)."""
    cosine, sine, zero, one = tf.cos(angle), tf.sin(angle), tf.zeros_like(angle), tf.ones_like(angle)
    turn = tf.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], axis=1)
    return _affine(tf.constant(_RGB, tf.float32) @ tf.reshape(turn, (-1, 3, 3)) @ tf.constant(_YIQ, tf.float32))


def stretch(image: tf.Tensor) -> tf.Tensor:
    """Stretch each channel's range of values to 0..255, as auto-contrast does: float32 (B, 4, 4)."""
    count = tf.shape(image)[0]
    low, high = (tf.broadcast_to(reduce(image, (1, 2)), (count, 3)) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = tf.where(high > low, tf.math.divide_no_nan(255.0, high - low), 1.0)
    return _affine(tf.linalg.diag(scale), tf.where(high > low, -low * scale, 0.0))


def per_matrix(values: tf.Tensor) -> tf.Tensor:
    """Reshape (B,) to (B, 1, 1), to be broadcast over matrices."""
    return values[:, None, None]


def recolor(batch: Batch, members: list[tuple[Color, tf.Tensor]]) -> Batch:
    """Draw every member, in order, and recolour the images once by the product."""
    image = batch["image"]
    matrix = tf.eye(4, batch_shape=[image.shape[0]])
    mean = tf.reduce_mean(image, axis=(1, 2))
    mean = tf.concat([tf.broadcast_to(mean, (image.shape[0], 3)), tf.ones_like(mean[:, :1])], axis=1)
    for member, seed in members:
        # The mean of recoloured pixels is the recoloured mean, so pixels are visited once.
        matrix = member.draw(tf.linalg.matvec(matrix, mean)[:, :3], seed) @ matrix
    return dict(batch, image=tf.ensure_shape(compiled(map_colors, image, matrix), image.shape))


def map_colors(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Map colours (B, H, W, C) by float32 (B, 4, 4) and clip to 0..255."""
    offset = matrix[:, None, None, : image.shape[-1], 3]
    if image.shape[-1] == 1:
        mapped = image * per_pixel(tf.reduce_sum(matrix[:, 0, :3], axis=-1))
    else:
        pixels = tf.reshape(image, (tf.shape(image)[0], -1, 3))  # one matrix product is twice as fast as planes
        mapped = tf.reshape(tf.matmul(pixels, matrix[:, :3, :3], transpose_b=True), tf.shape(image))
    return tf.clip_by_value(mapped + offset, 0.0, 255.0)


def _factor(seed: tf.Tensor, mean: tf.Tensor, amount: float) -> tf.Tensor:
    (factor,) = uniform(seed, mean.shape[0], (max(0.0, 1 - amount), 1 + amount))
    return factor


def _affine(linear: tf.Tensor, offset: tf.Tensor | None = None) -> tf.Tensor:
    linear = tf.convert_to_tensor(linear)
    offset = tf.zeros_like(linear[:, :, 0]) if offset is None else offset
    top = tf.concat([linear, offset[..., None]], axis=2)
    bottom = tf.broadcast_to(tf.constant([[[0.0, 0.0, 0.0, 1.0]]]), (tf.shape(top)[0], 1, 4))
    return tf.concat([top, bottom], axis=1)
