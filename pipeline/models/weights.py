"""Weights given to layers and models that are built already."""

from collections.abc import Sequence

import keras
import numpy as np


def put(layer: keras.Layer, values: Sequence[np.ndarray]) -> None:
    """Give a layer, or a model with all that is inside it, its weights.

    Keras's Normalization computes with constants that it makes of its weights, and set_weights leaves the old ones:
    an EfficientNet would go on with the statistics of its construction.
    """
    layer.set_weights(values)
    _derive(layer)


def _derive(layer: keras.Layer) -> None:
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    for inner in getattr(layer, "layers", ()):
        _derive(inner)
