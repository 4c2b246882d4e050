"""Schedules: the learning rate as a function of the step, nothing else, so that a resumed run is on the same curve.

Every builder is given the peak learning rate and the number of optimizer steps of the whole run, and returns a
graph-safe function from a step (0 is the first) to the float32 learning rate of that step. `warmup` is the share of
all steps during which the rate rises in a straight line; the rest of the run is the named curve.
"""

import math
from collections.abc import Callable

import tensorflow as tf
from pydantic import PositiveFloat, PositiveInt

from pipeline.registry import SCHEDULES, Fraction

Schedule = Callable[[tf.Tensor], tf.Tensor]
Curve = Callable[[tf.Tensor], tf.Tensor]  # from progress in 0..1 to a factor of the learning rate


@SCHEDULES.register
def constant(learning_rate: float, steps: int, *, warmup: Fraction = 0.0) -> Schedule:
    """One learning rate throughout."""
    return _warmed(learning_rate, steps, warmup, tf.ones_like)


@SCHEDULES.register
def step(
    learning_rate: float,
    steps: int,
    *,
    at: list[Fraction] = [0.5, 0.75],  # noqa: B006  read, never changed
    factor: PositiveFloat = 0.1,
    warmup: Fraction = 0.0,
) -> Schedule:
    """Multiplied by `factor` at each share in `at` of what follows the warmup."""

    def curve(progress: tf.Tensor) -> tf.Tensor:
        passed = tf.reduce_sum(tf.cast(progress[..., None] >= tf.constant(sorted(at), tf.float32), tf.float32), axis=-1)
        return tf.pow(tf.constant(factor, tf.float32), passed)

    return _warmed(learning_rate, steps, warmup, curve)


@SCHEDULES.register
def exponential(learning_rate: float, steps: int, *, final: PositiveFloat = 0.01, warmup: Fraction = 0.0) -> Schedule:
    """Geometric decay to `final` times the learning rate."""
    return _warmed(learning_rate, steps, warmup, lambda progress: tf.exp(progress * math.log(final)))


@SCHEDULES.register
def polynomial(
    learning_rate: float,
    steps: int,
    *,
    power: PositiveFloat = 1.0,
    final: Fraction = 0.0,
    warmup: Fraction = 0.0,
) -> Schedule:
    """A power of what is left of the run, down to `final`; 1 is a straight line, 0.9 DeepLab's (arXiv 1606.00915)."""
    return _warmed(learning_rate, steps, warmup, lambda progress: final + (1 - final) * (1 - progress) ** power)


@SCHEDULES.register
def cosine(learning_rate: float, steps: int, *, final: Fraction = 0.0, warmup: Fraction = 0.0) -> Schedule:
    """Half a cosine down to `final` times the learning rate (SGDR without restarts, arXiv 1608.03983)."""
    return _warmed(learning_rate, steps, warmup, lambda progress: _fall(progress, final))


@SCHEDULES.register
def cosine_restarts(
    learning_rate: float,
    steps: int,
    *,
    cycles: PositiveInt = 3,
    growth: PositiveFloat = 2.0,
    final: Fraction = 0.0,
    warmup: Fraction = 0.0,
) -> Schedule:
    """Cosine with warm restarts, each cycle `growth` times as long as the one before (SGDR, arXiv 1608.03983).

    The `cycles` fill the run exactly.
    """
    lengths = [growth**cycle for cycle in range(cycles)]
    starts = [sum(lengths[:cycle]) / sum(lengths) for cycle in range(cycles)]

    def curve(progress: tf.Tensor) -> tf.Tensor:
        cycle = tf.searchsorted(tf.constant(starts, tf.float32), tf.reshape(progress, [-1]), side="right") - 1
        cycle = tf.reshape(cycle, tf.shape(progress))
        length = tf.gather(tf.constant([length / sum(lengths) for length in lengths], tf.float32), cycle)
        within = (progress - tf.gather(tf.constant(starts, tf.float32), cycle)) / length
        return _fall(within, final)

    return _warmed(learning_rate, steps, warmup, curve)


@SCHEDULES.register
def one_cycle(
    learning_rate: float,
    steps: int,
    *,
    rise: Fraction = 0.3,
    start: Fraction = 0.04,
    final: Fraction = 0.0001,
) -> Schedule:
    """Up from `start` times the learning rate during `rise` of the run, then down to `final` (arXiv 1708.07120).

    Both legs are half cosines. The rise is its warmup, and momentum stays as it is.
    """

    def curve(progress: tf.Tensor) -> tf.Tensor:
        up = 1.0 - _fall(progress / max(rise, 1e-9), 0.0) * (1.0 - start)
        down = _fall((progress - rise) / max(1.0 - rise, 1e-9), final)
        return tf.where(progress < rise, up, down)

    return _warmed(learning_rate, steps, 0.0, curve)


def _fall(progress: tf.Tensor, final: float) -> tf.Tensor:
    """Half a cosine from 1 at progress 0 to `final` at 1."""
    return final + (1.0 - final) * 0.5 * (1.0 + tf.cos(math.pi * tf.clip_by_value(progress, 0.0, 1.0)))


def _warmed(learning_rate: float, steps: int, warmup: float, curve: Curve) -> Schedule:
    rising = round(warmup * steps)
    falling = max(steps - rising, 1)

    def schedule(step: tf.Tensor) -> tf.Tensor:
        # Differences of whole steps first: a float32 cannot count steps past 2**24.
        step = tf.cast(step, tf.int64)
        progress = tf.cast(tf.maximum(step - rising, 0), tf.float32) / falling
        rate = learning_rate * curve(progress)
        if rising:
            # The first step already learns, and step `rising` is the first at full rate.
            rate = tf.where(step < rising, learning_rate * tf.cast(step + 1, tf.float32) / (rising + 1), rate)
        return rate

    return schedule
