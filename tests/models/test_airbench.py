"""airbench: its size, and what its first and its other layers begin as."""

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.models.airbench import whiten_patches
from pipeline.models.inspect import summary
from pipeline.registry import MODELS


@pytest.mark.parametrize(("name", "first", "rest"), [("airbench94", 64, 256), ("airbench95", 128, 384)])
def test_the_network_has_the_parameters_of_its_layers(name, first, rest):
    # By hand: 24 whitening kernels and biases, six convolutions, their offsets, and a classifier with a bias.
    kernels = 9 * (24 * first + first * first + first * rest + 3 * rest * rest)
    assert summary(name).trainable == (2 * 2 * 3 * 24 + 24) + kernels + 2 * (first + 2 * rest) + 10 * (rest + 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_of_photographs_are_whitened(channels):
    photos = []
    for photo in load_sample_images().images:
        small = Image.fromarray(photo).resize((160, 107), Image.Resampling.BOX)
        photos.append(np.asarray(small if channels == 3 else small.convert("L"), np.float32).reshape(107, 160, -1))
    pixels, same = np.stack(photos) / 127.5 - 1, np.eye(4 * channels, dtype=np.float32).reshape(2, 2, channels, -1)
    raw, white = (
        keras.ops.convert_to_numpy(keras.ops.conv(pixels, kernel, padding="valid")).reshape(-1, kernel.shape[-1])
        for kernel in (same, whiten_patches(channels))
    )
    first, negative = np.split(white, 2, axis=1)
    np.testing.assert_array_equal(first, -negative)
    before, after = (np.linalg.cond(values.T @ values) for values in (raw, first))
    assert before > 40 * after


def test_a_block_begins_by_handing_its_input_on():
    model = MODELS.build("airbench_tiny", (32, 32, 3), 5)
    layer = model.get_layer("stage3_2_conv")  # as many outputs as inputs
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 32)).astype(np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), x)
    widening = keras.ops.convert_to_numpy(model.get_layer("stage2_1_conv").kernel)
    np.testing.assert_array_equal(widening[..., :32].sum(axis=(0, 1)), np.eye(32))
    assert widening[..., 32:].std() == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.1)
