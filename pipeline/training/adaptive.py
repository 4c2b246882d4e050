"""More optimizers, Keras's own wherever it has one; builders as in optimizers.py, weight decay always decoupled."""

from typing import Any

import keras
from keras import ops
from pydantic import NonNegativeFloat, PositiveFloat

from pipeline.errors import UserError
from pipeline.registry import OPTIMIZERS, Fraction
from pipeline.training.optimizers import built


@OPTIMIZERS.register
def rmsprop(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.001,
    rho: Fraction = 0.9,
    momentum: Fraction = 0.0,
    epsilon: PositiveFloat = 1e-7,
    weight_decay: NonNegativeFloat = 0.0,
) -> keras.Optimizer:
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5), with momentum as the MobileNets were trained."""
    return built(
        keras.optimizers.RMSprop,
        model,
        learning_rate,
        weight_decay,
        clip_norm,
        rho=rho,
        momentum=momentum,
        epsilon=epsilon,
    )


@OPTIMIZERS.register
def nadam(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.001,
    beta_1: Fraction = 0.9,
    beta_2: Fraction = 0.999,
    weight_decay: NonNegativeFloat = 0.0,
) -> keras.Optimizer:
    """Adam with Nesterov's momentum (Dozat 2016, ICLR workshop)."""
    return built(keras.optimizers.Nadam, model, learning_rate, weight_decay, clip_norm, beta_1=beta_1, beta_2=beta_2)


@OPTIMIZERS.register
def radam(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.001,
    beta_1: Fraction = 0.9,
    beta_2: Fraction = 0.999,
    weight_decay: NonNegativeFloat = 0.0,
) -> keras.Optimizer:
    """Rectified Adam: its own warmup, from the variance of the first steps (arXiv 1908.03265)."""
    return built(_RectifiedAdam, model, learning_rate, weight_decay, clip_norm, beta_1=beta_1, beta_2=beta_2)


@OPTIMIZERS.register
def lion(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.0001,
    beta_1: Fraction = 0.9,
    beta_2: Fraction = 0.99,
    weight_decay: NonNegativeFloat = 0.1,
) -> keras.Optimizer:
    """Signs of momentum: a third to a tenth of Adam's rate, ten times its decay (arXiv 2302.06675)."""
    if not beta_1:
        raise UserError("lion needs a train.optimizer.beta_1 above 0")
    return built(keras.optimizers.Lion, model, learning_rate, weight_decay, clip_norm, beta_1=beta_1, beta_2=beta_2)


@OPTIMIZERS.register
def lamb(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.001,
    beta_1: Fraction = 0.9,
    beta_2: Fraction = 0.999,
    weight_decay: NonNegativeFloat = 0.01,
) -> keras.Optimizer:
    """Adam with a step in proportion to each variable's norm, for large batches (arXiv 1904.00962)."""
    return built(keras.optimizers.Lamb, model, learning_rate, weight_decay, clip_norm, beta_1=beta_1, beta_2=beta_2)


@OPTIMIZERS.register
def adafactor(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.001,
    weight_decay: NonNegativeFloat = 0.0,
) -> keras.Optimizer:
    """Adam with row and column sums in place of its second moments: less memory (arXiv 1804.04235)."""
    # Relative steps would overrule the schedule. Keras caps the rate at 1 / sqrt(step) all the same.
    return built(keras.optimizers.Adafactor, model, learning_rate, weight_decay, clip_norm, relative_step=False)


@OPTIMIZERS.register
def muon(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.002,
    momentum: Fraction = 0.95,
    weight_decay: NonNegativeFloat = 0.01,
) -> keras.Optimizer:
    """Orthogonal steps for dense kernels, AdamW for the rest, convolutions too (Jordan 2024; arXiv 2502.16982)."""
    return built(
        keras.optimizers.Muon,
        model,
        learning_rate,
        weight_decay,
        clip_norm,
        momentum=momentum,
        adam_weight_decay=weight_decay,
    )


class _RectifiedAdam(keras.optimizers.Adam):
    """Adam whose adaptive step waits until the variance of its second moment is known."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        dtype = variable.dtype
        rate, gradient = ops.cast(learning_rate, dtype), ops.cast(gradient, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = (ops.cast(beta, dtype) for beta in (self.beta_1, self.beta_2))
        power_1, power_2 = ops.power(beta_1, step), ops.power(beta_2, step)
        index = self._get_variable_index(variable)
        first, second = self._momentums[index], self._velocities[index]
        self.assign_add(first, (gradient - first) * (1 - beta_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1 - beta_2))
        longest = 2 / (1 - beta_2) - 1
        length = longest - 2 * step * power_2 / (1 - power_2)
        known = length > 4  # below, the variance has no value (algorithm 2)
        safe = ops.where(known, length, 5.0)
        rectifier = ops.sqrt((safe - 4) * (safe - 2) * longest / ((longest - 4) * (longest - 2) * safe))
        spread = ops.sqrt(second / (1 - power_2)) + self.epsilon
        scale = ops.where(known, rectifier / spread, ops.ones_like(spread))
        self.assign_sub(variable, rate * scale * first / (1 - power_1))
