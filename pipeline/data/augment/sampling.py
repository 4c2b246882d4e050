"""The one place where pixels are read at moved positions.

Written as gathers and compiled by XLA into one loop: on two CPU cores that takes a quarter of the time of TensorFlow's
ImageProjectiveTransformV3, which XLA cannot compile.
"""

import tensorflow as tf

from pipeline.data.augment.compiled import compiled


def sample(
    images: tf.Tensor, matrix: tf.Tensor, *, fill: str, outside: float = 0.0, nearest: bool = False
) -> tf.Tensor:
    """Read images (B, H, W, C) where float32 (B, 3, 3) says that each output pixel comes from.

    Positions are in pixels right and down of the centre. Whole numbers stay whole with `nearest`, otherwise the result
    is float32, interpolated between four pixels. `fill` says what lies outside: `reflect`, `nearest`, or `black`, which
    is the value `outside`.
    """
    return tf.ensure_shape(compiled(_sample, images, matrix, fill, outside, nearest), images.shape)


def _sample(images: tf.Tensor, matrix: tf.Tensor, fill: str, outside: float, nearest: bool) -> tf.Tensor:
    return read_at(images, *_positions(images.shape, matrix), fill, outside, nearest)


def read_at(
    images: tf.Tensor, x: tf.Tensor, y: tf.Tensor, fill: str, outside: float = 0.0, nearest: bool = False
) -> tf.Tensor:
    """Read images (B, H, W, C) at columns x and rows y, (B, M, N) each, counted from the corner's pixel centre.

    The result is (B, M, N, C); the other arguments are those of `sample`.
    """
    if nearest:
        return _read(images, tf.floor(x + 0.5), tf.floor(y + 0.5), fill, outside)
    left, top = tf.floor(x), tf.floor(y)
    right_share, low_share = (x - left)[..., None], (y - top)[..., None]

    def row(y: tf.Tensor) -> tf.Tensor:
        first, second = (tf.cast(_read(images, x, y, fill, outside), tf.float32) for x in (left, left + 1))
        return first + right_share * (second - first)

    high, low = row(top), row(top + 1)
    return high + low_share * (low - high)


def _positions(shape: tf.TensorShape, matrix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return for every output pixel the column and the row it comes from, counted from the corner: (B, H, W) each."""
    _, height, width, _ = shape
    across = (tf.range(width, dtype=tf.float32) - (width - 1) / 2)[None, None, :]
    down = (tf.range(height, dtype=tf.float32) - (height - 1) / 2)[None, :, None]
    entry = matrix[..., None, None]
    x = entry[:, 0, 0] * across + entry[:, 0, 1] * down + entry[:, 0, 2] + (width - 1) / 2
    y = entry[:, 1, 0] * across + entry[:, 1, 1] * down + entry[:, 1, 2] + (height - 1) / 2
    return x, y


def _read(images: tf.Tensor, x: tf.Tensor, y: tf.Tensor, fill: str, outside: float) -> tf.Tensor:
    """Read whole positions, (B, H, W) each, inside or outside the images."""
    count, height, width, channels = images.shape
    x, y = tf.cast(x, tf.int32), tf.cast(y, tf.int32)
    column, row = (_wrap(x, width), _wrap(y, height)) if fill == "reflect" else (_clip(x, width), _clip(y, height))
    first = tf.range(count)[:, None, None] * (height * width)
    pixels = tf.gather(tf.reshape(images, (-1, channels)), first + row * width + column)
    if fill != "black":
        return pixels
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return tf.where(is_inside[..., None], pixels, tf.cast(outside, pixels.dtype))


def _wrap(position: tf.Tensor, size: int) -> tf.Tensor:
    """Mirror positions at the borders, the outermost pixel twice: b a | a b c d | d c."""
    within = tf.math.floormod(position, 2 * size)
    return tf.minimum(within, 2 * size - 1 - within)


def _clip(position: tf.Tensor, size: int) -> tf.Tensor:
    return tf.clip_by_value(position, 0, size - 1)
