"""Augmentations that move pixels: any run of them is one warp of the batch.

Each draws one 3x3 matrix per image that says where an output pixel comes from, in pixels right and down of the
image's centre. Matrices multiply, so three augmentations cost one interpolation, in time and in sharpness.

What comes from outside the image: pixels by `fill`, mask pixels are VOID, boxes are clipped. The default fill is
`reflect`, because black wedges are a cue that no test image has; where the batch holds boxes it is black anyhow, since
a mirrored object would be one without a box. Say `fill: black` for drawings on black, such as digits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf
from pydantic import PositiveFloat, PositiveInt

from pipeline.data.augment.draw import Batch, uniform
from pipeline.data.augment.sampling import sample
from pipeline.errors import UserError
from pipeline.ops.segmentation import VOID
from pipeline.registry import AUGMENTATIONS, Fraction

_MIN_VISIBLE = 0.2  # a box is dropped when less than this share of its area stays in the picture


Windows = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


@dataclass(frozen=True)
class Geometric:
    """A drawn motion of pixels.

    Args:
        draw: function of the batch's (B, H, W) and a seed (2,) to float32 (B, 3, 3), output pixel to input pixel.
        fill: what lies outside the image, or None when nothing outside is ever asked for.
        exact: whether pixels land on pixels, so that no interpolation is needed.
        windows: for a zoom into a window, function of the same arguments to top, left, height and width in pixels,
            float32 (B,) each: whoever decodes files can then decode only the window.
    """

    draw: Callable[[tuple[int, int, int], tf.Tensor], tf.Tensor]
    fill: str | None = None
    exact: bool = False
    windows: Callable[[tuple[int, int, int], tf.Tensor], Windows] | None = None

    def fuses(self, other: "Geometric") -> bool:
        """Tell whether both can be one warp: what lies outside must look the same."""
        return self.fill is None or other.fill is None or self.fill == other.fill


@AUGMENTATIONS.register
def flip(*, horizontal: bool = True, vertical: bool = False) -> Geometric:
    """Mirror each image with probability 1/2, left to right, top to bottom, or each of both."""

    def draw(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        x, y = (tf.where(draw < 0.5, -1.0, 1.0) for draw in uniform(seed, shape[0], (0, 1), (0, 1)))
        return matrices(x=x if horizontal else 1.0, y=y if vertical else 1.0, count=shape[0])

    return Geometric(draw, exact=True)


@AUGMENTATIONS.register
def pad_crop(*, pixels: PositiveInt = 4, fill: Literal["reflect", "nearest", "black"] = "reflect") -> Geometric:
    """Pad by `pixels` on every side and crop the old size anywhere, as for CIFAR (He et al., arXiv 1512.03385)."""

    def draw(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        across, down = uniform(seed, shape[0], (0, 2 * pixels + 1), (0, 2 * pixels + 1))
        # The largest float32 below 1 may round up to the end of the range.
        across, down = (tf.minimum(tf.floor(shift), 2.0 * pixels) - pixels for shift in (across, down))
        return matrices(across=across, down=down, count=shape[0])

    return Geometric(draw, fill, exact=True)


@AUGMENTATIONS.register
def random_resized_crop(
    *, scale: tuple[Fraction, Fraction] = (0.08, 1.0), ratio: tuple[PositiveFloat, PositiveFloat] = (0.75, 1.3333)
) -> Geometric:
    """Zoom into a window of drawn area and aspect (Szegedy et al., arXiv 1409.4842).

    `scale` is the window's share of the image's area, `ratio` its width over its height, drawn evenly in the logarithm.
    """
    if not 0 < scale[0] <= scale[1] or ratio[0] > ratio[1]:
        raise UserError(f"random_resized_crop: scale {scale} and ratio {ratio} must each be (low, high), above zero")

    def windows(shape: tuple[int, int, int], seed: tf.Tensor) -> Windows:
        return draw_windows(shape, seed, scale, ratio)

    def draw(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        count, height, width = shape
        top, left, window_height, window_width = windows(shape, seed)
        x, y = window_width / width, window_height / height
        across = left + (window_width - width) / 2
        down = top + (window_height - height) / 2
        return matrices(x=x, y=y, across=across, down=down, count=count)

    return Geometric(draw, windows=windows)


@AUGMENTATIONS.register
def rotation(*, degrees: PositiveFloat = 15.0, fill: Literal["reflect", "nearest", "black"] = "reflect") -> Geometric:
    """Turn about the centre by up to `degrees` either way."""

    def draw(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        (angle,) = uniform(seed, shape[0], (-math.radians(degrees), math.radians(degrees)))
        return rotate(angle)

    return Geometric(draw, fill)


@AUGMENTATIONS.register
def zoom(*, amount: Fraction = 0.2, fill: Literal["reflect", "nearest", "black"] = "reflect") -> Geometric:
    """Scale about the centre, both sides alike, by a factor between 1/(1 + amount) and 1 + amount."""

    def draw(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        (exponent,) = uniform(seed, shape[0], (-1, 1))
        factor = tf.pow(1.0 + amount, exponent)
        return matrices(x=factor, y=factor, count=shape[0])

    return Geometric(draw, fill)


@AUGMENTATIONS.register
def shear(*, degrees: PositiveFloat = 10.0, fill: Literal["reflect", "nearest", "black"] = "reflect") -> Geometric:
    """Slant the columns by up to `degrees` either way, and the rows by another draw."""
    if degrees >= 45:
        raise UserError(f"shear: degrees must be below 45, not {degrees}: two such slants can fold the image flat")

    def draw(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        limit = math.radians(degrees)
        slant_x, slant_y = (tf.tan(angle) for angle in uniform(seed, shape[0], (-limit, limit), (-limit, limit)))
        return matrices(slant_x=slant_x, slant_y=slant_y, count=shape[0])

    return Geometric(draw, fill)


@AUGMENTATIONS.register
def translation(
    *,
    height: Fraction = 0.1,
    width: Fraction = 0.1,
    fill: Literal["reflect", "nearest", "black"] = "reflect",
) -> Geometric:
    """Shift by up to the given shares of the image's height and width, either way."""

    def draw(shape: tuple[int, int, int], seed: tf.Tensor) -> tf.Tensor:
        count, rows, columns = shape
        down, across = uniform(seed, count, (-height * rows, height * rows), (-width * columns, width * columns))
        return matrices(across=across, down=down, count=count)

    return Geometric(draw, fill)


