"""Augmentation by the styles of other images of the batch. Labels, masks and boxes stay: the content does."""

import tensorflow as tf
from pydantic import PositiveFloat

from pipeline.data.augment.draw import Step, beta, per_pixel, sometimes
from pipeline.registry import AUGMENTATIONS, Fraction

_EPSILON = 1e-6  # as published; without it rounding errors would become the style of a flat image


@AUGMENTATIONS.register
def mix_style(*, alpha: PositiveFloat = 0.1, probability: Fraction = 0.5) -> Step:
    """Take a share of the next image's channel means and deviations, from Beta(alpha, alpha).

    MixStyle (Zhou et al., arXiv 2104.02008) does so to the feature maps of early layers; this does it to the pixels,
    and so changes no model: it mixes colour and contrast, not texture.
    """

    def change(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(image, axes=(1, 2), keepdims=True)
        deviation = tf.sqrt(variance + _EPSILON)
        share = per_pixel(beta(seed, image.shape[0], alpha))
        new_mean, new_deviation = (own + share * (tf.roll(own, -1, axis=0) - own) for own in (mean, deviation))
        styled = (image - mean) / deviation * new_deviation + new_mean
        return tf.clip_by_value(styled, 0.0, 255.0)

    return sometimes(change, probability)
