"""Elastic deformation: the field, and image, mask and boxes that stay together."""

import numpy as np
import pytest
import tensorflow as tf

from pipeline.data.augment.elastic import displace, displacement

SHAPE = (4, 48, 40)


def field_of(right=0.0, down=0.0, shape=SHAPE):
    return tf.broadcast_to(tf.constant([right, down], tf.float32), (*shape, 2))


def scene(count=4):
    """Pictures with one bright rectangle, its mask and its box."""
    image, mask = np.zeros((count, 48, 40, 1), np.float32), np.zeros((count, 48, 40), np.int32)
    image[:, 12:32, 10:26], mask[:, 12:32, 10:26] = 200, 1
    boxes = np.tile(np.float32([[[12 / 48, 10 / 40, 32 / 48, 26 / 40], [0, 0, 0, 0]]]), (count, 1, 1))
    classes = np.tile(np.int32([3, -1]), (count, 1))
    batch = {"image": image, "mask": mask, "boxes": boxes, "classes": classes}
    return {key: tf.constant(value) for key, value in batch.items()}


def test_a_constant_field_is_a_shift():
    moved = displace(scene(), field_of(right=3.0, down=-2.0), "reflect")
    before = scene()
    np.testing.assert_array_equal(moved["image"][:, 2:, :-3], before["image"][:, :-2, 3:])
    np.testing.assert_array_equal(moved["mask"][:, 2:, :-3], before["mask"][:, :-2, 3:])
    assert np.all(moved["mask"].numpy()[:, :2] == 255)
    assert np.all(moved["image"].numpy()[:, :2] == 0)
    np.testing.assert_allclose(moved["boxes"][:, 0], [[14 / 48, 7 / 40, 34 / 48, 23 / 40]] * 4, atol=1e-5)
    assert moved["classes"].numpy().tolist() == [[3, -1]] * 4
    half = displace({"image": before["image"]}, field_of(right=0.5), "nearest")["image"].numpy()
    assert half[0, 20, 8:12, 0].tolist() == [0, 100, 200, 200]


def test_boxes_that_leave_are_dropped():
    gone = displace(scene(), field_of(right=24.0), "black")
    assert gone["classes"].numpy().tolist() == [[-1, -1]] * 4
    assert not gone["boxes"].numpy().any()


def test_boxes_and_masks_follow_the_picture():
    moved = displace(scene(), displacement(SHAPE, tf.constant((5, 1)), 0.06, 0.14), "reflect")
    for image, mask, box in zip(moved["image"].numpy(), moved["mask"].numpy(), moved["boxes"].numpy(), strict=True):
        bright = image[..., 0] > 100
        assert np.mean(bright == (mask == 1)) > 0.985  # an edge pixel may fall either way
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        hull = [rows[0] / 48, columns[0] / 40, (rows[-1] + 1) / 48, (columns[-1] + 1) / 40]
        np.testing.assert_allclose(box[0], hull, atol=1.1 / 40)
        assert np.abs(box[0] - scene()["boxes"].numpy()[0, 0]).max() > 0.5 / 48


@pytest.mark.parametrize(("amount", "smoothness"), [(0.05, 0.14), (0.02, 0.05)])
def test_the_field_is_as_large_and_as_smooth_as_said(amount, smoothness):
    field = displacement((60, 64, 64), tf.constant((1, 2)), amount, smoothness).numpy()
    inner = field[:, 20:44, 20:44]
    assert inner.std() == pytest.approx(amount * 64, rel=0.1)
    # A smoothed white noise has slopes of its deviation over the root of two sigmas.
    slope = (inner[:, :, 1:] - inner[:, :, :-1]).std()
    assert slope == pytest.approx(amount / smoothness / np.sqrt(2), rel=0.15)
    assert abs(np.corrcoef(inner[..., 0].ravel(), inner[..., 1].ravel())[0, 1]) < 0.3
