"""The usual optimizers: Keras's own, weight decay that leaves norms and biases alone, one op to update a variable.

Every builder is given the model, whose variables it reads, and the largest allowed global norm of the gradients (or
None), and returns a built optimizer. The loop assigns `learning_rate` before each step from the schedule.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from pydantic import NonNegativeFloat, PositiveFloat

from pipeline.registry import OPTIMIZERS, Fraction


@OPTIMIZERS.register
def sgd(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.1,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
) -> keras.Optimizer:
    """Stochastic gradient descent with momentum; weight decay is decoupled, scaled by the learning rate."""
    return built(_Sgd, model, learning_rate, weight_decay, clip_norm, momentum=momentum, nesterov=nesterov)


@OPTIMIZERS.register
def adam(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.001,
    beta_1: Fraction = 0.9,
    beta_2: Fraction = 0.999,
    epsilon: PositiveFloat = 1e-7,
) -> keras.Optimizer:
    """Adam (arXiv 1412.6980), without weight decay."""
    return built(_Adam, model, learning_rate, 0.0, clip_norm, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


@OPTIMIZERS.register
def adamw(
    model: keras.Model,
    clip_norm: float | None,
    *,
    learning_rate: PositiveFloat = 0.001,
    beta_1: Fraction = 0.9,
    beta_2: Fraction = 0.999,
    epsilon: PositiveFloat = 1e-7,
    weight_decay: NonNegativeFloat = 0.01,
) -> keras.Optimizer:
    """Adam with decoupled weight decay, scaled by the learning rate (arXiv 1711.05101)."""
    return built(_Adam, model, learning_rate, weight_decay, clip_norm, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def decays(variable: keras.Variable) -> bool:
    """Say whether weight decay applies: to kernels and embeddings, which have two axes or more.

    Norms' gamma and beta and every bias have one axis, whatever their layer calls them.
    """
    return len(variable.shape) >= 2


def built(
    rule: type[keras.Optimizer],
    model: keras.Model,
    learning_rate: float,
    weight_decay: float,
    clip_norm: float | None,
    **own: Any,
) -> keras.Optimizer:
    """Build an optimizer for a model's variables, with weight decay where it belongs; a decay of 0 is none."""
    optimizer = rule(learning_rate=learning_rate, weight_decay=weight_decay or None, global_clipnorm=clip_norm, **own)
    # By variable, not by name: Keras searches names for a pattern, and "beta" would also match a layer called "beta1".
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if not decays(v)])
    optimizer.build(model.trainable_variables)
    return optimizer


def share_rates(optimizer: keras.Optimizer, shares: Sequence[float]) -> None:
    """Give each variable its own share of the learning rate, in its weight decay as in its update.

    Args:
        optimizer: a built one, scaling losses or not; it is changed in place.
        shares: one for each variable that it was built for, in that order.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    update, decay = inner.update_step, inner.weight_decay

    def update_step(gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        rate = tf.cast(learning_rate * shares[inner._get_variable_index(variable)], variable.dtype)
        if decay and inner._use_weight_decay(variable):
            variable.assign_sub(variable * decay * rate)
        update(gradient, variable, rate)

    # Keras decays all variables at one rate before it updates them.
    inner.update_step, inner._apply_weight_decay = update_step, lambda variables: None


class _Sgd(keras.optimizers.SGD):
    """Keras's SGD, but each variable is updated by one op instead of six: small networks spend their time there."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        if not self.momentum or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )


class _Adam(keras.optimizers.Adam):
    """Keras's Adam, but each variable is updated by one op instead of some twenty."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        if isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        first, second = (tf.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(first, step),
            beta2_power=tf.pow(second, step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=first,
            beta2=second,
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )
