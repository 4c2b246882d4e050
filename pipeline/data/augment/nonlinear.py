"""Pixel operations that are no affine map, as Pillow's ImageOps and ImageEnhance do them.

Images are float32 (B, H, W, C) in 0..255. Nothing is rounded unless the operation itself does it.
"""

import tensorflow as tf

from pipeline.data.augment.draw import per_pixel


def posterize(image: tf.Tensor, bits: tf.Tensor | float) -> tf.Tensor:
    """Keep the highest `bits` of eight: one number, or one for each image (B,)."""
    step = per_pixel(2.0 ** (8 - bits))
    return tf.floor(image / step) * step


def solarize(image: tf.Tensor, threshold: tf.Tensor | float) -> tf.Tensor:
    """Invert values from `threshold` up: one number, or one for each image (B,)."""
    return tf.where(image < per_pixel(threshold), image, 255 - image)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Flatten the histogram of each image and channel, by one table of 256 entries for each, as Pillow makes it."""
    tables = tf.range(tf.shape(image)[0] * image.shape[-1]) * 256
    entries = tf.cast(tf.round(image), tf.int32) + tf.reshape(tables, (-1, 1, 1, image.shape[-1]))
    bins = tf.size(tables) * 256
    counts = tf.reshape(tf.math.bincount(tf.reshape(entries, (-1,)), minlength=bins, maxlength=bins), (-1, 256))
    return tf.gather(tf.reshape(_equalizing_tables(counts), (-1,)), entries)


def sharpen(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend with a smoothed copy: 0 is smooth, 1 the image, above 1 sharper. factor (B,). The border stays as it is."""
    inner = image[:, 1:-1, 1:-1]
    rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    block = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = (block + 4 * inner) / 13  # Pillow's kernel: 5 in the middle, 1 around it
    detail = tf.pad(inner - smooth, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return tf.clip_by_value(image + (per_pixel(factor) - 1) * detail, 0.0, 255.0)


def _equalizing_tables(counts: tf.Tensor) -> tf.Tensor:
    """Turn histograms, int32 (N, 256), into tables of new values, float32 (N, 256)."""
    values = tf.range(256)
    highest = tf.reduce_max(values * tf.cast(counts > 0, tf.int32), axis=1)
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, highest, batch_dims=1))[:, None] // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    flat = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return tf.cast(tf.where(step > 0, flat, values), tf.float32)
