"""The same weights in our network and in one of keras.applications: the answers have to be the same."""

from collections.abc import Callable

import keras
import numpy as np


def spread(model: keras.Model) -> None:
    """Give every weight a value of its own, so that swapped or missing ones show."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.3, weight.shape))


def centred(images: np.ndarray) -> np.ndarray:
    """Rescale raw pixels to [-1, 1], as most of keras.applications want them."""
    return images / 127.5 - 1


def check_equal(
    ours: keras.Model,
    theirs: keras.Model,
    prepare: Callable[[np.ndarray], np.ndarray] = centred,
    *,
    tolerance: float = 1e-4,
) -> None:
    """Copy our spread weights into theirs, in order and shapes aside, and compare the logits.

    `prepare` turns raw pixels into what theirs takes. Their Normalization keeps its own numbers; a classifier may be a
    1x1 convolution there and a dense layer here.
    """
    spread(ours)
    kept = keras.layers.Normalization
    targets = [weight for layer in theirs.layers if not isinstance(layer, kept) for weight in layer.weights]
    for weight, value in zip(targets, ours.get_weights(), strict=True):
        assert value.size == np.prod(weight.shape), weight.path
        weight.assign(value.reshape(weight.shape))
    images = np.random.default_rng(1).uniform(0, 255, (2, *ours.input.shape[1:])).astype("float32")
    expected, actual = np.asarray(theirs(prepare(images))), np.asarray(ours(images))
    largest = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-3 * largest  # they depend on the image
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * largest)
