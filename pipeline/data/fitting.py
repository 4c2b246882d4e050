"""From one sample of a source to one that fits into a batch: exactly, or quickly where it is warped afterwards."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import tensorflow as tf

from pipeline.data.decoding import JPEG_TRANSFORM, decode_image
from pipeline.data.preprocess import Preprocess, to_channels
from pipeline.data.source import Sample

_SCALES = (1, 2, 4, 8)  # by which libjpeg can divide a picture's sides while it decodes


class Decode(Protocol):
    """Decode a sample and fit it to its place in the sequence of all samples that a run reads."""

    def __call__(self, sample: Sample, position: tf.Tensor) -> Sample:
        """Return `image` uint8 (H, W, C), `id` and the task's fields, all of static shape."""


@dataclass(frozen=True)
class ExactDecode:
    """Fit by the preprocessing that evaluation and export use, and pad boxes to `most_boxes` rows."""

    preprocess: Preprocess
    fields: Collection[str]
    most_boxes: int

    def __call__(self, sample: Sample, position: tf.Tensor) -> Sample:
        sample = pick(self.preprocess.apply(sample), self.fields)
        if "boxes" in sample:
            missing = self.most_boxes - tf.shape(sample["boxes"])[0]
            boxes = tf.pad(sample["boxes"], [[0, missing], [0, 0]])
            classes = tf.pad(sample["classes"], [[0, missing]], constant_values=-1)
            sample["boxes"] = tf.ensure_shape(boxes, (self.most_boxes, 4))
            sample["classes"] = tf.ensure_shape(classes, (self.most_boxes,))
        return sample


@dataclass(frozen=True)
class QuickDecode:
    """Fit stretched images for training at half the cost, when augmentation interpolates their pixels anyhow.

    A JPEG is decoded at the smallest of libjpeg's scales that is not below the target, or only inside the window that
    it is zoomed into, and the rest of the way (less than a factor of two) is a plain bilinear resize.

    Args:
        window: function of a position to the window's top, left, height and width as shares of the image, or None.
    """

    preprocess: Preprocess
    fields: Collection[str]
    window: Callable[[tf.Tensor], tf.Tensor] | None

    def __call__(self, sample: Sample, position: tf.Tensor) -> Sample:
        encoded, orientation = sample["image"], tf.convert_to_tensor(sample.get("orientation", 1))
        window = None if self.window is None else self.window(position)
        image = tf.cond(
            tf.io.is_jpeg(encoded) & (orientation == 1),
            lambda: self._decode_jpeg(encoded, window),
            lambda: self._decode_other(encoded, orientation, window),
        )
        fitted = tf.ensure_shape(image, (*self.preprocess.image_size, self.preprocess.channels))
        return pick(sample | {"image": fitted}, self.fields)

    def _decode_jpeg(self, encoded: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
        # In colour: libjpeg makes no grey of CMYK, and another grey of YCbCr than evaluation sees.
        channels, size = 3, tf.io.extract_jpeg_shape(encoded)[:2]
        if window is None:
            scale = _largest_scale(size, self.preprocess.image_size)
            decode = partial(tf.io.decode_jpeg, encoded, channels, dct_method=JPEG_TRANSFORM)
            return self._resize(tf.switch_case(scale, [partial(decode, ratio=ratio) for ratio in _SCALES]))
        cut = tf.image.decode_and_crop_jpeg(encoded, _to_pixels(window, size), channels, dct_method=JPEG_TRANSFORM)
        is_much_larger = _largest_scale(tf.shape(cut)[:2], self.preprocess.image_size) > 0
        return tf.cond(is_much_larger, lambda: self.preprocess.resize_image(cut), lambda: self._resize(cut))

    def _decode_other(self, encoded: tf.Tensor, orientation: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
        image = decode_image(encoded, orientation)
        if window is not None:
            top, left, height, width = tf.unstack(_to_pixels(window, tf.shape(image)[:2]))
            image = image[top : top + height, left : left + width]
        return self.preprocess.resize_image(image)

    def _resize(self, image: tf.Tensor) -> tf.Tensor:
        image = to_channels(image, self.preprocess.channels)
        return tf.cast(tf.image.resize(image, self.preprocess.image_size) + 0.5, tf.uint8)


def pick(sample: Sample, fields: Collection[str]) -> Sample:
    """Return only what training and evaluation use."""
    boxes = {"classes"} if "boxes" in fields else set()
    return {key: sample[key] for key in sorted({"image", "id", *fields, *boxes})}


def _largest_scale(size: tf.Tensor, target: tuple[int, int]) -> tf.Tensor:
    """Return the place in _SCALES of the largest one that leaves both sides at least as large as the target."""
    fits = [tf.reduce_all(size // scale >= tf.constant(target)) for scale in _SCALES[1:]]
    return tf.reduce_sum(tf.cast(tf.stack(fits), tf.int32))


def _to_pixels(window: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Return a window's whole top, left, height and width, at least one pixel inside an image of `size`: int32 (4,)."""
    start, extent = window[:2], window[2:]
    size = tf.cast(size, tf.float32)
    first = tf.minimum(tf.round(start * size), size - 1)
    last = tf.maximum(tf.minimum(tf.round((start + extent) * size), size), first + 1)
    return tf.cast(tf.concat([first, last - first], axis=0), tf.int32)
