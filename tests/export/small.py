"""One small network with everything that quantisers get wrong."""

import keras
from seeding import set_seed

SIZE, CLASSES = 16, 5


def network(policy: str = "float32") -> keras.Model:
    """Return a network with a rescaling to -1..1, a residual, depthwise and pointwise convolutions, spread logits."""
    set_seed(0)
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")(image)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, dtype=policy)(x)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = shortcut = layers.ReLU(dtype=policy)(x)
    x = layers.DepthwiseConv2D(3, padding="same", dtype=policy, name="depthwise")(x)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.Add(dtype=policy)([x, shortcut])
    x = layers.MaxPooling2D(dtype=policy)(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu", dtype=policy)(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu", dtype=policy)(x)
    x = layers.Dropout(0.5, dtype=policy)(layers.GlobalAveragePooling2D(dtype=policy)(x))
    logits = layers.Dense(CLASSES, kernel_initializer=keras.initializers.RandomNormal(stddev=4.0), dtype="float32")(x)
    return keras.Model(image, logits, name="network")
