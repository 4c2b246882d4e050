"""Weights given to layers and models that are built already."""

from collections.abc import Sequence

import keras
import numpy as np


def put(layer: keras.Layer, values: Sequence[np.ndarray]) -> None:
    """Give a layer, or a model with all that is inside it, its weights."""
    layer.set_weights(values)
    derive(layer)


def derive(layer: keras.Layer) -> None:
    """Make anew what a layer, or a model with all that is inside it, computes with and made of its weights.

    Keras's Normalization computes with constants, and an assignment to its weights leaves the old ones: an EfficientNet
    would go on with the statistics of its construction.
    """
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
    for inner in getattr(layer, "layers", ()):
        derive(inner)
