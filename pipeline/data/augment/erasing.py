"""Augmentations that blank out a part of the image. Mask pixels there become VOID; boxes stay."""

import tensorflow as tf
from pydantic import PositiveFloat, PositiveInt

from pipeline.data.augment.draw import Batch, Step, per_pixel, uniform
from pipeline.data.augment.geometric import draw_windows
from pipeline.errors import UserError
from pipeline.ops.segmentation import VOID
from pipeline.registry import AUGMENTATIONS, Fraction


@AUGMENTATIONS.register
def cutout(*, pixels: PositiveInt = 8) -> Step:
    """Blank a square of side `pixels` with the image's mean colour (DeVries and Taylor, arXiv 1708.04552).

    Its centre lies anywhere in the image, so that it may stick out, as in the paper.
    """

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        count, height, width, _ = batch["image"].shape
        y, x = (tf.floor(centre) for centre in uniform(seed, count, (0, height), (0, width)))
        hole = inside(batch["image"], y - pixels // 2, x - pixels // 2, float(pixels), float(pixels))
        return _blank(batch, hole, tf.reduce_mean(batch["image"], axis=(1, 2), keepdims=True))

    return Step(apply)


@AUGMENTATIONS.register
def random_erasing(
    *,
    probability: Fraction = 0.25,
    scale: tuple[Fraction, Fraction] = (0.02, 0.33),
    ratio: tuple[PositiveFloat, PositiveFloat] = (0.3, 3.3),
) -> Step:
    """Replace a rectangle with random pixels, with the given probability (Zhong et al., arXiv 1708.04896).

    `scale` is its share of the image's area, `ratio` its width over its height.
    """
    if not 0 < scale[0] <= scale[1] or ratio[0] > ratio[1]:
        raise UserError(f"random_erasing: scale {scale} and ratio {ratio} must each be (low, high), above zero")

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        image = batch["image"]
        (chance,) = uniform(tf.random.experimental.stateless_fold_in(seed, 1), image.shape[0], (0, 1))
        window = draw_windows(image.shape[:3], tf.random.experimental.stateless_fold_in(seed, 2), scale, ratio)
        noise = tf.random.stateless_uniform(image.shape, tf.random.experimental.stateless_fold_in(seed, 3), 0, 255)
        return _blank(batch, inside(image, *window) & per_pixel(chance < probability), noise)

    return Step(apply)


def inside(
    image: tf.Tensor,
    top: tf.Tensor,
    left: tf.Tensor,
    height: tf.Tensor | float,
    width: tf.Tensor | float,
) -> tf.Tensor:
    """Tell which pixels lie in each image's rectangle, given in pixels (B,): bool (B, H, W, 1)."""
    rows = tf.range(image.shape[1], dtype=tf.float32) + 0.5  # pixel centres
    columns = tf.range(image.shape[2], dtype=tf.float32) + 0.5
    y = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    x = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (y[:, :, None] & x[:, None, :])[..., None]


def _blank(batch: Batch, hole: tf.Tensor, filling: tf.Tensor) -> Batch:
    blanked = dict(batch, image=tf.where(hole, filling, batch["image"]))
    if "mask" in batch:
        blanked["mask"] = tf.where(hole[..., 0], VOID, batch["mask"])
    return blanked
