"""Augmentation policies: operations drawn from a fixed set, image by image."""

import math
from typing import Literal

import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveInt

from pipeline.data.augment.color import brighten, map_colors, saturate, spread, stretch
from pipeline.data.augment.draw import Batch, Step
from pipeline.data.augment.geometric import Geometric, matrices, rotate
from pipeline.data.augment.nonlinear import equalize, posterize, sharpen, solarize
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS

_MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_AFFINE = ("brightness", "contrast", "color", "auto_contrast")
_OTHERS = ("posterize", "solarize", "equalize", "sharpness")
_OPERATIONS = ("identity", *_MOVES, *_AFFINE, *_OTHERS)  # the paper's fourteen
# What magnitude 10 means, as in AutoAugment (arXiv 1805.09501).
_SHEAR, _SHIFT, _ROTATION, _ENHANCEMENT, _POSTERIZED_BITS = 0.3, 0.45, math.radians(30), 0.9, 4


@AUGMENTATIONS.register
def rand_augment(
    *,
    operations: PositiveInt = 2,
    magnitude: NonNegativeFloat = 9.0,
    fill: Literal["reflect", "nearest", "black"] = "reflect",
) -> tuple[Geometric, Step]:
    """Apply so many operations of one magnitude, 0 to 10, drawn per image (Cubuk et al., arXiv 1909.13719).

    Drawn with replacement from shear and translation in x and y, rotation, brightness, contrast, color, posterize,
    solarize, auto-contrast, equalize, sharpness and identity. All motions are made first, as one warp, the others
    after it in the order drawn: the two kinds commute except at the borders.
    """
    if magnitude > 10:
        raise UserError(f"rand_augment: magnitude must lie between 0 and 10, not {magnitude}")
    strength = magnitude / 10

    def draw_moves(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        matrix = tf.eye(3, batch_shape=[shape[0]])
        for operation, sign in _draw(seed, operations, shape[0]):
            matrix = matrix @ _motion(operation, sign * strength, shape)
        return matrix

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        image = batch["image"]
        for operation, sign in _draw(seed, operations, image.shape[0]):
            image = _recolor(image, operation, sign, strength)
        return dict(batch, image=image)

    return Geometric(draw_moves, fill), Step(apply)


def _draw(seed: tf.Tensor, operations: int, count: int) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Draw for each slot the operations, int32 (B,), and their signs, float32 (B,)."""
    shape = (operations, count)
    chosen = tf.random.stateless_uniform(shape, seed, 0, len(_OPERATIONS), tf.int32)
    positive = tf.random.stateless_uniform(shape, tf.random.experimental.stateless_fold_in(seed, 1)) < 0.5
    return list(zip(tf.unstack(chosen), tf.unstack(tf.where(positive, 1.0, -1.0)), strict=True))


def _motion(operation: tf.Tensor, strength: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    def only(name: str, value: float) -> tf.Tensor:
        return tf.where(operation == _OPERATIONS.index(name), strength * value, 0.0)

    count, height, width = shape
    sheared_or_shifted = matrices(
        slant_x=only("shear_x", _SHEAR),
        slant_y=only("shear_y", _SHEAR),
        across=only("translate_x", _SHIFT * width),
        down=only("translate_y", _SHIFT * height),
        count=count,
    )
    return sheared_or_shifted @ rotate(only("rotate", _ROTATION))


def _recolor(image: tf.Tensor, operation: tf.Tensor, sign: tf.Tensor, strength: float) -> tf.Tensor:
    """Change each image by its operation; a kind of operation sees only the images that drew it."""
    factor = 1 + sign * strength * _ENHANCEMENT
    first, first_other = len(_OPERATIONS) - len(_AFFINE) - len(_OTHERS), len(_OPERATIONS) - len(_OTHERS)
    # Kind 0 leaves colours alone, kind 1 is affine, and each of the others is a kind of its own.
    kind = tf.where(operation < first, 0, tf.maximum(operation - first_other + 2, 1))
    rows, images, operations, factors = (
        tf.dynamic_partition(values, kind, len(_OTHERS) + 2)
        for values in (tf.range(image.shape[0]), image, operation, factor)
    )
    images[1] = _map_affine(images[1], operations[1], factors[1])
    images[2] = posterize(images[2], 8 - round(strength * _POSTERIZED_BITS))
    images[3] = solarize(images[3], 256 * (1 - strength))
    images[4] = equalize(images[4])
    images[5] = sharpen(images[5], factors[5])
    return tf.ensure_shape(tf.dynamic_stitch(rows, images), image.shape)


def _map_affine(image: tf.Tensor, operation: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    brightness, contrast, color = (
        tf.where(operation == _OPERATIONS.index(name), factor, 1.0) for name in ("brightness", "contrast", "color")
    )
    mean = tf.broadcast_to(tf.reduce_mean(image, axis=(1, 2)), (tf.shape(image)[0], 3))
    stretches = operation == _OPERATIONS.index("auto_contrast")
    stretched = tf.where(stretches[:, None, None], stretch(image), tf.eye(4))
    return map_colors(image, stretched @ saturate(color) @ spread(contrast, mean) @ brighten(brightness))
