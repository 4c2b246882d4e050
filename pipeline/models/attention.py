"""Channel attention: features that weigh themselves."""

from typing import Any

import keras


def squeeze_excite(x: Any, reduced: int, *, activation: str = "relu", gate: str = "sigmoid", name: str) -> Any:
    """Scale each channel of (B, H, W, C) by a gate computed from the means of all (arXiv 1709.01507).

    `reduced` is the number of channels between the two 1x1 convolutions.
    """
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    y = keras.layers.Conv2D(reduced, 1, activation=activation, kernel_initializer="he_normal", name=f"{name}_reduce")(y)
    y = keras.layers.Conv2D(x.shape[-1], 1, activation=gate, name=f"{name}_expand")(y)
    return keras.layers.Multiply(name=f"{name}_excite")([x, y])
