"""From the bytes of an image file to pixels, and from the bytes of a mask to class indices, inside tf.data."""

import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

# TensorFlow's default is up to 16 grey levels off what phones, browsers and Pillow decode, 1 on average.
JPEG_TRANSFORM = "INTEGER_ACCURATE"


def decode_image(encoded: tf.Tensor, orientation: tf.Tensor | int = 1) -> tf.Tensor:
    """Decode and turn upright: uint8 (h, w, 3). The first frame of an animation; transparency is dropped.

    Sixteen-bit images keep their high byte.
    """
    # TensorFlow takes a BMP's palette indices for grey values, and fails on BMP of one bit per pixel and on WebP
    # animations, which are one kind of extended (VP8X) WebP. Pillow reads them all.
    by_pillow = (tf.strings.substr(encoded, 0, 2) == b"BM") | (tf.strings.substr(encoded, 12, 4) == b"VP8X")
    image = tf.case(
        [
            (by_pillow, lambda: _through_numpy(_decode_with_pillow, encoded, tf.uint8)),
            (tf.io.is_jpeg(encoded), lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=JPEG_TRANSFORM)),
        ],
        default=lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    image.set_shape((None, None, 3))
    return image if isinstance(orientation, int) and orientation == 1 else turn_upright(image, orientation)


def turn_upright(image: tf.Tensor, orientation: tf.Tensor | int) -> tf.Tensor:
    """Undo the camera's rotation: (h, w, C) by the EXIF orientation, 1 to 8."""
    orientation = tf.convert_to_tensor(orientation, tf.int32)

    def turn() -> tf.Tensor:
        turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        turned = tf.cond(_is_any(orientation, 2, 3, 6, 7), lambda: turned[:, ::-1], lambda: turned)
        return tf.cond(_is_any(orientation, 3, 4, 7, 8), lambda: turned[::-1], lambda: turned)

    return tf.cond(orientation > 1, turn, lambda: image)


def decode_mask(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a PNG of class indices: int32 (h, w). In a palette image the index is the class, not its colour."""
    # PNG bytes 24 and 25 are the bit depth and the colour type (0: grey). TensorFlow gives a palette's colours,
    # and stretches 1, 2 and 4 bits to 0..255; Pillow can be asked for what is stored.
    mask = tf.cond(
        tf.strings.substr(encoded, 24, 2) == b"\x08\x00",
        lambda: tf.cast(tf.io.decode_png(encoded, channels=1)[..., 0], tf.int32),
        lambda: _through_numpy(read_indices, encoded, tf.int32),
    )
    mask.set_shape((None, None))
    return mask


def read_indices(encoded: bytes) -> np.ndarray:
    """Return the class indices that a mask's bytes store: int32 (h, w). Raises ValueError for a colour image."""
    depth = encoded[24] if encoded.startswith(b"\x89PNG") else 8
    with _opened(encoded) as image:
        if image.mode not in ("P", "L", "1", "I;16", "I"):
            raise ValueError("a mask must hold one class index per pixel, not colours")
        indices = np.asarray(image, np.int32)
        return indices // (255 // (2**depth - 1)) if image.mode == "L" and depth < 8 else indices


def _decode_with_pillow(encoded: bytes) -> np.ndarray:
    with _opened(encoded) as image:
        return np.asarray(image.convert("RGB"))


def _through_numpy(function: Callable[[bytes], np.ndarray], encoded: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    # As bytes in an array: an eager string would arrive as a NumPy string, which loses zeros at its end.
    content = tf.io.decode_raw(encoded, tf.uint8)
    return tf.numpy_function(lambda array: function(array.tobytes()), [content], dtype, stateful=False)


def _opened(encoded: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except Exception as error:  # damaged files surface as OSError, SyntaxError, struct.error and more
        raise ValueError(f"not a whole image: {error}") from None
    return image


def _is_any(value: tf.Tensor, *candidates: int) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(candidates))
