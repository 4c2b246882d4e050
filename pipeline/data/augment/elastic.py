"""Elastic deformation: every pixel is moved by a smooth random field, and mask and boxes with it."""

from typing import Literal

import tensorflow as tf
from pydantic import PositiveFloat

from pipeline.data.augment.compiled import compiled
from pipeline.data.augment.draw import Batch, Step
from pipeline.data.augment.geometric import keep_visible
from pipeline.data.augment.sampling import read_at
from pipeline.data.augment.smoothing import kernel, smooth
from pipeline.errors import UserError
from pipeline.ops.segmentation import VOID
from pipeline.registry import AUGMENTATIONS

_POINTS = 16  # on each side of a box
_ROUNDS = 12  # of the inversion: its error shrinks by the steepest slope of the field, below 1, in each


@AUGMENTATIONS.register
def elastic(
    *,
    amount: PositiveFloat = 0.05,
    smoothness: PositiveFloat = 0.14,
    fill: Literal["reflect", "nearest", "black"] = "reflect",
) -> Step:
    """Move pixels by a random field that is smoothed by a Gaussian (Simard et al., ICDAR 2003).

    `amount` is the field's standard deviation, `smoothness` that of the Gaussian, both as shares of the shorter side;
    the defaults are the paper's alpha 34 and sigma 4 at 29 pixels. Mask pixels from outside are VOID. A box becomes
    the hull of its moved border, and as in every motion `fill` is then black.
    """
    if amount > smoothness / 2:
        raise UserError(f"elastic: amount {amount} must be at most half of smoothness {smoothness}, or the image folds")

    def apply(batch: Batch, seed: tf.Tensor) -> Batch:
        return displace(batch, displacement(batch["image"].shape[:3], seed, amount, smoothness), fill)

    return Step(apply)


def displacement(shape: tuple[int, int, int], seed: tf.Tensor, amount: float, smoothness: float) -> tf.Tensor:
    """Draw how far right and down of each output pixel it comes from, in pixels: float32 (B, H, W, xy)."""
    count, height, width = shape
    side = min(height, width)
    sigma = tf.constant([smoothness * side])
    noise = tf.random.stateless_uniform((count, height, width, 2), seed, -1.0, 1.0)
    # What smoothing leaves of the variance of the noise, 1/3, far from the borders.
    left = [tf.reduce_sum(tf.square(kernel(size, sigma)[0, size // 2])) for size in (height, width)]
    return smooth(noise, sigma) * (amount * side / tf.sqrt(left[0] * left[1] / 3))


def displace(batch: Batch, field: tf.Tensor, fill: str) -> Batch:
    """Move image, mask and boxes by a field (B, H, W, xy) from output to input pixels."""
    fill = "black" if "boxes" in batch else fill
    image = batch["image"]
    moved = dict(batch, image=tf.ensure_shape(compiled(_read, image, field, fill, 0.0, False), image.shape))
    if "mask" in batch:
        mask = compiled(_read, batch["mask"][..., None], field, "black", VOID, True)
        moved["mask"] = tf.ensure_shape(mask[..., 0], batch["mask"].shape)
    if "boxes" in batch:
        border = _border(batch["boxes"])
        moved["boxes"], moved["classes"] = keep_visible(_invert(field, border), batch["classes"])
    return moved


def _read(images: tf.Tensor, field: tf.Tensor, fill: str, outside: float, nearest: bool) -> tf.Tensor:
    _, height, width, _ = images.shape
    x = tf.range(width, dtype=tf.float32) + field[..., 0]
    y = tf.range(height, dtype=tf.float32)[:, None] + field[..., 1]
    return read_at(images, x, y, fill, outside, nearest)


def _border(boxes: tf.Tensor) -> tf.Tensor:
    """Return points on the borders of boxes (B, N, 4): float32 (B, N, P, yx), corners among them."""
    along = tf.linspace(0.0, 1.0, _POINTS)
    zeros, ones = tf.zeros_like(along), tf.ones_like(along)
    y, x = tf.concat([along, along, zeros, ones], 0), tf.concat([zeros, ones, along, along], 0)
    low, high = boxes[:, :, None, :2], boxes[:, :, None, 2:]
    return low + (high - low) * tf.stack([y, x], axis=1)


def _invert(field: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Return where points (B, N, P, yx) of the input, relative, come to lie in the output.

    The output position q of an input position p has q + field(q) = p: solved by repeating q = p - field(q).
    """
    size = tf.constant(field.shape[1:3].as_list(), tf.float32)
    inputs = points * size - 0.5  # counted from the centre of the corner's pixel

    def closer(outputs: tf.Tensor) -> tuple[tf.Tensor]:
        return (inputs - read_at(field, outputs[..., 1], outputs[..., 0], "nearest")[..., ::-1],)

    # A loop of the graph: written out, it would be a thousand operations to optimise before the first batch.
    (outputs,) = tf.while_loop(lambda _: True, closer, (inputs,), maximum_iterations=_ROUNDS)
    return (outputs + 0.5) / size
