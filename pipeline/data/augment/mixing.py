"""Augmentations that mix two images of a batch and their labels.

The other image is the batch's next one: batches are drawn in random order, so it is a random one. `label` becomes the
shares of both classes, float32 (B, classes); whole labels are one-hot already when this is called. Where examples have
a weight in the loss, the mixed one counts as the shares of both would.
"""

import tensorflow as tf
from pydantic import PositiveFloat

from pipeline.data.augment.draw import Batch, Step, beta, per_pixel, uniform
from pipeline.data.augment.erasing import inside
from pipeline.registry import AUGMENTATIONS, Fraction


@AUGMENTATIONS.register
def mixup(*, alpha: PositiveFloat = 0.2, probability: Fraction = 1.0) -> Step:
    """Blend two images and their labels by a share from Beta(alpha, alpha) (Zhang et al., arXiv 1710.09412)."""

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        share = _other_share(seed, batch["image"].shape[0], alpha, probability)
        image = batch["image"]
        return _with_mixed_labels(batch | {"image": image + per_pixel(share) * (_other(image) - image)}, share)

    return Step(apply, mixes=True)


@AUGMENTATIONS.register
def cutmix(*, alpha: PositiveFloat = 1.0, probability: Fraction = 1.0) -> Step:
    """Paste a rectangle of another image, its area from Beta(alpha, alpha) (Yun et al., arXiv 1905.04899).

    Labels are mixed by the area that was really pasted: a rectangle may stick out of the image, as in the paper.
    """

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        image = batch["image"]
        count, height, width, _ = image.shape
        side = tf.sqrt(_other_share(seed, count, alpha, probability))
        y, x = uniform(tf.random.experimental.stateless_fold_in(seed, 2), count, (0, height), (0, width))
        pasted = inside(image, y - side * height / 2, x - side * width / 2, side * height, side * width)
        share = tf.reduce_mean(tf.cast(pasted, tf.float32), axis=(1, 2, 3))
        return _with_mixed_labels(batch | {"image": tf.where(pasted, _other(image), image)}, share)

    return Step(apply, mixes=True)


def _other_share(seed: tf.Tensor, count: int, alpha: float, probability: float) -> tf.Tensor:
    (chance,) = uniform(tf.random.experimental.stateless_fold_in(seed, 1), count, (0, 1))
    return tf.where(chance < probability, beta(seed, count, alpha), 0.0)


def _with_mixed_labels(batch: Batch, share: tf.Tensor) -> Batch:
    label, weight = batch["label"], batch.get("weight")
    if weight is None:
        return batch | {"label": _blend(label, share[:, None])}
    mixed = _blend(weight, share)
    return batch | {"label": _blend(label * weight[:, None], share[:, None]) / mixed[:, None], "weight": mixed}


def _blend(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return values + share * (_other(values) - values)


def _other(values: tf.Tensor) -> tf.Tensor:
    return tf.roll(values, -1, axis=0)
