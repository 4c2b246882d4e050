"""The pieces of vision transformers: tokens (B, N, D) with positions, encoder blocks, and a weighted mean of tokens.

Plain Keras layers, so that a saved model loads anywhere. What is learned but depends on no input, position embeddings
and the class token, is the kernel of a dense layer that reads a constant 1: an export folds both into one constant.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras


def learned(inputs: Any, tokens: int, size: int, *, name: str) -> Any:
    """Give (B, tokens, size) weights that are the same for every image of `inputs` (B, H, W, C)."""
    one = keras.ops.ones_like(inputs[:, :1, 0, 0])
    small = keras.initializers.TruncatedNormal(stddev=0.02)
    weights = keras.layers.Dense(tokens * size, use_bias=False, kernel_initializer=small, name=name)(one)
    return keras.layers.Reshape((tokens, size), name=f"{name}_tokens")(weights)


def add_positions(inputs: Any, x: Any, *, name: str = "positions") -> Any:
    """Add a learned embedding to each token (arXiv 2010.11929, equation 1): as many as the image's size gives."""
    return keras.layers.Add(name=f"{name}_add")([x, learned(inputs, *x.shape[1:], name=name)])


def encoder_block(
    x: Any,
    heads: int,
    hidden: int,
    *,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    name: str,
) -> Any:
    """Add self-attention and then a perceptron of `hidden` units to tokens (B, N, D) (arXiv 2010.11929, figure 1).

    Each branch normalises first, drops parts of its output at the rate `dropout`, and is left out whole for a picture
    at the rate `stochastic_depth` (arXiv 1603.09382).
    """
    size = x.shape[-1]
    y = layer_norm(x, name=f"{name}_attention_norm")
    y = keras.layers.MultiHeadAttention(heads, size // heads, name=f"{name}_attention")(y, y)
    x = _add_branch(x, y, dropout, stochastic_depth, f"{name}_attention")
    y = layer_norm(x, name=f"{name}_mlp_norm")
    y = keras.layers.Dense(hidden, name=f"{name}_mlp_1")(y)
    y = keras.layers.Activation("gelu", name=f"{name}_mlp_gelu")(y)
    y = keras.layers.Dense(size, name=f"{name}_mlp_2")(y)
    return _add_branch(x, y, dropout, stochastic_depth, f"{name}_mlp")


def encoder_blocks(
    count: int, heads: int, hidden: int, *, dropout: float, stochastic_depth: float
) -> list[Callable[[Any], Any]]:
    """Give encoder blocks to be called one after another; stochastic depth grows evenly from 0 to that of the last."""
    return [
        functools.partial(
            encoder_block,
            heads=heads,
            hidden=hidden,
            dropout=dropout,
            stochastic_depth=stochastic_depth * index / max(count - 1, 1),
            name=f"block{index + 1}",
        )
        for index in range(count)
    ]


def sequence_pool(x: Any, *, name: str = "pool") -> Any:
    """Average tokens (B, N, D) with weights that a dense layer gives them: (B, D) (arXiv 2104.05704, 3.2)."""
    # A bias would raise all scores alike, which changes no weight.
    weights = keras.layers.Dense(1, use_bias=False, name=f"{name}_scores")(x)
    weights = keras.layers.Softmax(axis=1, name=f"{name}_weights")(weights)
    return keras.ops.sum(keras.layers.Multiply(name=f"{name}_weigh")([x, weights]), axis=1)


def layer_norm(x: Any, *, name: str) -> Any:
    """Normalise each token over its features."""
    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def _add_branch(x: Any, y: Any, dropout: float, stochastic_depth: float, name: str) -> Any:
    if dropout:
        y = keras.layers.Dropout(dropout, name=f"{name}_dropout")(y)
    if stochastic_depth:
        y = keras.layers.Dropout(stochastic_depth, noise_shape=(None, 1, 1), name=f"{name}_drop")(y)
    return keras.layers.Add(name=f"{name}_add")([x, y])
