"""The models that the compression tests share: small, and with statistics that make a mistake visible."""

import keras
import numpy as np
from representatives import build, settle
from seeding import set_seed

from pipeline.export.compress import mask_channels, prune_channels
from pipeline.export.compress.graph import Graph
from pipeline.export.compress.rebuild import copy, rebuild

layers = keras.layers


def registered(name: str, **options) -> keras.Model:
    """Build a registered model narrow and for 32 x 32 images, with the statistics of a trained one."""
    return calibrate(settle(build(name, **options)))


def precise(model: keras.Model) -> keras.Model:
    """Rebuild in float64, where two ways to compute the same differ by nothing that is not a mistake."""

    def in_float64(layer: keras.Operation) -> keras.Operation | None:
        return copy(layer, dtype="float64") if isinstance(layer, keras.layers.Layer) else None

    return rebuild(Graph.of(model), replace=in_float64)


def calibrate(model: keras.Model) -> keras.Model:
    """Give batch norms nearly the statistics of their inputs: with others, the answer of a deep net is a constant."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images(model, 8), training=True)
    rng = np.random.default_rng(2)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for weight in (norm.moving_mean, norm.moving_variance):
            weight.assign(weight * rng.uniform(0.8, 1.25, weight.shape))
    return model


def images(model: keras.Model, count: int = 2) -> np.ndarray:
    """Return random images 0..255 of the model's input size."""
    return np.random.default_rng(1).uniform(0, 255, (count, *model.input.shape[1:])).astype("float32")


def difference(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected value."""
    expected, actual = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    assert expected.shape == actual.shape
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # it depends on the input
    return float(np.abs(expected - actual).max() / np.abs(expected).max())


def network(body, shape=(8, 8, 3), head=True) -> keras.Model:
    """Put a body between a convolution of 16 channels and a classifier."""
    set_seed(0)
    inputs = keras.Input(shape, name="image")
    x = body(layers.Conv2D(16, 3, padding="same", name="stem")(inputs))
    if head:
        x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x)
    return settle(keras.Model(inputs, x, name="network"))


def equal(model: keras.Model, ratio=0.5, **options) -> keras.Model:
    """Check that the pruned model is the masked one, and return it."""
    pruned, masked = prune_channels(model, ratio, **options), mask_channels(model, ratio, **options)
    assert pruned.count_params() < model.count_params()
    assert pruned.output_shape == model.output_shape
    x = images(model)
    assert difference(precise(masked)(x), precise(pruned)(x)) < 1e-5
    assert difference(model(x), pruned(x)) > 1e-3  # or masking would show nothing
    return pruned


def width(model: keras.Model, name: str) -> int:
    return model.get_layer(name).output.shape[-1]


def conv(filters=16, kernel=1, **options):
    return layers.Conv2D(filters, kernel, padding="same", **options)


def residual(x):
    return layers.Add()([x, conv(name="branch")(layers.ReLU()(x))])
