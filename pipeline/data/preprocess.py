"""How any image file becomes model input: the same pixels in training, evaluation, export and predict."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import tensorflow as tf

from pipeline.data.decoding import decode_image, decode_mask
from pipeline.data.headers import Refusal, scan_headers
from pipeline.errors import UserError
from pipeline.ops.segmentation import VOID

_RESIZES = ("stretch", "crop", "pad")


@dataclass(frozen=True)
class Preprocess:
    """Fit any image to `image_size` = (height, width) and `channels` (1 grey, 3 RGB), as uint8 in 0..255.

    The picture is scaled to `scaled` pixels by an antialiased bilinear (triangle) filter with half-pixel centres, then
    laid on the canvas at floor((image_size - scaled) / 2), and rounded to uint8. What sticks out is cut off, what stays
    free is black. `scaled` is

    - stretch: image_size; the aspect ratio changes, as MediaPipe's clients do it,
    - crop: the size whose short side just covers the canvas,
    - pad: the size whose long side just fits into it.
    """

    image_size: tuple[int, int]
    channels: int = 3
    resize: str = "stretch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", tuple(self.image_size))
        if self.resize not in _RESIZES or self.channels not in (1, 3) or min(self.image_size) < 1:
            raise ValueError(f"not a way to fit images: {self}")

    def read(self, encoded: tf.Tensor, orientation: tf.Tensor | int = 1) -> tf.Tensor:
        """Decode one file's bytes, turn it upright and fit it: uint8 (H, W, C). Graph-safe.

        Raises InvalidArgumentError for bytes that are not a whole JPEG, PNG, GIF, BMP or WebP image.
        """
        return self.resize_image(decode_image(encoded, orientation))

    def read_file(self, path: str | Path) -> np.ndarray:
        """Read one file: uint8 (H, W, C). Raises UserError in one sentence for whatever is wrong with it."""
        [header] = scan_headers([path])
        if isinstance(header, Refusal):
            raise UserError(f"{path} {header.reason}.")
        try:
            return self.read(Path(path).read_bytes(), header.orientation).numpy()
        except (tf.errors.OpError, ValueError):  # TensorFlow's decoders and Pillow's
            raise UserError(f"{path} is damaged or cut short: it cannot be decoded.") from None

    def apply(self, sample: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Decode what a source's sample holds encoded and fit image, mask and boxes; other fields pass through."""
        sample = dict(sample)
        orientation = sample.pop("orientation", 1)
        image = sample["image"]
        if image.dtype == tf.string:
            image = decode_image(image, orientation)
        if "mask" in sample:
            mask = sample["mask"]
            sample["mask"] = self.resize_mask(decode_mask(mask) if mask.dtype == tf.string else mask)
        if "boxes" in sample:
            sample["boxes"] = self.resize_boxes(sample["boxes"], tf.shape(image)[:2])
        return sample | {"image": self.resize_image(image)}

    def resize_image(self, image: tf.Tensor) -> tf.Tensor:
        """Fit one image: uint8 (h, w, 1 | 3) to uint8 (H, W, C)."""
        size, scaled, offset = self._fit(tf.shape(image)[:2])
        # What tf.image.resize(antialias=True) calls, with the offset it leaves out: a crop computes only what it keeps.
        canvas = tf.raw_ops.ScaleAndTranslate(
            images=to_channels(image, self.channels)[None],
            size=self.image_size,
            scale=tf.cast(scaled, tf.float32) / tf.cast(size, tf.float32),
            translation=tf.cast(offset, tf.float32),
            kernel_type="triangle",
            antialias=True,
        )[0]
        return tf.ensure_shape(tf.cast(tf.round(canvas), tf.uint8), (*self.image_size, self.channels))

    def resize_mask(self, mask: tf.Tensor) -> tf.Tensor:
        """Fit one mask of class indices by the nearest pixel: int32 (h, w) to int32 (H, W), VOID where nothing lies."""
        size, scaled, offset = self._fit(tf.shape(mask))
        for axis in (0, 1):
            position = tf.range(self.image_size[axis]) - offset[axis]
            nearest = (2 * position + 1) * size[axis] // (2 * scaled[axis])
            inside = (position >= 0) & (position < scaled[axis])
            picked = tf.gather(mask, tf.clip_by_value(nearest, 0, size[axis] - 1), axis=axis)
            mask = tf.where(tf.expand_dims(inside, 1 - axis), picked, VOID)
        return tf.ensure_shape(mask, self.image_size)

    def resize_boxes(self, boxes: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Move boxes with their image of `size` (h, w): float32 (N, 4), relative to the canvas, clipped to it."""
        _, scaled, offset = self._fit(size)
        scaled, offset = (tf.tile(tf.cast(pair, tf.float32), [2]) for pair in (scaled, offset))
        canvas = tf.constant(self.image_size * 2, tf.float32)
        return tf.clip_by_value((boxes * scaled + offset) / canvas, 0.0, 1.0)

    def to_json(self) -> str:
        """Write preprocess.json: all that a client needs to make the same pixels."""
        note = {
            "orientation": "turned upright by the EXIF tag, before all else",
            "transparency": "dropped",
            "color": "RGB" if self.channels == 3 else "grey: 0.299 R + 0.587 G + 0.114 B",
            "filter": "bilinear (triangle), antialiased, half-pixel centres, rounded to integers",
            "offset": "floor((image_size - scaled) / 2), black outside",
            "pixel_range": [0, 255],
        }
        return json.dumps(dataclasses.asdict(self) | note, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read preprocess.json back; raises UserError when it is not one."""
        try:
            values = json.loads(text)
            return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})
        except (ValueError, KeyError, TypeError):
            raise UserError(
                "preprocess.json does not say image_size, channels and resize; export the run again."
            ) from None

    def _fit(self, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return size, scaled size and offset, int32 (2,) each; offsets are negative where the picture sticks out."""
        size, canvas = tf.cast(size, tf.int32), tf.constant(self.image_size, tf.int32)
        if self.resize == "stretch":
            return size, canvas, tf.zeros(2, tf.int32)
        ratios = tf.cast(canvas, tf.float64) / tf.cast(size, tf.float64)
        scale = tf.reduce_max(ratios) if self.resize == "crop" else tf.reduce_min(ratios)
        scaled = tf.maximum(tf.cast(tf.round(tf.cast(size, tf.float64) * scale), tf.int32), 1)
        return size, scaled, (canvas - scaled) // 2


def to_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Make colour of grey, or grey of colour: uint8 (h, w, 1 | 3) to uint8 (h, w, channels)."""
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return tf.tile(image, (1, 1, 3))
    grey = tf.tensordot(tf.cast(image, tf.float32), tf.constant([0.299, 0.587, 0.114]), 1)
    return tf.cast(tf.round(grey), tf.uint8)[..., None]
