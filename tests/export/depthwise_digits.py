"""A depthwise network that reads scikit-learn's digits, and the same one with its channels scaled far apart."""

import functools

import keras
import numpy as np
from seeding import set_seed
from sklearn.datasets import load_digits

layers = keras.layers

_BATCH = 32


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return images (N, 16, 16, 1) in 0..255 and labels: 1,200 to train on, the last 597 to test."""
    found = load_digits()
    images = (found.images[..., None] * 255 / 16).repeat(2, axis=1).repeat(2, axis=2).astype("float32")
    return images[:1200], found.target[:1200], images[1200:], found.target[1200:]


def network() -> keras.Model:
    """Return an untrained MobileNet of two blocks, logits out."""
    image = keras.Input((16, 16, 1), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = _norm_relu(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x))
    for filters in (32, 32):
        x = _norm_relu(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
        x = _norm_relu(layers.Conv2D(filters, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10)(x), name="depthwise")


def fit(model: keras.Model, *, epochs: int, learning_rate: float = 1e-3) -> keras.Model:
    """Train in place on the digits, down to a learning rate of zero: the last steps of a constant one are luck."""
    images, labels, _, _ = digits()
    set_seed(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # In an order of our own: `fit` draws its from TensorFlow's global generator, which another test may have seeded.
    order = np.concatenate([np.random.default_rng(epoch).permutation(len(images)) for epoch in range(epochs)])
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, -(-len(order) // _BATCH))
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(images[order], labels[order], batch_size=_BATCH, shuffle=False, verbose=0)
    return model


@functools.cache
def trained() -> keras.Model:
    """Return the network after enough epochs for about 97 %; do not change it."""
    set_seed(0)
    return fit(network(), epochs=12, learning_rate=5e-3)


def scaled_apart(model: keras.Model, *, factor: float = 30.0, seed: int = 0) -> keras.Model:
    """Return the same function with the channels in front of each depthwise layer up to `factor` times apart."""
    rng = np.random.default_rng(seed)
    model = _copy(model)
    for depthwise in (x for x in model.layers if isinstance(x, layers.DepthwiseConv2D)):
        relu = depthwise.input._keras_history.operation
        norm = relu.input._keras_history.operation
        scale = np.exp(rng.uniform(-1, 1, depthwise.input.shape[-1]) * np.log(factor))
        norm.gamma.assign(norm.gamma * scale)
        norm.beta.assign(norm.beta * scale)
        depthwise.kernel.assign(depthwise.kernel / scale[:, None])
    return model


def accuracy(logits: np.ndarray) -> float:
    """Return the share of the test digits that are read right."""
    return float((np.asarray(logits).argmax(axis=1) == digits()[3]).mean())


def _copy(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _norm_relu(x):
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
