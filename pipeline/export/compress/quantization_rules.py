"""What each layer becomes in an integer file, which decides where its values are rounded."""

import enum
from typing import Any

import keras
import numpy as np

from pipeline.export.compress.fake_quantize import (
    QUANTIZED,
    SIGMOID_RANGE,
    TANH_RANGE,
    FakeQuantize,
    QuantizedConv2D,
    QuantizedDepthwiseConv2D,
    QuantizedSilu,
)
from pipeline.export.compress.graph import Graph, Node

layers = keras.layers


class Role(enum.Enum):
    """How a layer treats scales."""

    INPUT = enum.auto()
    WEIGHTED = enum.auto()  # integer kernel, its result rounded to a range of its own
    AFFINE = enum.auto()  # a scale and an offset per channel: the file has a 1x1 depthwise convolution
    ELEMENTWISE = enum.auto()  # two tensors in, a range of its own; takes a ReLU into itself, as the two above do
    RELU = enum.auto()  # part of the layer before, where that is read by nothing else
    OWN_RANGE = enum.auto()
    FIXED_RANGE = enum.auto()  # the kernel's output range is part of its definition
    SAME_RANGE = enum.auto()  # moves values without changing them: one scale for all it reads and gives
    SAME_RANGE_ROUNDED = enum.auto()  # averages values: one scale, but the result must be rounded to it
    NOTHING = enum.auto()  # no operation of the file
    FLOAT = enum.auto()  # no rule: computed in float between integers


# Layers that are one operation of the file, by their exact type: a subclass may do anything.
_ROLES = {
    keras.layers.InputLayer: Role.INPUT,
    **dict.fromkeys(QUANTIZED.values(), Role.WEIGHTED),
    **dict.fromkeys((layers.Add, layers.Subtract, layers.Multiply), Role.ELEMENTWISE),
    **dict.fromkeys((QuantizedSilu, layers.LeakyReLU, layers.GlobalAveragePooling2D), Role.OWN_RANGE),
    **dict.fromkeys(
        (
            *(layers.MaxPooling2D, layers.GlobalMaxPooling2D, layers.Concatenate, layers.ZeroPadding2D),
            *(layers.Cropping2D, layers.Reshape, layers.Flatten, layers.Permute),
        ),
        Role.SAME_RANGE,
    ),
    layers.AveragePooling2D: Role.SAME_RANGE_ROUNDED,
    **dict.fromkeys(
        (
            *(layers.Dropout, layers.SpatialDropout2D, layers.AlphaDropout, layers.GaussianDropout),
            *(layers.GaussianNoise, layers.ActivityRegularization, layers.Identity, FakeQuantize),
        ),
        Role.NOTHING,
    ),
}
_ACTIVATIONS = {
    "linear": Role.NOTHING,
    "relu": Role.RELU,
    "relu6": Role.RELU,
    **dict.fromkeys(("sigmoid", "tanh", "softmax"), Role.FIXED_RANGE),
    **dict.fromkeys(("gelu", "hard_silu", "leaky_relu"), Role.OWN_RANGE),
}
# The same as keras.ops calls, which are nodes without a layer.
_OPERATIONS = {
    **dict.fromkeys(("Add", "Subtract", "Multiply"), Role.ELEMENTWISE),
    **dict.fromkeys(("Relu", "Relu6"), Role.RELU),
    **dict.fromkeys(("Sigmoid", "Tanh", "Softmax"), Role.FIXED_RANGE),
    **dict.fromkeys(("Concatenate", "Reshape", "Transpose", "GetItem"), Role.SAME_RANGE),
}
_FIXED_RANGES = {"sigmoid": SIGMOID_RANGE, "softmax": SIGMOID_RANGE, "tanh": TANH_RANGE}


