"""Attention over channels, over places and between places: features that weigh themselves."""

from typing import Any

import keras

from pipeline.models.blocks import conv, conv_norm


def squeeze_excite(x: Any, reduced: int, *, activation: str = "relu", gate: str = "sigmoid", name: str) -> Any:
    """Scale each channel of (B, H, W, C) by a gate computed from the means of all (arXiv 1709.01507).

    `reduced` is the number of channels between the two 1x1 convolutions.
    """
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    y = keras.layers.Conv2D(reduced, 1, activation=activation, kernel_initializer="he_normal", name=f"{name}_reduce")(y)
    y = keras.layers.Conv2D(x.shape[-1], 1, activation=gate, name=f"{name}_expand")(y)
    return keras.layers.Multiply(name=f"{name}_excite")([x, y])


def channel_attention(x: Any, reduced: int, *, name: str) -> Any:
    """Scale each channel of (B, H, W, C) by a gate computed from the means and the maxima of all, by the same layers.

    The channel half of CBAM (arXiv 1807.06521, 3.1); `reduced` is the number of channels between its two layers.
    """
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    largest = keras.layers.GlobalMaxPooling2D(keepdims=True, name=f"{name}_max")(x)
    # One below the other, (B, 2, 1, C), they go through the layers that they share in one call.
    y = keras.layers.Concatenate(axis=1, name=f"{name}_pools")([mean, largest])
    y = keras.layers.Conv2D(reduced, 1, activation="relu", kernel_initializer="he_normal", name=f"{name}_reduce")(y)
    y = keras.layers.Conv2D(x.shape[-1], 1, name=f"{name}_expand")(y)
    y = keras.ops.sum(y, axis=1, keepdims=True)
    y = keras.layers.Activation("sigmoid", name=f"{name}_gate")(y)
    return keras.layers.Multiply(name=f"{name}_weigh")([x, y])


def spatial_attention(x: Any, *, name: str) -> Any:
    """Scale each place of (B, H, W, C) by a gate computed from the mean and the maximum over its channels around it.

    The spatial half of CBAM (arXiv 1807.06521, 3.2), with the batch norm of the authors' code.
    """
    mean = keras.ops.mean(x, axis=-1, keepdims=True)
    largest = keras.ops.max(x, axis=-1, keepdims=True)
    y = keras.layers.Concatenate(name=f"{name}_pools")([mean, largest])
    y = conv_norm(y, 1, 7, activation="sigmoid", name=name)
    return keras.layers.Multiply(name=f"{name}_weigh")([x, y])


def self_attention(x: Any, heads: int, *, name: str) -> Any:
    """Let every place of (B, H, W, C) look at every other, by content and by how far apart they are.

    Multi-head attention with the relative position embeddings of arXiv 2101.11605, figure 4: one table for heights and
    one for widths, shared by the heads; no projection of the output, which has the channels of the input.
    """
    height, width, channels = x.shape[1:]
    places, size = height * width, channels // heads

    def split(part: str, axes: tuple[int, int, int]) -> Any:
        y = conv(x, channels, 1, name=f"{name}_{part}")
        y = keras.layers.Reshape((places, heads, size), name=f"{name}_{part}_heads")(y)
        return keras.layers.Permute(axes, name=f"{name}_{part}_order")(y)

    query, key, value = split("query", (2, 1, 3)), split("key", (2, 3, 1)), split("value", (2, 1, 3))
    query = keras.layers.Rescaling(size**-0.5, name=f"{name}_scale")(query)
    # (B, heads x places, H, W): more axes than four are slow or missing in runtimes of .tflite files.
    scores = keras.layers.Reshape((heads * places, height, width), name=f"{name}_map")(keras.ops.matmul(query, key))
    grid = keras.layers.Reshape((heads, height, width, size), name=f"{name}_grid")(query)
    along = _by_distance(grid, name=f"{name}_along")
    along = keras.layers.Reshape((heads * places, 1, width), name=f"{name}_along_map")(along)
    turned = keras.layers.Permute((1, 3, 2, 4), name=f"{name}_turn")(grid)
    down = keras.layers.Permute((1, 3, 2, 4), name=f"{name}_turn_back")(_by_distance(turned, name=f"{name}_down"))
    down = keras.layers.Reshape((heads * places, height, 1), name=f"{name}_down_map")(down)
    scores = keras.layers.Add(name=f"{name}_along_add")([scores, along])
    scores = keras.layers.Add(name=f"{name}_down_add")([scores, down])
    scores = keras.layers.Reshape((heads, places, places), name=f"{name}_scores")(scores)
    y = keras.ops.matmul(keras.layers.Activation("softmax", name=f"{name}_softmax")(scores), value)
    y = keras.layers.Permute((2, 1, 3), name=f"{name}_order")(y)
    return keras.layers.Reshape((height, width, channels), name=f"{name}_join")(y)


def _by_distance(query: Any, *, name: str) -> Any:
    """Score queries (B, heads, M, L, d) against keys along the axis of L, by how far apart they are: (B, .., L, L).

    A dense layer without bias is the product with a table of 2L - 1 embeddings of d numbers. Query i finds the score of
    key j in column j - i + L - 1: with one column more, the values flow one place further in each row, and what is
    wanted is then a rectangle (arXiv 1809.04281, figure 1).
    """
    heads, lines, length, size = query.shape[1:]
    table = keras.initializers.RandomNormal(stddev=size**-0.5)
    x = keras.layers.Dense(2 * length - 1, use_bias=False, kernel_initializer=table, name=f"{name}_table")(query)
    x = keras.layers.Reshape((heads * lines, length, 2 * length - 1), name=f"{name}_rows")(x)
    x = keras.layers.ZeroPadding2D(((0, 0), (0, 1)), data_format="channels_first", name=f"{name}_pad")(x)
    x = keras.layers.Reshape((heads * lines, 2 * length * length, 1), name=f"{name}_flow")(x)
    x = keras.layers.Cropping2D(((0, 0), (0, length)), name=f"{name}_cut")(x)
    x = keras.layers.Reshape((heads * lines, length, 2 * length - 1), name=f"{name}_skew")(x)
    x = keras.layers.Cropping2D(((0, 0), (length - 1, 0)), data_format="channels_first", name=f"{name}_places")(x)
    return keras.layers.Reshape((heads, lines, length, length), name=f"{name}_scores")(x)
