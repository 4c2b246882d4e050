"""Activations and their derivatives, as closed formulas in NumPy.

`ACTIVATIONS["gelu"].value(x)` and `.derivative(x)` work on arrays of any shape. The names are those of
keras.activations, whose defaults they have. At a kink the derivative is the one that TensorFlow takes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import erf

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # arXiv 1706.02515, equation 14


class Activation(NamedTuple):
    """A function of one number, and its derivative."""

    value: Callable[[np.ndarray], np.ndarray]
    derivative: Callable[[np.ndarray], np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(x / 2))


def softplus(x: np.ndarray) -> np.ndarray:
    """Return log(1 + exp(x)) without overflow."""
    return np.logaddexp(0, x)


def leaky_relu(slope: float) -> Activation:
    """Return the ReLU that keeps `slope` of negative values; of PReLU each channel learns its own."""
    return Activation(lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1.0, slope))


def elu(alpha: float = 1.0, scale: float = 1.0) -> Activation:
    """Return the exponential linear unit (arXiv 1511.07289), scaled."""
    return Activation(
        lambda x: scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
        lambda x: scale * np.where(x >= 0, 1.0, alpha * np.exp(np.minimum(x, 0))),
    )


def _normal_density(x: np.ndarray) -> np.ndarray:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def _normal_share(x: np.ndarray) -> np.ndarray:
    return (1 + erf(x / np.sqrt(2))) / 2


def _hard_gate(x: np.ndarray) -> np.ndarray:
    return np.clip(x / 6 + 0.5, 0, 1)


def _inside(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return ((x > low) & (x < high)).astype(float)


def _mish_derivative(x: np.ndarray) -> np.ndarray:
    gate = np.tanh(softplus(x))
    return gate + x * (1 - gate**2) * sigmoid(x)


ACTIVATIONS = {
    "relu": leaky_relu(0.0),
    "relu6": Activation(lambda x: np.clip(x, 0, 6), lambda x: _inside(x, 0, 6)),
    "leaky_relu": leaky_relu(0.2),
    "elu": elu(),
    "selu": elu(_SELU_ALPHA, _SELU_SCALE),
    "sigmoid": Activation(sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "tanh": Activation(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "softplus": Activation(softplus, sigmoid),
    "silu": Activation(lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),  # Swish, 1710.05941
    "gelu": Activation(  # arXiv 1606.08415
        lambda x: x * _normal_share(x), lambda x: _normal_share(x) + x * _normal_density(x)
    ),
    "mish": Activation(lambda x: x * np.tanh(softplus(x)), _mish_derivative),  # arXiv 1908.08681
    "hard_sigmoid": Activation(_hard_gate, lambda x: _inside(x, -3, 3) / 6),
    "hard_silu": Activation(  # hard-swish, arXiv 1905.02244
        lambda x: x * _hard_gate(x), lambda x: _hard_gate(x) + x * _inside(x, -3, 3) / 6
    ),
}