def role(node: Node) -> Role:
    """Return how a node treats scales; a layer that is not known computes in float."""
    layer = node.layer
    if getattr(layer, "data_format", "channels_last") == "channels_first" or not _floats(node):
        return Role.FLOAT
    if isinstance(layer, layers.Activation):
        return _ACTIVATIONS.get(_activation(layer), Role.FLOAT)
    if type(layer) is layers.ReLU:
        return _relu(layer)
    if isinstance(layer, layers.BatchNormalization | layers.Rescaling | layers.Normalization):
        known = len(node.inputs[0].shape) in (2, 4) and _one_scale_per_channel(node)
        return Role.AFFINE if known else Role.FLOAT
    if type(layer) is layers.Resizing and layer.interpolation in ("nearest", "bilinear"):
        return Role.SAME_RANGE if layer.interpolation == "nearest" else Role.SAME_RANGE_ROUNDED
    if type(layer) is layers.UpSampling2D and layer.interpolation == "bilinear":
        return Role.SAME_RANGE_ROUNDED  # nearest is no resize there, but a repetition that becomes many operators
    known = _OPERATIONS.get(type(layer).__name__) if is_operation(layer) else _ROLES.get(type(layer))
    if known is Role.ELEMENTWISE and len(node.inputs) != 2:
        return Role.FLOAT  # three tensors are two operations, with a sum between them whose range nobody knows
    return known or Role.FLOAT


def fixed_range(node: Node) -> tuple[float, float]:
    """Return the range of what a node of Role.FIXED_RANGE gives."""
    layer = node.layer
    return _FIXED_RANGES[_activation(layer) if isinstance(layer, layers.Activation) else type(layer).__name__.lower()]


def is_operation(layer: Any) -> bool:
    """Say whether a node's layer is a call of keras.ops."""
    return not isinstance(layer, layers.Layer) and type(layer).__module__.startswith("keras.")


def taken_in(graph: Graph, node: Node) -> bool:
    """Say whether a batch norm or a ReLU disappears in the layer before it, whose result then has no range."""
    if not isinstance(node.layer, layers.BatchNormalization) and role(node) is not Role.RELU:
        return False
    [tensor] = node.inputs
    before = graph.producer(tensor)
    if graph.is_output(tensor) or graph.consumers(tensor) != [node]:
        return False
    if isinstance(node.layer, layers.BatchNormalization):
        shared = len(graph.calls(node.layer)) > 1 or len(graph.calls(before.layer)) > 1
        # Where the kernel has one scale for all channels, they cannot take in one each.
        per_channel = type(before.layer) in (QuantizedConv2D, QuantizedDepthwiseConv2D)
        return per_channel and role(before) is Role.WEIGHTED and not shared and _one_scale_per_channel(node)
    return role(before) in (Role.WEIGHTED, Role.AFFINE, Role.ELEMENTWISE)


def _activation(layer: layers.Activation) -> str:
    """Return the name of one of Keras's own activations, "" for others."""
    name = getattr(layer.activation, "__name__", "")
    return name if getattr(keras.activations, name, None) is layer.activation else ""


def _relu(layer: layers.ReLU) -> Role:
    if layer.threshold:
        return Role.FLOAT
    if layer.negative_slope:
        return Role.FLOAT if layer.max_value is not None else Role.OWN_RANGE
    return Role.RELU if layer.max_value in (None, 6) else Role.FLOAT


def _one_scale_per_channel(node: Node) -> bool:
    """Say whether a normalisation or rescaling multiplies and shifts each channel by constants at inference."""
    if type(node.layer) is layers.Rescaling:
        return True
    if type(node.layer) is layers.Normalization:
        return not node.layer.invert and np.size(node.layer.mean) in (1, node.inputs[0].shape[-1])
    last = node.layer.axis in (-1, len(node.inputs[0].shape) - 1)
    return last and not node.kwargs.get("training") and type(node.layer) is layers.BatchNormalization


def _floats(node: Node) -> bool:
    return all(tensor.dtype in ("float32", "float16", "bfloat16") for tensor in (*node.inputs, *node.outputs))
