"""Augmentations that take detail away, as lenses and files do."""

import tensorflow as tf
from pydantic import PositiveFloat, PositiveInt

from pipeline.data.augment.draw import Step, sometimes, uniform
from pipeline.data.augment.smoothing import smooth
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS, Fraction


@AUGMENTATIONS.register
def blur(*, sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 2.0), probability: Fraction = 0.5) -> Step:
    """Blur by a Gaussian of drawn width, in pixels, with the given probability (as SimCLR does, arXiv 2002.05709)."""
    if sigma[0] > sigma[1]:
        raise UserError(f"blur: sigma {sigma} must be (low, high)")

    def change(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        (width,) = uniform(seed, image.shape[0], sigma)
        return tf.clip_by_value(smooth(image, width), 0.0, 255.0)  # the matrix products may exceed 255 by rounding

    return sometimes(change, probability)


@AUGMENTATIONS.register
def jpeg_noise(*, quality: tuple[PositiveInt, PositiveInt] = (30, 95), probability: Fraction = 0.5) -> Step:
    """Write and read the image as a JPEG of drawn quality, 1 to 100, with the given probability."""
    if not quality[0] <= quality[1] <= 100:
        raise UserError(f"jpeg_noise: quality {quality} must be (low, high), at most 100")

    def change(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        drawn = tf.random.stateless_uniform(image.shape[:1], seed, quality[0], quality[1] + 1, tf.int32)
        pixels = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
        again = tf.map_fn(
            lambda one: tf.image.adjust_jpeg_quality(one[0], one[1], dct_method="INTEGER_ACCURATE"),
            (pixels, drawn),
            fn_output_signature=tf.TensorSpec(image.shape[1:], tf.uint8),
        )
        return tf.ensure_shape(tf.cast(again, tf.float32), image.shape)

    return sometimes(change, probability)
