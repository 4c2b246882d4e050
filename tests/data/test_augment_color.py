"""Maps of colours: matrices by hand and against Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from pipeline.data.augment import compile_augmentations
from pipeline.data.augment.color import brighten, map_colors, saturate, spread, turn_hue

RNG = np.random.default_rng(0)


def apply(augmentations, image, seed=(0, 0)):
    return compile_augmentations(augmentations, 2, ())({"image": tf.constant(image)}, tf.constant(seed))[
        "image"
    ].numpy()


def pixels(*colors):
    return tf.constant([[[list(color) for color in colors]]], tf.float32)


def test_by_hand():
    image = pixels((100, 50, 200), (0, 0, 0))
    one = lambda value: tf.constant([value])  # noqa: E731
    np.testing.assert_allclose(map_colors(image, brighten(one(1.5)))[0, 0], [[150, 75, 255], [0, 0, 0]])
    np.testing.assert_allclose(map_colors(image, saturate(one(0.0)))[0, 0, 0], [82.05] * 3, rtol=1e-5)
    mean = tf.constant([[40.0, 40.0, 40.0]])
    np.testing.assert_allclose(map_colors(image, spread(one(0.5), mean))[0, 0], [[70, 45, 120], [20, 20, 20]])


def test_hue_turns():
    image = pixels((200, 80, 40))
    np.testing.assert_allclose(map_colors(image, turn_hue(tf.constant([2 * np.pi])))[0, 0, 0], [200, 80, 40], atol=1e-2)
    turned = map_colors(image, turn_hue(tf.constant([0.7])))[0, 0, 0].numpy()
    assert turned @ [0.299, 0.587, 0.114] == pytest.approx(np.array([200, 80, 40]) @ [0.299, 0.587, 0.114], rel=1e-4)
    assert np.abs(turned - [200, 80, 40]).max() > 20


@pytest.mark.parametrize(
    ("enhancer", "matrix"),
    [
        (ImageEnhance.Brightness, lambda image, factor: brighten(factor)),
        (ImageEnhance.Contrast, lambda image, factor: spread(factor, tf.reduce_mean(image, (1, 2)))),
        (ImageEnhance.Color, lambda image, factor: saturate(factor)),
    ],
)
@pytest.mark.parametrize("factor", [0.4, 1.0, 1.6])
def test_agrees_with_pillow(enhancer, matrix, factor):
    image = RNG.integers(0, 256, (20, 30, 3), np.uint8)
    expected = np.asarray(enhancer(Image.fromarray(image)).enhance(factor), np.float32)
    batch = tf.constant(image[None], tf.float32)
    ours = map_colors(batch, matrix(batch, tf.constant([factor])))[0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1.6)


def test_contrast_is_about_the_mean_of_the_brightened_image():
    image = RNG.integers(60, 120, (1, 8, 8, 3), np.uint8).astype(np.float32)
    factor = tf.constant([1.3])
    step = map_colors(tf.constant(image), brighten(factor))
    two = map_colors(step, spread(factor, tf.reduce_mean(step, (1, 2))))
    fused = spread(factor, tf.reduce_mean(image, (1, 2)) * 1.3) @ brighten(factor)
    np.testing.assert_allclose(map_colors(tf.constant(image), fused), two, atol=1e-3)
    chained = apply([("brightness", {"amount": 0.3}), ("contrast", {"amount": 0.3})], image)
    # Whatever was drawn, it is one scale about the grey level that brightening gave the mean.
    first = apply([("brightness", {"amount": 0.3})], image)
    luma = np.array([0.299, 0.587, 0.114])
    assert chained.mean((1, 2)) @ luma == pytest.approx(first.mean((1, 2)) @ luma, rel=1e-3)


def test_consecutive_maps_are_one_product():
    image = tf.constant(RNG.uniform(0, 255, (4, 6, 6, 3)).astype(np.float32))
    chain = [(name, {}) for name in ("brightness", "contrast", "saturation", "hue", "grey")]
    augment = compile_augmentations(chain, 2, ())
    graph = tf.function(augment).get_concrete_function({"image": image}, tf.constant((0, 0))).graph
    assert [op.type for op in graph.get_operations()].count("PartitionedCall") == 1  # the compiled colour map


@pytest.mark.parametrize("name", ["saturation", "hue", "grey"])
def test_grey_images_have_no_color_to_change(name):
    image = RNG.integers(0, 256, (5, 6, 6, 1), np.uint8)
    np.testing.assert_allclose(apply([(name, {})], image), image, atol=1e-2)


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_grey_images_agree_with_grey_rgb(name):
    image = RNG.integers(0, 256, (5, 6, 6, 1), np.uint8)
    rgb = apply([(name, {})], np.repeat(image, 3, axis=-1))
    np.testing.assert_allclose(apply([(name, {})], image), rgb[..., :1], atol=1e-2)


def test_grey_draws_its_share():
    image = np.tile(np.uint8([200, 10, 30]), (400, 2, 2, 1))
    result = apply([("grey", {"probability": 0.25})], image)
    assert 60 < np.isclose(result[:, 0, 0, 0], result[:, 0, 0, 1]).sum() < 140
