"""AugMix: the image blended with a blend of augmented copies of itself."""

from typing import Literal

import tensorflow as tf
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.data.augment.draw import Batch, Step, beta, per_pixel
from pipeline.data.augment.operations import MOVES, OPERATIONS, Drawn, Space, motions, recolor, signs, slots
from pipeline.data.augment.sampling import sample
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS

_COLORS = ("auto_contrast", "equalize", "posterize", "solarize")
_SPACE = Space(shift=lambda side: side / 3, bits=lambda strength: 4 - tf.floor(4 * strength))
_LONGEST = 3


@AUGMENTATIONS.register
def aug_mix(
    *,
    severity: PositiveFloat = 3.0,
    width: PositiveInt = 3,
    depth: NonNegativeInt = 0,
    alpha: PositiveFloat = 1.0,
    fill: Literal["reflect", "nearest", "black"] = "reflect",
) -> Step:
    """Blend the image with `width` chains of drawn operations (Hendrycks et al., arXiv 1912.02781), the image part.

    The consistency loss of the paper, between three views of an image, is no augmentation and is not here. A chain has
    `depth` operations of strengths up to `severity`, 0 to 10; depth 0 draws 1 to 3. Chains are weighed by
    Dirichlet(alpha), and all of them against the image by Beta(alpha, alpha). Operations are those that do not overlap
    with ImageNet-C: shear, translation, rotation, auto-contrast, equalize, posterize, solarize. Samples with a mask or
    boxes take the last four only: copies that moved differently have no common mask.
    """
    if not 0.1 <= severity <= 10:
        raise UserError(f"aug_mix: severity must lie between 0.1 and 10, not {severity}")
    length = depth or _LONGEST

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        image = batch["image"]
        stays = "mask" in batch or "boxes" in batch
        count = image.shape[0]
        # Every image's chain 0, then every image's chain 1, ...
        copies = tf.tile(image, (width, 1, 1, 1))
        drawn = _draw(seed, _COLORS if stays else (*_COLORS, *MOVES), (length, width * count), severity, depth)
        if not stays:
            copies = sample(copies, motions(drawn, copies.shape[:3], _SPACE), fill=fill)
        chains = tf.reshape(recolor(copies, drawn, _SPACE), (width, *image.shape))
        blend = tf.einsum("kb,kbhwc->bhwc", _dirichlet(_fold(seed, 4), (width, count), alpha), chains)
        share = per_pixel(beta(_fold(seed, 5), count, alpha))
        return dict(batch, image=tf.clip_by_value(image + share * (blend - image), 0.0, 255.0))

    return Step(apply)


def _draw(seed: tf.Tensor, names: tuple[str, ...], shape: tuple[int, int], severity: float, depth: int) -> list[Drawn]:
    """Draw operations (slots, copies); those behind the end of a chain are none."""
    numbers = tf.constant([OPERATIONS.index(name) for name in names])
    chosen = tf.gather(numbers, tf.random.stateless_uniform(shape, seed, 0, len(names), tf.int32))
    if not depth:
        length = tf.random.stateless_uniform(shape[1:], _fold(seed, 2), 1, shape[0] + 1, tf.int32)
        chosen = tf.where(tf.range(shape[0])[:, None] < length, chosen, OPERATIONS.index("identity"))
    strengths = tf.random.stateless_uniform(shape, _fold(seed, 3), 0.01, severity / 10)
    return slots(chosen, strengths, signs(shape, seed))


def _dirichlet(seed: tf.Tensor, shape: tuple[int, int], alpha: float) -> tf.Tensor:
    """Draw weights (width, B) that sum to 1 for each image."""
    gammas = tf.random.stateless_gamma(shape, seed, alpha)
    return gammas / tf.maximum(tf.reduce_sum(gammas, axis=0), 1e-30)


def _fold(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number)