def draw_windows(
    shape: tuple[int, int, int], seed: tf.Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> Windows:
    """Draw windows inside images (B, H, W): top, left, height and width in pixels, float32 (B,) each.

    A window that would be too long for the image is cut to its side, so the aspect is then less extreme.
    """
    count, height, width = shape
    logarithms = (math.log(ratio[0]), math.log(ratio[1]))
    share, logarithm, y, x = uniform(seed, count, scale, logarithms, (0, 1), (0, 1))
    area, stretch = share * height * width, tf.exp(logarithm)
    window_height = tf.minimum(tf.sqrt(area / stretch), float(height))
    window_width = tf.minimum(tf.sqrt(area * stretch), float(width))
    return y * (height - window_height), x * (width - window_width), window_height, window_width


def matrices(
    *,
    count: int,
    x: tf.Tensor | float = 1.0,
    y: tf.Tensor | float = 1.0,
    slant_x: tf.Tensor | float = 0.0,
    slant_y: tf.Tensor | float = 0.0,
    across: tf.Tensor | float = 0.0,
    down: tf.Tensor | float = 0.0,
) -> tf.Tensor:
    """Stack scalars or (count,) entries to float32 (count, 3, 3): rows x slant_x across, slant_y y down, 0 0 1."""
    entries = (x, slant_x, across, slant_y, y, down, 0.0, 0.0, 1.0)
    rows = [tf.broadcast_to(tf.cast(entry, tf.float32), (count,)) for entry in entries]
    return tf.reshape(tf.stack(rows, axis=1), (count, 3, 3))


def rotate(angle: tf.Tensor) -> tf.Tensor:
    """Return matrices that turn about the centre by `angle` radians (B,): float32 (B, 3, 3)."""
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return matrices(x=cosine, slant_x=-sine, slant_y=sine, y=cosine, count=angle.shape[0])


def move(batch: Batch, members: list[tuple[Geometric, tf.Tensor]]) -> Batch:
    """Draw every member, in order, and move image, mask and boxes once by the product."""
    count, height, width, _ = batch["image"].shape
    matrix = tf.eye(3, batch_shape=[count])
    for member, seed in members:
        matrix = matrix @ member.draw((count, height, width), seed)
    fill = next((member.fill for member, _ in members if member.fill), "reflect")
    return warp(batch, matrix, fill, exact=all(member.exact for member, _ in members))


def warp(batch: Batch, matrix: tf.Tensor, fill: str = "reflect", *, exact: bool = False) -> Batch:
    """Move image, mask and boxes by float32 (B, 3, 3) from output to input, in pixels about the centre."""
    fill = "black" if "boxes" in batch else fill
    moved = dict(batch, image=sample(batch["image"], matrix, fill=fill, nearest=exact))
    if "mask" in batch:
        mask = sample(batch["mask"][..., None], matrix, fill="black", outside=VOID, nearest=True)
        moved["mask"] = mask[..., 0]
    if "boxes" in batch:
        moved["boxes"], moved["classes"] = _move_boxes(batch["boxes"], batch["classes"], matrix, batch["image"].shape)
    return moved


def _move_boxes(
    boxes: tf.Tensor, classes: tf.Tensor, matrix: tf.Tensor, shape: tf.TensorShape
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the upright hulls of the moved boxes, clipped; those that left the picture get class -1 and zeros."""
    size = tf.constant([shape[1], shape[2]], tf.float32)  # in pixels, y before x
    top, left, bottom, right = tf.unstack((boxes - 0.5) * tf.tile(size, [2]), axis=-1)
    ones = tf.ones_like(top)
    corners = tf.stack(
        [tf.stack([x, y, ones], axis=-1) for x in (left, right) for y in (top, bottom)], axis=2
    )  # (B, N, 4, xy1)
    moved = tf.einsum("bij,bnkj->bnki", tf.linalg.inv(matrix), corners)
    moved = (moved[..., 1::-1] / moved[..., 2:]) / size + 0.5  # y before x again, relative
    return keep_visible(moved, classes)


def keep_visible(points: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the upright hulls of points (B, N, P, yx), relative, clipped to the picture, and their classes.

    Boxes of which less than a fifth stays in the picture, and padding, get class -1 and zeros.
    """
    low, high = tf.reduce_min(points, axis=2), tf.reduce_max(points, axis=2)
    clipped_low, clipped_high = tf.clip_by_value(low, 0.0, 1.0), tf.clip_by_value(high, 0.0, 1.0)
    visible = tf.reduce_prod(clipped_high - clipped_low, axis=-1)
    kept = (classes >= 0) & (visible > 0) & (visible >= _MIN_VISIBLE * tf.reduce_prod(high - low, axis=-1))
    clipped = tf.concat([clipped_low, clipped_high], axis=-1)
    return tf.where(kept[..., None], clipped, 0.0), tf.where(kept, classes, -1)
