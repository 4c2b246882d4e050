"""The operations that policies draw from, each image with an operation, a strength and a sign of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from pipeline.data.augment.color import brighten, map_colors, saturate, spread, stretch
from pipeline.data.augment.draw import Batch, Step
from pipeline.data.augment.geometric import Geometric, matrices, rotate
from pipeline.data.augment.nonlinear import equalize, posterize, sharpen, solarize

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_AFFINE = ("brightness", "contrast", "color", "auto_contrast")
_OTHERS = ("posterize", "solarize", "equalize", "sharpness")
OPERATIONS = ("identity", *MOVES, *_AFFINE, *_OTHERS)  # the fourteen of RandAugment and TrivialAugment


class Drawn(NamedTuple):
    """One operation for each image: its number in OPERATIONS int32 (B,), strength 0..1 and sign ±1 float32 (B,)."""

    operation: tf.Tensor
    strength: tf.Tensor
    sign: tf.Tensor


@dataclass(frozen=True)
class Space:
    """What strength 1 means: the defaults are AutoAugment's (arXiv 1805.09501, table 6).

    Args:
        shear: tangent of the slant. rotation: radians. enhancement: change of the factors of brightness and the like.
        shift: function of a side to pixels.
        bits: function of strengths (B,) to the bits that posterize keeps.
    """

    shear: float = 0.3
    rotation: float = math.radians(30)
    enhancement: float = 0.9
    shift: Callable[[int], float] = lambda side: 0.45 * side
    bits: Callable[[tf.Tensor], tf.Tensor] = lambda strength: 8 - tf.round(4 * strength)


def as_augmentations(draw: Callable[[int, tf.Tensor], list[Drawn]], space: Space, fill: str) -> tuple[Geometric, Step]:
    """Make augmentations of a draw: function of a number of images and a seed (2,) to operations, in order.

    All motions are made first, as one warp, the others after it in the order drawn: the two kinds commute except at the
    borders.
    """

    def draw_moves(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        return motions(draw(shape[0], seed), shape, space)

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        return dict(batch, image=recolor(batch["image"], draw(batch["image"].shape[0], seed), space))

    return Geometric(draw_moves, fill), Step(apply)


def slots(operations: tf.Tensor, strengths: tf.Tensor, directions: tf.Tensor) -> list[Drawn]:
    """Turn tensors (slots, B) into a list of slots."""
    return [Drawn(*one) for one in zip(*map(tf.unstack, (operations, strengths, directions)), strict=True)]


def signs(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Draw 1 or -1, each half of the time, float32."""
    positive = tf.random.stateless_uniform(shape, tf.random.experimental.stateless_fold_in(seed, 1)) < 0.5
    return tf.where(positive, 1.0, -1.0)


def motions(drawn: list[Drawn], shape: tuple[int, int, int], space: Space) -> tf.Tensor:
    """Return the product of all that moves pixels, float32 (B, 3, 3), for images (B, H, W)."""
    count, height, width = shape
    matrix = tf.eye(3, batch_shape=[count])
    for operation, strength, sign in drawn:
        steps = {name: tf.where(operation == OPERATIONS.index(name), sign * strength, 0.0) for name in MOVES}
        sheared_or_shifted = matrices(
            slant_x=space.shear * steps["shear_x"],
            slant_y=space.shear * steps["shear_y"],
            across=space.shift(width) * steps["translate_x"],
            down=space.shift(height) * steps["translate_y"],
            count=count,
        )
        matrix = matrix @ sheared_or_shifted @ rotate(space.rotation * steps["rotate"])
    return matrix


def recolor(image: tf.Tensor, drawn: list[Drawn], space: Space) -> tf.Tensor:
    """Change the colours of images, float32 (B, H, W, C), by all that does not move them, in order."""
    for one in drawn:
        image = _recolor(image, one, space)
    return image


def _recolor(image: tf.Tensor, drawn: Drawn, space: Space) -> tf.Tensor:
    """Change each image by its operation; a kind of operation sees only the images that drew it."""
    first, first_other = len(OPERATIONS) - len(_AFFINE) - len(_OTHERS), len(OPERATIONS) - len(_OTHERS)
    # Kind 0 leaves colours alone, kind 1 is affine, and each of the others is a kind of its own.
    kind = tf.where(drawn.operation < first, 0, tf.maximum(drawn.operation - first_other + 2, 1))
    factor = 1 + drawn.sign * drawn.strength * space.enhancement
    rows, images, operations, strengths, factors = (
        tf.dynamic_partition(values, kind, len(_OTHERS) + 2)
        for values in (tf.range(image.shape[0]), image, drawn.operation, drawn.strength, factor)
    )
    images[1] = _map_affine(images[1], operations[1], factors[1])
    images[2] = posterize(images[2], space.bits(strengths[2]))
    images[3] = solarize(images[3], 256 * (1 - strengths[3]))
    images[4] = equalize(images[4])
    images[5] = sharpen(images[5], factors[5])
    return tf.ensure_shape(tf.dynamic_stitch(rows, images), image.shape)


def _map_affine(image: tf.Tensor, operation: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    brightness, contrast, color = (
        tf.where(operation == OPERATIONS.index(name), factor, 1.0) for name in ("brightness", "contrast", "color")
    )
    mean = tf.broadcast_to(tf.reduce_mean(image, axis=(1, 2)), (tf.shape(image)[0], 3))
    stretches = operation == OPERATIONS.index("auto_contrast")
    stretched = tf.where(stretches[:, None, None], stretch(image), tf.eye(4))
    return map_colors(image, stretched @ saturate(color) @ spread(contrast, mean) @ brighten(brightness))
