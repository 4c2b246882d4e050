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


def assert_same_answers(ours: keras.Model, theirs: keras.Model, prepare: Callable[[np.ndarray], np.ndarray]) -> None:
    """Copy our spread weights into theirs, shapes aside, and compare the logits within 1e-4 of the largest.

    `prepare` turns raw pixels into what theirs takes. Their Normalization keeps its own numbers.
    """
    spread(ours)
    targets = [
        weight
        for layer in theirs.layers
        if not isinstance(layer, keras.layers.Normalization)
        for weight in layer.weights
    ]
    for weight, value in zip(targets, ours.get_weights(), strict=True):
        assert value.size == np.prod(weight.shape), weight.path
        weight.assign(value.reshape(weight.shape))
    images = np.random.default_rng(1).uniform(0, 255, (2, *ours.input.shape[1:])).astype("float32")
    expected = theirs.predict(prepare(images), verbose=0)
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # it depends on the image
    actual = ours.predict(images, verbose=0)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()
