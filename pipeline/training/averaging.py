"""Two averages of the weights: one that is validated and saved, and one that training goes back to."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class WeightAverage:
    """Average the trainable weights, `decay` per optimizer step.

    The decay starts lower, min(decay, (1 + t) / (10 + t)) at step t, so that a short run is not dominated by its
    initial weights. Batch norm's moving statistics are averages already and are used as they are.
    """

    def __init__(self, model: keras.Model, decay: float) -> None:
        """Create the averages, equal to the weights; call it under the strategy's scope."""
        self.decay, self._strategy = decay, tf.distribute.get_strategy()
        self._weights = model.trainable_variables
        self.variables = _copies(self._weights, "average")

    def update(self, step: tf.Tensor) -> None:
        """Move towards the weights after optimizer step `step` (0 is the first), across replicas, in a graph."""
        count = tf.cast(step, tf.float32)
        share = 1.0 - tf.minimum(self.decay, (1.0 + count) / (10.0 + count))
        for average, weight in zip(self.variables, self._weights, strict=True):
            self._strategy.extended.update(average.value, _approach, args=(weight.value, share), group=False)

    def give(self) -> None:
        """Give the model the averaged weights."""
        for weight, average in zip(self._weights, self.variables, strict=True):
            weight.assign(average.numpy())

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights, and its own back afterwards."""
        own = [weight.numpy() for weight in self._weights]
        try:
            self.give()
            yield
        finally:
            for weight, value in zip(self._weights, own, strict=True):
                weight.assign(value)


class Lookahead:
    """Pull the weights back every few steps, to a point between where they were and where they are (arXiv 1907.08610).

    It goes around any optimizer: the slow weights take a share of the way that the fast ones went.
    """

    def __init__(self, model: keras.Model, every: int, share: float) -> None:
        """Create the slow weights, equal to the weights; call it under the strategy's scope."""
        self.every, self.share, self._strategy = every, share, tf.distribute.get_strategy()
        self._weights = model.trainable_variables
        self.variables = _copies(self._weights, "slow")

    def update(self, step: tf.Tensor) -> None:
        """Meet in between after optimizer step `step` (0 is the first) if it is time, across replicas, in a graph."""
        due = (step + 1) % self.every == 0
        share = tf.where(due, self.share, 0.0)
        for slow, fast in zip(self.variables, self._weights, strict=True):
            self._strategy.extended.update(slow.value, _approach, args=(fast.value, share), group=False)
            self._strategy.extended.update(fast.value, _jump, args=(slow.value, due), group=False)


def _copies(weights: list[keras.Variable], name: str) -> list[keras.Variable]:
    return [
        keras.Variable(weight.numpy(), dtype=weight.dtype, trainable=False, name=f"{name}_{index}")
        for index, weight in enumerate(weights)
    ]


def _jump(weight: tf.Variable, target: tf.Tensor, due: tf.Tensor) -> None:
    weight.assign(tf.where(due, target, weight))


def _approach(average: tf.Variable, weight: tf.Tensor, share: tf.Tensor) -> None:
    average.assign_add(tf.cast(share, average.dtype) * (weight - average))
