"""How much each channel matters: measures of what belongs to it, averaged over the layers that hold it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.export.compress.spaces import Channels
from pipeline.training.pointwise import pointwise_products

# The classes of a layer's channels and the score of each, one pair per layer that has an opinion.
Scores = Iterable[tuple[np.ndarray, np.ndarray]]
Importance = Callable[[Channels], Scores]
Arrays = Callable[[keras.layers.Layer], list[np.ndarray]]


def l1(channels: Channels) -> Scores:
    """Sum of the absolute weights that make a channel (arXiv 1608.08710)."""
    return ((classes, np.abs(rows).sum(axis=1)) for classes, rows in _filters(channels))


def l2(channels: Channels) -> Scores:
    """Euclidean norm of the weights that make a channel."""
    return ((classes, np.linalg.norm(rows, axis=1)) for classes, rows in _filters(channels))


def geometric_median(channels: Channels) -> Scores:
    """Distance of a channel's weights to all others': what is in the middle is redundant (arXiv 1811.00250)."""
    for classes, rows in _filters(channels):
        squares = (rows**2).sum(axis=1)
        distances = squares[:, None] + squares[None] - 2 * rows @ rows.T
        yield classes, np.sqrt(np.maximum(distances, 0)).sum(axis=1)


def batch_norm(channels: Channels) -> Scores:
    """Absolute scale of the batch normalisation (arXiv 1708.06519); channels without one are measured by `l1`."""
    norms = [
        (classes, np.abs(_weights(layer)[0]))
        for layer, classes in _layers_of(channels, keras.layers.BatchNormalization)
        if layer.scale
    ]
    return _where_missing(norms, l1(channels), channels.count)


def taylor(loss: Callable[[Any, Any], Any], batches: Iterable[tuple[Any, Any]]) -> Importance:
    """Measure by how much the loss would change without a channel, to first order (arXiv 1906.10771).

    That is (sum of gradient × activation)² at the output of the channel's normalisation, or of the layer that makes
    the channel where it has none, averaged over `batches` of (inputs, targets). Both are linear in their weights, the
    bias included, so the sum of gradient × weight is the same number. `loss(targets, outputs)` gives one number or one
    per example.
    """

    def measure(channels: Channels) -> Scores:
        model, squares = channels.graph.model, {}
        for inputs, targets in batches:
            with pointwise_products(model), tf.GradientTape() as tape:
                value = tf.reduce_mean(loss(targets, model(inputs, training=False)))
            weights = model.trainable_variables
            gradients = tape.gradient(value, [weight.value for weight in weights], unconnected_gradients="zero")
            products = {id(w): (w.value * g).numpy() for w, g in zip(weights, gradients, strict=True)}
            for key, (classes, changes) in _changes(channels, products).items():
                squares[key] = classes, squares.get(key, (classes, 0.0))[1] + changes**2
        if not squares:
            raise UserError("taylor importance was given no batches; give it at least one of (inputs, targets)")
        norms = [pair for (_, is_norm), pair in squares.items() if is_norm]
        kernels = [pair for (_, is_norm), pair in squares.items() if not is_norm]
        return _where_missing(norms, kernels, channels.count)

    return measure


IMPORTANCES: dict[str, Importance] = {f.__name__: f for f in (l1, l2, geometric_median, batch_norm)}


def score(channels: Channels, importance: str | Importance) -> np.ndarray:
    """Return the importance of every class (classes,), with a mean of 1 over each group.

    Each layer's opinion is divided by its mean before the layers that hold a class are averaged, so that a layer of
    large weights does not decide for the others.
    """
    if isinstance(importance, str) and importance not in IMPORTANCES:
        raise UserError(f"importance {importance!r} is unknown; give one of {', '.join(IMPORTANCES)}, or taylor(...)")
    measure = IMPORTANCES[importance] if isinstance(importance, str) else importance
    total, votes = np.zeros(channels.count), np.zeros(channels.count)
    for classes, scores in measure(channels):
        np.add.at(total, classes, scores / max(scores.mean(), np.finfo(float).tiny))
        np.add.at(votes, classes, 1)
    result = total / np.maximum(votes, 1)
    for group in channels.groups:
        result[group.classes] /= max(result[group.classes].mean(), np.finfo(float).tiny)
    return result


def _filters(
    channels: Channels, arrays: Arrays | None = None, *, bias: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give, layer by layer, the classes of its channels and the weights (channels, n) that belong to each.

    With `bias` its bias is among them. A layer whose calls are not understood has no such channels.
    """
    for layer in channels.graph.layers:
        rule = channels.rule(layer)
        if rule and rule.rows:
            values = (arrays or _weights)(layer)
            for role, rows in rule.rows(layer, values).items():
                classes = channels.made(layer, role)
                if np.shape(classes) == rows.shape[:1]:
                    added = _biases(layer, values, len(rows)) if bias and role != "heads" else []
                    yield classes, np.column_stack([rows, *added])


def _biases(layer: keras.layers.Layer, values: list[np.ndarray], count: int) -> list[np.ndarray]:
    named = zip(layer.weights, values, strict=True)
    return [value for weight, value in named if weight.name == "bias" and value.shape == (count,)]


def _changes(channels: Channels, products: dict[int, np.ndarray]) -> dict[tuple[str, bool], tuple[np.ndarray, ...]]:
    """Sum gradient × weight over what belongs to each channel, by layer and whether it is a normalisation."""

    def of(layer: keras.layers.Layer) -> list[np.ndarray]:
        return [products.get(id(weight), np.zeros(weight.shape)) for weight in layer.weights]

    changes = {}
    for index, (classes, rows) in enumerate(_filters(channels, of, bias=True)):
        changes[str(index), False] = classes, rows.sum(axis=1)
    for layer, classes in _layers_of(channels, *_NORMS):
        changes[layer.name, True] = classes, np.sum(of(layer), axis=0)
    return changes


_NORMS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)


def _layers_of(channels: Channels, *kinds: type) -> Iterator[tuple[Any, np.ndarray]]:
    for layer in channels.graph.layers:
        classes = channels.made(layer, "handed on")
        if isinstance(layer, kinds) and layer.weights and np.shape(classes) == tuple(layer.weights[0].shape):
            yield layer, classes


def _where_missing(first: list[tuple[np.ndarray, np.ndarray]], second: Scores, count: int) -> Scores:
    """Add second opinions on the classes that the first say nothing about."""
    covered = np.zeros(count, bool)
    for classes, scores in first:
        covered[classes] = True
        yield classes, scores
    for classes, scores in second:
        missing = ~covered[classes]
        if missing.any():
            yield classes[missing], scores[missing]


def _weights(layer: keras.layers.Layer) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight).astype(np.float64) for weight in layer.weights]
