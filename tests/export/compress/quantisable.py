"""A network with each kind of layer that has an integer rule, and images for it."""

import keras
import numpy as np
from seeding import set_seed

from pipeline.export.compress.quantize_aware import calibrate, quantize_aware

layers = keras.layers


def pictures(count: int = 32, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("float32")


def every_rule() -> keras.Model:
    """Return a network with each kind of layer that has an integer rule."""
    set_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.0, 2.0])(x)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0, name="stem_relu")(layers.BatchNormalization()(x))
    y = layers.SeparableConv2D(8, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.Activation("relu")(layers.Add(name="sum")([x, y]))
    y = layers.Conv2D(8, 3, padding="same", activation="silu")(x)
    z = layers.AveragePooling2D(3, 1, padding="same", name="pool")(x)
    x = layers.Concatenate(name="join")([x, y, z])
    x = layers.ReLU()(layers.BatchNormalization(name="alone")(x))
    x = layers.MaxPooling2D()(layers.ZeroPadding2D(((0, 2), (0, 2)))(x))
    y, z = (layers.Conv2D(8, 1, activation="relu")(x) for _ in range(2))
    x = layers.Concatenate()([y, z, layers.AveragePooling2D(2, 1, padding="same")(x)])
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = x * layers.Conv2D(40, 1, activation="sigmoid")(gate)
    x = layers.Concatenate()([x[..., 20:], x[..., :20] * layers.Conv2D(20, 1, activation="hard_sigmoid")(gate)])
    x = layers.Conv2D(12, 1, groups=2)(layers.Activation("hard_silu")(x))
    x = layers.Conv2DTranspose(6, 2, strides=2)(layers.Activation("gelu")(x))
    x = layers.LeakyReLU(0.1)(layers.Cropping2D(1)(x + 3.0))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(16)(x)))
    model = keras.Model(image, layers.Dense(5, name="logits")(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def with_islands() -> keras.Model:
    """Return a network with a normalisation that has no integer rule."""
    image = keras.Input((16, 16, 3), name="image")
    x = layers.LayerNormalization(name="norm")(layers.Conv2D(4, 3, name="kept")(image))
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.ReLU()(x))))


def ready(model: keras.Model, **options) -> keras.Model:
    aware = quantize_aware(model, **options)
    calibrate(aware, [pictures()])
    return aware
