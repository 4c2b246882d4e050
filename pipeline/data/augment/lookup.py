"""Arithmetic of pixel operations that are no affine map: tables of 256 entries per image and channel, and sharpening.

They give what Pillow's ImageOps and ImageEnhance give, but for its rounding. Images are float32 (B, H, W, C) in 0..255,
tables float32 (B, C, 256) or smaller ones that broadcast to it.
"""

import tensorflow as tf

from pipeline.data.augment.draw import per_pixel


def histogram(image: tf.Tensor) -> tf.Tensor:
    """Count the rounded values of each image and channel: int32 (B, C, 256)."""
    bins = tf.shape(image)[0] * image.shape[-1] * 256
    counts = tf.math.bincount(tf.reshape(_entries(image), (-1,)), minlength=bins, maxlength=bins)
    return tf.reshape(counts, (-1, image.shape[-1], 256))


def look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Replace every rounded value by its entry in the image's and channel's table (B, C, 256)."""
    return tf.gather(tf.reshape(table, (-1,)), _entries(image))


def posterize(bits: int) -> tf.Tensor:
    """Keep the highest `bits` of eight: float32 (256,)."""
    step = 2 ** (8 - bits)
    return tf.floor(_ramp() / step) * step


def solarize(threshold: float) -> tf.Tensor:
    """Invert values from `threshold` up: float32 (256,)."""
    return tf.where(_ramp() < threshold, _ramp(), 255 - _ramp())


def auto_contrast(counts: tf.Tensor) -> tf.Tensor:
    """Stretch the range of values in use to 0..255, per image and channel: float32 (B, C, 256)."""
    used = tf.cast(counts > 0, tf.int32)
    low = tf.cast(tf.argmax(used, axis=-1), tf.float32)[..., None]
    high = 255 - tf.cast(tf.argmax(used[..., ::-1], axis=-1), tf.float32)[..., None]
    stretched = tf.floor(tf.math.divide_no_nan(255.0, high - low) * (_ramp() - low))
    return tf.where(high > low, tf.clip_by_value(stretched, 0.0, 255.0), _ramp())


def equalize(counts: tf.Tensor) -> tf.Tensor:
    """Flatten the histogram of values, per image and channel, as Pillow does it: float32 (B, C, 256)."""
    positions = tf.range(256) * tf.cast(counts > 0, tf.int32)
    last = tf.gather(counts, tf.reduce_max(positions, axis=-1), batch_dims=2)  # of the highest value in use
    step = ((tf.reduce_sum(counts, axis=-1) - last) // 255)[..., None]
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    flat = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return tf.where(step > 0, tf.cast(flat, tf.float32), _ramp())


def sharpen(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend with a smoothed copy: 0 is smooth, 1 the image, above 1 sharper. factor (B,). The border stays as it is."""
    inner = image[:, 1:-1, 1:-1]
    rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    block = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = (block + 4 * inner) / 13  # Pillow's kernel: 5 in the middle, 1 around it
    detail = tf.pad(inner - smooth, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return tf.clip_by_value(image + (per_pixel(factor) - 1) * detail, 0.0, 255.0)


def _entries(image: tf.Tensor) -> tf.Tensor:
    """Number every pixel's place in the flat table of its image and channel: int32 (B, H, W, C)."""
    channels = image.shape[-1]
    table = tf.range(tf.shape(image)[0] * channels) * 256
    return tf.cast(tf.round(image), tf.int32) + tf.reshape(table, (-1, 1, 1, channels))


def _ramp() -> tf.Tensor:
    return tf.range(256, dtype=tf.float32)
