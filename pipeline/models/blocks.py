"""The pieces that the networks are built of: a tensor in, a tensor out. Every layer is named after its place."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras

from pipeline.models.layers.regularisation import stochastic_depth

# A block of arXiv 1709.01507's kind: `attend(x, name=...)` gives x weighed by itself.
Attend = Callable[..., Any]


def image_input(input_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Return the input of raw 0..255 pixels and its rescaling to [-1, 1], which is always the first layer."""
    inputs = keras.Input(input_shape, name="image", dtype="float32")
    # float32 under every policy: bfloat16 would round the pixels before they are centred.
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="rescaling")(inputs)
    return inputs, x


def conv_norm(
    x: Any,
    filters: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: str = "same",
    groups: int = 1,
    activation: str | None = "relu",
    epsilon: float = 1e-5,
    scale: bool = True,
    name: str,
) -> Any:
    """Convolve, normalise, activate. The convolution has no bias: the normalisation's offset takes its place.

    Without `scale` the normalisation has no gamma, which a kernel behind a ReLU can take over.
    """
    x = conv(x, filters, kernel_size, stride=stride, padding=padding, groups=groups, name=name)
    return norm_act(x, activation, epsilon=epsilon, scale=scale, name=name)


def conv(
    x: Any,
    filters: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: str = "same",
    groups: int = 1,
    bias: bool = False,
    activation: str | None = None,
    name: str,
) -> Any:
    """Convolve; without bias, which a normalisation after it would take out again."""
    layer = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding=padding,
        groups=groups,
        use_bias=bias,
        activation=activation,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )
    return layer(x)


def conv_relu(
    x: Any,
    filters: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: str = "same",
    batch_norm: bool = False,
    name: str,
) -> Any:
    """Convolve with bias and apply ReLU, as before there was batch normalisation, or with `batch_norm` between them."""
    if batch_norm:
        return conv_norm(x, filters, kernel_size, stride=stride, padding=padding, name=name)
    return conv(x, filters, kernel_size, stride=stride, padding=padding, bias=True, activation="relu", name=name)


def dense_relu(x: Any, units: int, *, name: str) -> Any:
    """Map features (B, F) to (B, units) and apply ReLU."""
    return keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=name)(x)


def depthwise_norm(
    x: Any, kernel_size: int, *, stride: int = 1, activation: str | None = "relu", epsilon: float = 1e-5, name: str
) -> Any:
    """Convolve each channel on its own, normalise, activate."""
    x = depthwise_conv(x, kernel_size, stride=stride, name=name)
    return norm_act(x, activation, epsilon=epsilon, name=name)


def depthwise_conv(x: Any, kernel_size: int, *, stride: int = 1, name: str) -> Any:
    """Convolve each channel on its own, without bias."""
    layer = keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        # Not he_normal: Keras counts all channels as inputs of each filter, which makes the weights far too small.
        depthwise_initializer=keras.initializers.RandomNormal(stddev=math.sqrt(2) / kernel_size),
        name=f"{name}_conv",
    )
    return layer(x)


def norm_act(x: Any, activation: str | None, *, epsilon: float = 1e-5, scale: bool = True, name: str) -> Any:
    """Normalise over the batch, activate."""
    # Keras's momentum of 0.99 needs hundreds of steps before the moving statistics are those of the data.
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=epsilon, scale=scale, name=f"{name}_norm")(x)
    return keras.layers.Activation(activation, name=f"{name}_{activation}")(x) if activation else x


def basic_block(x: Any, filters: int, *, stride: int = 1, attend: Attend | None = None, name: str) -> Any:
    """Add two 3x3 convolutions to a shortcut (arXiv 1512.03385, figure 5 left); `attend` weighs what is added."""
    y = conv_norm(x, filters, 3, stride=stride, name=f"{name}_1")
    y = conv_norm(y, filters, 3, activation=None, name=f"{name}_2")
    return add_shortcut(x, attend(y, name=name) if attend else y, stride, name)


