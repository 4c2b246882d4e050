"""Colours and pictures."""

import numpy as np

from pipeline.tasks.drawing import as_rgb, overlay, palette


def test_the_palette_is_fixed_and_its_colours_differ():
    many = palette(60)
    assert np.array_equal(palette(5), many[:5])
    assert len(np.unique(many, axis=0)) == 60


def test_as_rgb_rounds_clips_and_repeats_grey():
    assert as_rgb(np.array([[[-3.0], [300.0], [1.6]]])).tolist() == [[[0, 0, 0], [255, 255, 255], [2, 2, 2]]]


def test_overlay_keeps_the_image_visible():
    image = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    tinted = overlay(image, np.array([[1, 1]]), 3)
    assert tinted[0, 0].tolist() != tinted[0, 1].tolist()
