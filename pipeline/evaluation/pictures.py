"""Pictures as a page holds them: PNG in base64, together no larger than a page can bear."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

MOST_BYTES = 600_000  # of one group of pictures: a report has a few of them, and is to stay below 5 MB
_COARSER = 0.9  # PNG shrinks a little less than the number of pixels does


def base64_pngs(pictures: Sequence[np.ndarray], *, most: int = MOST_BYTES) -> list[str]:
    """Return uint8 pictures (H, W, 3) for a page; all are made smaller by one factor until they fit `most` bytes."""
    images = [Image.fromarray(picture) for picture in pictures]
    files, scale = [_png(image) for image in images], 1.0
    while (size := sum(map(len, files))) > most and max(side for image in images for side in image.size) * scale > 1:
        scale *= _COARSER * math.sqrt(most / size)
        files = [_png(_smaller(image, scale)) for image in images]
    return [base64.b64encode(file).decode() for file in files]


def _smaller(image: Image.Image, scale: float) -> Image.Image:
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BOX)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
