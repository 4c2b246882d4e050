"""Augmentation policies: operations drawn from a fixed set, image by image."""

import math
from typing import Literal

import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveInt

from pipeline.data.augment.auto_augment_table import SUB_POLICIES
from pipeline.data.augment.draw import Step
from pipeline.data.augment.geometric import Geometric
from pipeline.data.augment.operations import OPERATIONS, Drawn, Space, as_augmentations, signs, slots
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS

_WIDE = Space(
    shear=0.99,
    rotation=math.radians(135),
    enhancement=0.99,
    shift=lambda side: 32.0,
    bits=lambda strength: 8 - tf.round(6 * strength),
)
_WIDE_STRENGTHS = 30  # above none


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

    def draw(count: int, seed: tf.Tensor) -> list[Drawn]:
        shape = (operations, count)
        chosen = tf.random.stateless_uniform(shape, seed, 0, len(OPERATIONS), tf.int32)
        return slots(chosen, tf.fill(shape, magnitude / 10), signs(shape, seed))

    return as_augmentations(draw, Space(), fill)


@AUGMENTATIONS.register
def trivial_augment(*, fill: Literal["reflect", "nearest", "black"] = "reflect") -> tuple[Geometric, Step]:
    """Apply one operation of any strength, both drawn per image (Müller and Hutter, arXiv 2103.10158, the wide space).

    The operations are those of rand_augment; at most a slant of 0.99, a shift of 32 pixels, a turn of 135 degrees,
    factors from 0.01 to 1.99, and 2 bits left. The shift is in pixels, as published: for images of some 32 pixels.
    """

    def draw(count: int, seed: tf.Tensor) -> list[Drawn]:
        shape = (1, count)
        chosen = tf.random.stateless_uniform(shape, seed, 0, len(OPERATIONS), tf.int32)
        level_seed = tf.random.experimental.stateless_fold_in(seed, 2)
        level = tf.random.stateless_uniform(shape, level_seed, 0, _WIDE_STRENGTHS + 1, tf.int32)
        return slots(chosen, tf.cast(level, tf.float32) / _WIDE_STRENGTHS, signs(shape, seed))

    return as_augmentations(draw, _WIDE, fill)


@AUGMENTATIONS.register
def auto_augment(
    *,
    policy: Literal["cifar10", "imagenet"] = "cifar10",
    fill: Literal["reflect", "nearest", "black"] = "reflect",
) -> tuple[Geometric, Step]:
    """Apply one of 25 published pairs of operations, drawn per image (Cubuk et al., arXiv 1805.09501).

    Each operation of a pair is left out with its own probability. Those that have two directions take either, also
    brightness and the like, about 1: the paper's levels of these run from 0.1 to 1.9. All motions are made first.
    """
    pairs = SUB_POLICIES[policy]
    chances = tf.constant([[chance for _, chance, _ in pair] for pair in pairs])
    names = [[name for name, _, _ in pair] for pair in pairs]
    # To invert is to solarize everything.
    numbers = tf.constant([[OPERATIONS.index("solarize" if name == "invert" else name) for name in n] for n in names])
    strengths = tf.constant([[1.0 if name == "invert" else level / 9 for name, _, level in pair] for pair in pairs])

    def draw(count: int, seed: tf.Tensor) -> list[Drawn]:
        pair = tf.random.stateless_uniform((count,), seed, 0, len(pairs), tf.int32)
        number, strength, chance = (tf.transpose(tf.gather(table, pair)) for table in (numbers, strengths, chances))
        applied = tf.random.stateless_uniform((2, count), tf.random.experimental.stateless_fold_in(seed, 2)) < chance
        return slots(tf.where(applied, number, 0), strength, signs((2, count), seed))

    return as_augmentations(draw, Space(), fill)
