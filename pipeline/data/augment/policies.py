"""Augmentation policies: operations drawn from a fixed set, image by image."""

import math
from typing import Literal

import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveInt

from pipeline.data.augment.color import brighten, map_colors, saturate, spread
from pipeline.data.augment.draw import Batch, Step, per_pixel
from pipeline.data.augment.geometric import Geometric, matrices, rotate
from pipeline.data.augment.lookup import auto_contrast, equalize, histogram, look_up, posterize, sharpen, solarize
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS

# RandAugment's fourteen operations, in the order of the paper; slices below rely on the order.
_MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_COLORS = ("brightness", "contrast", "color")
_LOOKUPS = ("posterize", "solarize", "auto_contrast", "equalize")
_OPERATIONS = (*_MOVES, *_COLORS, *_LOOKUPS, "sharpness", "identity")
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
    """Change each image by its operation; every kind of operation sees only the images that drew it."""
    first_color, first_lookup = len(_MOVES), len(_MOVES) + len(_COLORS)
    is_color = (operation >= first_color) & (operation < first_lookup)
    is_lookup = (operation >= first_lookup) & (operation < first_lookup + len(_LOOKUPS))
    is_sharpness = operation == _OPERATIONS.index("sharpness")
    kind = tf.where(is_color, 1, tf.where(is_lookup, 2, tf.where(is_sharpness, 3, 0)))

    images, rows = tf.dynamic_partition(image, kind, 4), tf.dynamic_partition(tf.range(image.shape[0]), kind, 4)
    factor = 1 + sign * strength * _ENHANCEMENT
    images[1] = _enhance(images[1], tf.gather(operation, rows[1]), tf.gather(factor, rows[1]))
    images[2] = _look_up(images[2], tf.gather(operation, rows[2]), strength)
    images[3] = sharpen(images[3], tf.gather(factor, rows[3]))
    return tf.ensure_shape(tf.dynamic_stitch(rows, images), image.shape)


def _enhance(image: tf.Tensor, operation: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    brightness, contrast, color = (
        tf.where(operation == _OPERATIONS.index(name), factor, 1.0) for name in ("brightness", "contrast", "color")
    )
    mean = tf.broadcast_to(tf.reduce_mean(image, axis=(1, 2)), (tf.shape(image)[0], 3))
    return map_colors(image, saturate(color) @ spread(contrast, mean) @ brighten(brightness))


def _look_up(image: tf.Tensor, operation: tf.Tensor, strength: float) -> tf.Tensor:
    counts = histogram(image)
    tables = (
        posterize(bits=8 - round(strength * _POSTERIZED_BITS)),
        solarize(threshold=256 * (1 - strength)),
        auto_contrast(counts),
        equalize(counts),
    )
    table = tf.zeros_like(counts, tf.float32)
    for name, candidate in zip(_LOOKUPS, tables, strict=True):
        table = tf.where(per_pixel(operation == _OPERATIONS.index(name))[..., 0], candidate, table)
    return look_up(image, table)
