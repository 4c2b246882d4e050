"""Blur, tones, JPEG and styles: by hand, against Pillow and against SciPy."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from scipy import ndimage

from pipeline.data.augment import compile_augmentations
from pipeline.data.augment.smoothing import kernel, smooth
from pipeline.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = np.clip(RNG.normal(110, 40, (6, 18, 24, 3)), 0, 255).astype(np.uint8)


def apply(name, image=IMAGES, seed=(0, 0), **options):
    augment = compile_augmentations([(name, options)], 2, ())
    return augment({"image": tf.constant(image)}, tf.constant(seed, tf.int64))["image"].numpy()


@pytest.mark.parametrize(
    ("name", "options", "pillows"),
    [
        ("posterize", {"bits": 3}, lambda image: ImageOps.posterize(image, 3)),
        ("solarize", {"threshold": 0.25}, lambda image: ImageOps.solarize(image, 64)),
        ("equalize", {}, ImageOps.equalize),
        ("autocontrast", {}, ImageOps.autocontrast),
    ],
)
def test_tones_are_pillows(name, options, pillows):
    expected = np.stack([np.asarray(pillows(Image.fromarray(image)), np.float32) for image in IMAGES])
    # Pillow cuts off the decimals of auto-contrast.
    atol = 1.0 if name == "autocontrast" else 0
    np.testing.assert_allclose(apply(name, probability=1.0, **options), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "name", ["posterize", "solarize", "equalize", "autocontrast", "blur", "jpeg_noise", "mix_style"]
)
def test_probability_is_the_share_of_changed_images(name):
    image = np.tile(IMAGES, (50, 1, 1, 1))
    options = {"mix_style": {"alpha": 8.0}}.get(name, {})
    for probability, low, high in ((0.0, 0, 0), (0.3, 0.2, 0.4)):
        changed = (apply(name, image, probability=probability, **options) != image).any(axis=(1, 2, 3))
        assert low <= changed.mean() <= high


@pytest.mark.parametrize("sigma", [0.4, 1.5, 4.0])
def test_smoothing_is_scipys(sigma):
    ours = smooth(tf.constant(IMAGES, tf.float32), tf.fill((6,), sigma)).numpy()
    sigmas = (0, sigma, sigma, 0)
    expected = ndimage.gaussian_filter(IMAGES.astype(np.float64), sigmas, mode="reflect", truncate=12)
    np.testing.assert_allclose(ours, expected, atol=0.01)
    assert kernel(5, tf.constant([sigma])).numpy().sum(axis=2) == pytest.approx(np.ones((1, 5)))


def test_blur_draws_a_width_for_each_image():
    image = np.tile(IMAGES[:1], (40, 1, 1, 1))
    spreads = apply("blur", image, sigma=(0.3, 3.0), probability=1.0).std(axis=(1, 2, 3))
    least, most = (ndimage.gaussian_filter(image[0].astype(float), (sigma, sigma, 0)).std() for sigma in (3.0, 0.3))
    assert least - 0.5 < spreads.min() < least + 3
    assert spreads.max() == pytest.approx(most, abs=4)
    np.testing.assert_allclose(apply("blur", np.full((2, 8, 8, 1), 255, np.uint8), probability=1.0), 255, atol=1e-3)


def test_jpeg_noise_is_a_jpeg_of_that_quality():
    ours = apply("jpeg_noise", quality=(40, 40), probability=1.0)
    for image, changed in zip(IMAGES, ours, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=40)
        with Image.open(file) as written:
            # Both are libjpeg's, whose builds round apart.
            assert np.abs(np.asarray(written, np.float32) - changed).mean() < 3
        assert np.abs(image - changed).mean() > 5
    calm = ndimage.gaussian_filter(IMAGES, (0, 3, 3, 0))
    rough, fine = (apply("jpeg_noise", calm, quality=(q, q), probability=1.0) - calm for q in (10, 90))
    assert np.abs(rough).mean() > 2 * np.abs(fine).mean()


def test_mix_style_moves_means_and_deviations_towards_the_next_image():
    image = np.stack([RNG.normal(80, 10, (32, 32, 3)), RNG.normal(160, 20, (32, 32, 3))] * 20).astype(np.float32)
    styled = apply("mix_style", image, alpha=1.0, probability=1.0)
    mean, deviation = image.mean(axis=(1, 2)), image.std(axis=(1, 2))
    share = (styled.mean(axis=(1, 2)) - mean) / (np.roll(mean, -1, axis=0) - mean)
    np.testing.assert_allclose(share, share[:, :1] + np.zeros(3), atol=1e-3)
    assert 0 <= share.min() < 0.2
    assert 0.8 < share.max() <= 1
    np.testing.assert_allclose(
        styled.std(axis=(1, 2)), deviation + share * (np.roll(deviation, -1, axis=0) - deviation), rtol=1e-3
    )
    # The content is the same up to scale.
    assert np.corrcoef(image[0].ravel(), styled[0].ravel())[0, 1] > 0.98
    flat = apply("mix_style", np.full((2, 4, 4, 1), 9, np.uint8), probability=1.0)
    np.testing.assert_array_equal(flat, 9)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blur", {"sigma": (2.0, 1.0)}, r"blur: sigma .* must be \(low, high\)"),
        ("jpeg_noise", {"quality": (90, 20)}, "jpeg_noise: quality"),
        ("jpeg_noise", {"quality": (20, 101)}, "at most 100"),
        ("posterize", {"bits": 9}, "between 1 and 8, not 9"),
        ("elastic", {"amount": 0.2}, "at most half of smoothness"),
        ("aug_mix", {"severity": 11.0}, "between 0.1 and 10, not 11"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        compile_augmentations([(name, options)], 2, ())
