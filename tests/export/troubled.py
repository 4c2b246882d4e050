"""For each rule of the lint a network that trips it and a near twin that does not."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from seeding import set_seed

layers = keras.layers
Body = Callable[[keras.KerasTensor], object]


@dataclass(frozen=True)
class Pair:
    """Two networks of equal layers but for what the rule `name` is about, and the layer that it has to name."""

    layer: str
    trips: Body
    twin: Body


def network(body: Body) -> keras.Model:
    """Return a network whose middle is `body`, from pixels of 0..255."""
    set_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    return keras.Model(image, body(layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)))


def pictures(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


def _conv(filters: int = 8, name: str = "conv", **options):
    return layers.Conv2D(filters, 3, padding="same", name=name, **{"activation": "relu", **options})


def _head(x, **options):
    return layers.Dense(5, name="logits", **options)(layers.GlobalAveragePooling2D(name="pool")(x))


def _detector(join: bool) -> Body:
    def body(x):
        boxes, scores = _conv(4, "boxes")(x), _conv(3, "scores")(x)
        if join:
            return layers.Reshape((256, 7))(layers.Concatenate(name="both")([boxes, scores]))
        # Cells of one kind, joined along the cells, have one range by nature.
        return layers.Concatenate(axis=1, name="both")([layers.Reshape((256, 3))(each) for each in (scores, scores)])

    return body


def _scaled(first: float, name: str = "scaled") -> Body:
    """Multiply one of many channels: what one scale has to reach."""

    def body(x):
        kernel = keras.initializers.Constant(np.array([first, *[1.0] * 7]).reshape(1, 1, 8, 1))
        x = layers.DepthwiseConv2D(1, name=name, depthwise_initializer=kernel, activation="relu")(_conv()(x))
        return _head(x)

    return body


def _normed(before: bool) -> Body:
    norm = lambda: layers.BatchNormalization(name="norm")  # noqa: E731  a layer is called once

    def body(x):
        if before:
            x = _conv(name="first")(x)
            return _head(_conv(use_bias=False)(layers.ReLU()(norm()(x))))
        return _head(layers.ReLU()(norm()(_conv(use_bias=False, activation=None)(x))))

    return body


def _from_image(layer: keras.layers.Layer) -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    return keras.Model(image, _head(_conv()(layer(image))))


PAIRS = {
    "python_code": Pair(
        "code",
        lambda x: _head(layers.Lambda(lambda t: t * 2, name="code")(_conv()(x))),
        lambda x: _head(_conv()(x) * 2.0),
    ),
    "joined_outputs": Pair("both", _detector(True), _detector(False)),
    "activation_range": Pair("scaled_activation", _scaled(1000.0), _scaled(4.0)),
    "kernel_range": Pair("scaled", _scaled(1000.0), _scaled(4.0)),
    "float_island": Pair(
        "middle",
        lambda x: _head(layers.LayerNormalization(name="middle")(_conv()(x))),
        lambda x: _head(layers.Activation("gelu", name="middle")(_conv()(x))),
    ),
    "nearest_upsampling": Pair(
        "larger",
        lambda x: _head(layers.UpSampling2D(2, name="larger")(_conv()(x))),
        lambda x: _head(layers.Resizing(32, 32, interpolation="nearest", name="larger")(_conv()(x))),
    ),
    "pooling": Pair(
        "mean",
        lambda x: layers.Dense(5)(keras.ops.mean(_conv()(x), axis=(1, 2))),
        lambda x: layers.Dense(5)(layers.GlobalAveragePooling2D()(_conv()(x))),
    ),
    "unfolded_norm": Pair("norm", _normed(True), _normed(False)),
    "softmax_inside": Pair(
        "logits",
        lambda x: _head(_conv()(x), activation="softmax"),
        lambda x: _head(layers.Multiply()([_conv()(x), _conv(8, "gate", activation="sigmoid")(x)])),
    ),
    "channels": Pair("conv", lambda x: _head(_conv(12)(x)), lambda x: _head(_conv(16)(x))),
}
# These are about the layer that comes first.
FIRST = {
    "outside_normalization": ("image", lambda: layers.ZeroPadding2D(), lambda: layers.Rescaling(1 / 255)),
    "normalization_layer": (
        "first",
        lambda: layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 1.0, 2.0], name="first"),
        lambda: layers.Rescaling([1.0, 1.0, 0.5], offset=[1.0, 2.0, 3.0], name="first"),
    ),
}


def pairs() -> dict[str, tuple[str, keras.Model, keras.Model]]:
    """Return by rule the layer that it names, the network that trips it, and the twin."""
    inside = {name: (pair.layer, network(pair.trips), network(pair.twin)) for name, pair in PAIRS.items()}
    return inside | {name: (layer, _from_image(a()), _from_image(b())) for name, (layer, a, b) in FIRST.items()}