def bottleneck_block(
    x: Any,
    filters: int,
    *,
    stride: int = 1,
    groups: int = 1,
    group_width: int = 64,
    attend: Attend | None = None,
    name: str,
) -> Any:
    """Add a 1x1, 3x3, 1x1 bottleneck of 4 x `filters` outputs to a shortcut; the 3x3 strides (v1.5).

    The 3x3 convolution has `groups` that do not see each other, each of `group_width` channels for every 64 `filters`;
    `attend` weighs what is added.
    """
    width = groups * max(filters * group_width // 64, 1)
    y = conv_norm(x, width, 1, name=f"{name}_1")
    y = conv_norm(y, width, 3, stride=stride, groups=groups, name=f"{name}_2")
    y = conv_norm(y, 4 * filters, 1, activation=None, name=f"{name}_3")
    return add_shortcut(x, attend(y, name=name) if attend else y, stride, name)


def add_shortcut(x: Any, y: Any, stride: int, name: str) -> Any:
    """Add what a block made to its input, projected where the shapes differ, and activate."""
    if x.shape != y.shape:
        x = conv_norm(x, y.shape[-1], 1, stride=stride, activation=None, name=f"{name}_shortcut")
    y = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.Activation("relu", name=f"{name}_relu")(y)


def separable_block(x: Any, filters: int, *, stride: int = 1, epsilon: float, name: str) -> Any:
    """Filter each channel, then mix the channels (MobileNet, arXiv 1704.04861, figure 3)."""
    x = depthwise_norm(x, 3, stride=stride, activation="relu6", epsilon=epsilon, name=f"{name}_depthwise")
    return conv_norm(x, filters, 1, activation="relu6", epsilon=epsilon, name=f"{name}_pointwise")


def inverted_residual(
    x: Any,
    filters: int,
    *,
    expansion: float,
    kernel_size: int = 3,
    stride: int = 1,
    activation: str = "relu6",
    attention: Callable[..., Any] | None = None,
    drop: float = 0.0,
    epsilon: float,
    name: str,
) -> Any:
    """Expand, filter each channel, project without activation (MobileNetV2, arXiv 1801.04381, figure 4).

    `attention(x, name=...)` weighs the filtered channels, as in MobileNetV3; `drop` is the rate of stochastic depth.
    """
    y, channels = x, x.shape[-1]
    pointwise = functools.partial(conv_norm, kernel_size=1, epsilon=epsilon)
    if expansion > 1:
        y = pointwise(y, scaled(channels, expansion), activation=activation, name=f"{name}_expand")
    y = depthwise_norm(y, kernel_size, stride=stride, activation=activation, epsilon=epsilon, name=f"{name}_depthwise")
    if attention:
        y = attention(y, name=f"{name}_attention")
    y = pointwise(y, filters, activation=None, name=f"{name}_project")
    if stride > 1 or channels != filters:
        return y
    return keras.layers.Add(name=f"{name}_add")([x, stochastic_depth(y, drop, name=f"{name}_drop")])


def scaled(filters: int, width: float, multiple: int = 8) -> int:
    """Multiply a number of channels by a width, to a multiple (of 8) that is at least 0.9 of the product.

    The rule of the published MobileNets, which the parameter counts rest on.
    """
    exact = filters * width
    rounded = max(multiple, int(exact + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * exact else rounded


def ghost_module(x: Any, filters: int, *, activation: str | None = "relu", name: str) -> Any:
    """Convolve 1x1 to half of the channels, and filter each of those 3x3 for the other half (arXiv 1911.11907).

    An odd number of `filters` loses one.
    """
    x = conv_norm(x, filters // 2, 1, activation=activation, name=f"{name}_primary")
    ghosts = depthwise_norm(x, 3, activation=activation, name=f"{name}_cheap")
    return keras.layers.Concatenate(name=f"{name}_join")([x, ghosts])
