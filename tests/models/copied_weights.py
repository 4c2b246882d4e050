"""Comparison with the same architecture elsewhere: equal weights give equal answers."""

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


def check_equal(ours: keras.Model, theirs: keras.Model, *, tolerance: float = 1e-4) -> None:
    """Copy our weights, which must be in their order, and compare the logits; their input is rescaled to [-1, 1]."""
    spread(ours)
    # Sizes, not shapes, must agree: a classifier may be a 1x1 convolution there and a dense layer here.
    weights = [value.reshape(weight.shape) for value, weight in zip(ours.get_weights(), theirs.weights, strict=True)]
    theirs.set_weights(weights)
    images = np.random.default_rng(1).uniform(0, 255, (2, *ours.input.shape[1:])).astype("float32")
    expected, actual = np.asarray(theirs(images / 127.5 - 1)), np.asarray(ours(images))
    largest = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.01 * largest  # they depend on the image
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * largest)
