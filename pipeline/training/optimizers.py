"""Optimizers: Keras's own, with weight decay that leaves norms and biases alone.

Every builder is given the model, whose variables it reads, and the largest allowed global norm of the gradients (or
None), and returns a built optimizer. The loop assigns `learning_rate` before each step from the schedule.
"""

from typing import Any

import keras
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
    settings = _settings(learning_rate, weight_decay, clip_norm)
    return _built(keras.optimizers.SGD(momentum=momentum, nesterov=nesterov, **settings), model)


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
    settings = _settings(learning_rate, 0.0, clip_norm)
    return _built(keras.optimizers.Adam(beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, **settings), model)


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
    settings = _settings(learning_rate, weight_decay, clip_norm)
    return _built(keras.optimizers.Adam(beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, **settings), model)


def decays(variable: keras.Variable) -> bool:
    """Say whether weight decay applies: to kernels and embeddings, which have two axes or more.

    Norms' gamma and beta and every bias have one axis, whatever their layer calls them.
    """
    return len(variable.shape) >= 2


def _settings(learning_rate: float, weight_decay: float, clip_norm: float | None) -> dict[str, Any]:
    return {"learning_rate": learning_rate, "weight_decay": weight_decay or None, "global_clipnorm": clip_norm}


def _built(optimizer: keras.Optimizer, model: keras.Model) -> keras.Optimizer:
    # By variable, not by name: Keras searches names for a pattern, and "beta" would also match a layer called "beta1".
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if not decays(v)])
    optimizer.build(model.trainable_variables)
    return optimizer
