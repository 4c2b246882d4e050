"""The last layers: what turns features into logits."""

from typing import Any

import keras

from pipeline.models.blocks import dense_relu


def classify(x: Any, num_classes: int, *, dropout: float = 0.0) -> Any:
    """Average over the image, drop features while training, and give logits (B, classes)."""
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return dense_logits(x, num_classes, dropout=dropout)


def dense_logits(x: Any, num_classes: int, *, dropout: float = 0.0) -> Any:
    """Map features (B, F) to float32 logits (B, classes)."""
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    # Under mixed precision the loss needs full precision logits.
    return keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)


def classify_flat(x: Any, num_classes: int, units: int, *, dropout: float = 0.0) -> Any:
    """Give logits (B, classes) from every pixel of a map, through two dense layers of `units`, each with dropout."""
    x = dense_relu(keras.layers.Flatten(name="flatten")(x), units, name="dense1")
    if dropout:
        x = keras.layers.Dropout(dropout, name="dense1_dropout")(x)
    return dense_logits(dense_relu(x, units, name="dense2"), num_classes, dropout=dropout)


def pixel_logits(x: Any, num_classes: int) -> Any:
    """Map a feature map (B, H, W, F) to float32 logits (B, H, W, classes)."""
    return keras.layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x)
