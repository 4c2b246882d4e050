"""Pictures of a page: left as they are where they are small, made smaller together where they are not."""

import base64
import io

import numpy as np
from PIL import Image

from pipeline.evaluation.pictures import base64_pngs


def opened(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_small_pictures_stay_exact():
    pictures = [noise(8, 8), noise(20, 30)]
    for png, picture in zip(base64_pngs(pictures), pictures, strict=True):
        np.testing.assert_array_equal(opened(png), picture)
    assert base64_pngs([]) == []


def test_the_worst_pictures_fit_with_their_shape_kept():
    pngs = base64_pngs([noise(160, 240)] * 8, most=100_000)
    assert 40_000 < sum(len(base64.b64decode(png)) for png in pngs) <= 100_000
    assert {opened(png).shape for png in pngs} == {opened(pngs[0]).shape}
    height, width, _ = opened(pngs[0]).shape
    assert abs(width / height - 1.5) < 0.05


def test_more_pictures_than_bytes_end():
    assert len(base64_pngs([noise(3, 3)] * 4, most=10)) == 4
