"""XLA for the loops over pixels: one compiled loop instead of a dozen passes over the batch."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compiled(function: Callable[..., tf.Tensor], *arguments: Any) -> tf.Tensor:
    """Call a function of tensors of static shape; inside a graph, as in tf.data, it is compiled by XLA.

    Compiling takes about half a second, which a single eager call would not win back.
    """
    if tf.executing_eagerly():
        return function(*arguments)
    return tf.function(function, jit_compile=True, autograph=False)(*arguments)
