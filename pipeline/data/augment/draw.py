"""Stateless random draws, one row per image, and what every augmentation is made of."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

Batch = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Step:
    """A change to a whole batch that cannot be fused with others.

    Args:
        apply: function of a batch (image float32 (B, H, W, C) in 0..255) and a seed (2,) to a batch.
        mixes: whether it mixes images: it then takes `label` one-hot, float32 (B, classes), and no mask or boxes.
    """

    apply: Callable[[Batch, tf.Tensor], Batch]
    mixes: bool = False


def sometimes(change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], probability: float) -> Step:
    """Make a step of a function of images and a seed (2,) to images: each is changed with that probability."""

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        image = batch["image"]
        (chance,) = uniform(tf.random.experimental.stateless_fold_in(seed, 1), image.shape[0], (0, 1))
        return dict(batch, image=tf.where(per_pixel(chance < probability), change(image, seed), image))

    return Step(apply)


def uniform(seed: tf.Tensor, count: int, *ranges: tuple[float, float]) -> list[tf.Tensor]:
    """Draw one float32 (count,) tensor per range (low, high), independent of each other."""
    draws = tf.unstack(tf.random.stateless_uniform((len(ranges), count), seed), axis=0)
    return [low + (high - low) * draw for draw, (low, high) in zip(draws, ranges, strict=True)]


def beta(seed: tf.Tensor, count: int, alpha: float) -> tf.Tensor:
    """Draw float32 (count,) from Beta(alpha, alpha), as the share of one Gamma draw in the sum of two."""
    first, second = tf.unstack(tf.random.stateless_gamma((2, count), seed, alpha), axis=0)
    return tf.math.divide_no_nan(first, first + second)


def per_pixel(values: tf.Tensor) -> tf.Tensor:
    """Reshape (B,) to (B, 1, 1, 1), to be broadcast over images."""
    return tf.reshape(values, (-1, 1, 1, 1))
