"""Augmentations of tone: each changes an image as Pillow's ImageOps do, with the given probability."""

import tensorflow as tf
from pydantic import PositiveInt

from pipeline.data.augment import nonlinear
from pipeline.data.augment.color import map_colors, stretch
from pipeline.data.augment.draw import Step, sometimes
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS, Fraction


@AUGMENTATIONS.register
def posterize(*, bits: PositiveInt = 4, probability: Fraction = 0.5) -> Step:
    """Keep only the highest bits of eight, with the given probability."""
    if bits > 8:
        raise UserError(f"posterize: bits must lie between 1 and 8, not {bits}")
    return sometimes(lambda image, seed: nonlinear.posterize(image, bits), probability)


@AUGMENTATIONS.register
def solarize(*, threshold: Fraction = 0.5, probability: Fraction = 0.5) -> Step:
    """Invert the values from a threshold up, a share of 256, with the given probability."""
    return sometimes(lambda image, seed: nonlinear.solarize(image, 256 * threshold), probability)


@AUGMENTATIONS.register
def equalize(*, probability: Fraction = 0.5) -> Step:
    """Flatten the histogram of each channel, with the given probability."""
    return sometimes(lambda image, seed: nonlinear.equalize(image), probability)


@AUGMENTATIONS.register
def autocontrast(*, probability: Fraction = 0.5) -> Step:
    """Stretch the values of each channel to 0..255, with the given probability."""
    return sometimes(_stretch, probability)


def _stretch(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return map_colors(image, stretch(image))
