"""RandAugment and its operations, against Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from pipeline.data.augment import compile_augmentations
from pipeline.data.augment.color import map_colors, stretch
from pipeline.data.augment.nonlinear import equalize, posterize, sharpen, solarize
from pipeline.data.augment.policies import _OPERATIONS, _draw, _motion, _recolor
from pipeline.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = [
    np.clip(RNG.normal(110, 30, (20, 30, 3)), 0, 255).astype(np.uint8),
    RNG.integers(0, 256, (20, 30, 3), np.uint8),
    np.full((20, 30, 3), 77, np.uint8),
    np.tile(np.uint8([[[10, 200, 30], [40, 60, 90]]]), (20, 15, 1)),
]
BATCH = tf.constant(np.stack(IMAGES), tf.float32)


def with_pillow(function):
    return np.stack([np.asarray(function(Image.fromarray(image)), np.float32) for image in IMAGES])


@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (lambda: posterize(BATCH, 4), lambda image: ImageOps.posterize(image, 4)),
        (lambda: solarize(BATCH, 100.0), lambda image: ImageOps.solarize(image, 100)),
        (lambda: equalize(BATCH), ImageOps.equalize),
        (lambda: map_colors(BATCH, stretch(BATCH)), ImageOps.autocontrast),
        (lambda: sharpen(BATCH, tf.fill((4,), 1.9)), lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
        (lambda: sharpen(BATCH, tf.fill((4,), 0.1)), lambda image: ImageEnhance.Sharpness(image).enhance(0.1)),
    ],
    ids=["posterize", "solarize", "equalize", "auto_contrast", "sharpen", "smooth"],
)
def test_agrees_with_pillow(ours, pillows):
    # Pillow rounds the smoothed copy before it blends, and cuts the blend's decimals off.
    np.testing.assert_allclose(ours().numpy(), with_pillow(pillows), atol=1.5)


def test_each_operation_reaches_only_the_images_that_drew_it():
    image = tf.tile(BATCH[:1], (len(_OPERATIONS), 1, 1, 1))
    operation = tf.range(len(_OPERATIONS))
    changed = _recolor(image, operation, tf.ones(len(_OPERATIONS)), 0.9).numpy()
    same = [np.array_equal(row, IMAGES[0].astype(np.float32)) for row in changed]
    moves = [name for name, is_same in zip(_OPERATIONS, same, strict=True) if is_same]
    assert moves == ["identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"]
    expected = ImageOps.equalize(Image.fromarray(IMAGES[0]))
    np.testing.assert_allclose(changed[_OPERATIONS.index("equalize")], np.asarray(expected), atol=1.01)


def test_no_image_draws_anything():
    unchanged = _recolor(BATCH, tf.fill((4,), _OPERATIONS.index("identity")), tf.ones(4), 0.9)
    np.testing.assert_array_equal(unchanged, BATCH)


def test_motions_by_hand():
    operation = tf.range(1, 6)
    matrices = _motion(operation, tf.fill((5,), 0.5), (5, 100, 200)).numpy()
    np.testing.assert_allclose(matrices[0], [[1, 0.15, 0], [0, 1, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(matrices[1], [[1, 0, 0], [0.15, 1, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(matrices[2], [[1, 0, 45], [0, 1, 0], [0, 0, 1]], atol=1e-4)
    np.testing.assert_allclose(matrices[3], [[1, 0, 0], [0, 1, 22.5], [0, 0, 1]], atol=1e-4)
    np.testing.assert_allclose(matrices[4][0, :2], [np.cos(np.pi / 12), -np.sin(np.pi / 12)], atol=1e-6)


def test_every_operation_is_drawn_alike():
    [(operation, sign)] = _draw(tf.constant((1, 2)), 1, 14000)
    counts = np.bincount(operation.numpy(), minlength=14)
    assert len(_OPERATIONS) == 14
    assert counts.min() > 850
    assert counts.max() < 1150
    assert abs(sign.numpy().mean()) < 0.05


def test_magnitude_zero_leaves_most_alone():
    image = np.stack(IMAGES[1:2] * 32)
    batch = {"image": tf.constant(image)}
    augment = compile_augmentations([("rand_augment", {"operations": 1, "magnitude": 0.0})], 2, ())
    result = augment(batch, tf.constant((0, 0)))["image"].numpy()
    changed = np.abs(result - image).max(axis=(1, 2, 3)) > 1
    assert changed.mean() < 0.35  # only equalize and auto-contrast have no magnitude


def test_fuses_with_neighbouring_motions():
    augment = compile_augmentations([("flip", {}), ("rand_augment", {})], 2, ())
    graph = tf.function(augment).get_concrete_function({"image": BATCH}, tf.constant((0, 0))).graph
    assert [op.type for op in graph.get_operations()].count("PartitionedCall") == 1  # the compiled warp


def test_magnitude_above_ten_is_refused():
    with pytest.raises(UserError, match="between 0 and 10, not 11"):
        compile_augmentations([("rand_augment", {"magnitude": 11})], 2, ())
