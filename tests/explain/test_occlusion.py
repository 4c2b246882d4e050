"""Occlusion finds what a predictor looks at, of any size and shape of image, and says by how much."""

import numpy as np
import pytest

from pipeline.explain.occlusion import occlusion, runs
from pipeline.explain.overlay import overlay


def brightness_of(rows: slice, columns: slice):
    """Return a predictor whose class 1 is as probable as these pixels are bright."""
    asked = []

    def predict(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        shares = images[:, rows, columns].mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - shares, shares], axis=1)

    predict.asked = asked
    return predict


@pytest.mark.parametrize("shape", [(32, 32, 1), (24, 40, 3)])
def test_the_planted_square_is_found(shape):
    height, width = shape[0] // 8, shape[1] // 8
    rows, columns = slice(2 * height, 4 * height), slice(5 * width, 7 * width)  # 2 × 2 of 8 × 8 cells
    image = np.zeros(shape, np.uint8)
    image[rows, columns] = 240
    heat = occlusion(brightness_of(rows, columns), image, 1)
    assert heat.shape == shape[:2]
    assert heat.dtype == np.float32
    # By hand: a patch over the whole square takes 15/16 of its 240 (the mean is 240 / 16 = 15), one over half of it
    # half of that, over a quarter a quarter; every cell of the square has one of the first, two halves, one quarter.
    whole = (240 - 15) / 255
    np.testing.assert_allclose(heat[rows, columns], whole * (1 + 0.5 + 0.5 + 0.25) / 4, rtol=1e-6)
    far = np.ones(shape[:2], bool)
    far[height : 5 * height, 4 * width :] = False
    np.testing.assert_array_equal(heat[far], 0)
    np.testing.assert_allclose(occlusion(brightness_of(rows, columns), image, 0), -heat, atol=1e-6)


def test_an_image_smaller_than_the_grid_has_a_cell_for_each_pixel():
    predict = brightness_of(slice(0, 1), slice(2, 3))
    image = np.zeros((3, 5, 1), np.uint8)
    image[0, 2] = 255
    heat = occlusion(predict, image, 1)
    assert np.unravel_index(heat.argmax(), heat.shape) == (0, 2)
    assert sum(predict.asked) == 1 + 4 * 6


def test_the_number_of_runs_is_told():
    predict = brightness_of(slice(None), slice(None))
    occlusion(predict, np.zeros((16, 16, 3), np.uint8), 0)
    assert predict.asked == [41, 41]
    assert sum(predict.asked) == runs()


def test_hotter_is_brighter_and_below_zero_is_cold():
    heat = np.array([[-1.0, 0.0, 0.2, 0.4, 0.8]])
    drawn = overlay(np.full((1, 5, 1), 100, np.uint8), heat, 0.8)
    assert drawn.shape == (1, 5, 3)
    assert drawn.dtype == np.uint8
    luminance = drawn[0] @ [0.299, 0.587, 0.114]
    assert luminance[0] == luminance[1]
    assert (np.diff(luminance[1:]) > 10).all()
    np.testing.assert_array_equal(overlay(np.zeros((1, 5, 3)), heat * 0, 0.0)[0, 0], drawn[0, 0] - 30)
