"""Layers that are several operations of the file, taken apart: what lies between them needs a range of its own."""

from collections.abc import Callable
from typing import Any

import keras

from pipeline.export.compress.fake_quantize import QUANTIZED, QuantizedSilu
from pipeline.export.compress.graph import Graph, Node
from pipeline.export.compress.quantization_rules import is_operation
from pipeline.export.compress.rebuild import rebuild

layers = keras.layers


# LiteRT has no kernels of fewer bits for these.
_EIGHT_BITS = (layers.DepthwiseConv2D, layers.Conv2DTranspose)

Bits = Callable[[Any], int | None]


def decompose(graph: Graph, bits: Bits) -> keras.Model:
    """Rebuild a model of finer layers, equal but for the rounding of kernels.

    A layer with weights gets its rounded kind, of `bits(layer)` bits (None leaves it as it is), and its activation
    becomes a layer. A separable convolution becomes a depthwise and a pointwise one; x * sigmoid(x) shows its sigmoid;
    hard_sigmoid becomes relu6(x + 3) / 6; a number added or multiplied becomes a Rescaling.
    """
    rescalings = {node: found for node in graph.nodes if (found := _rescaling(node))}
    parts = {layer: found for layer in graph.layers if (found := _parts(graph.calls(layer)[0], bits))}
    return rebuild(
        graph,
        replace=parts.get,
        drop=list(rescalings),
        after=lambda node, index, tensor: rescalings[node](tensor) if node in rescalings else tensor,
        weights={layer: layer.get_weights() for layer in parts},
    )


def _parts(node: Node, bits: Bits) -> keras.layers.Layer | None:
    layer, name = node.layer, node.name  # the node's name is unique among inlined models, the layer's is not
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return None
    if isinstance(layer, layers.Activation):
        parts = _activated(layer, name)
    elif type(layer) not in (layers.SeparableConv2D, *QUANTIZED) or bits(layer) is None:
        return None
    else:
        if type(layer) is layers.SeparableConv2D:
            parts = _separable(layer, name, bits(layer))
        else:
            config = {**layer.get_config(), "activation": "linear", "name": name}
            parts = [_rounded(type(layer), config, bits(layer))]
        if not _is(layer, "linear"):
            last = f"{name}_activation"
            parts += _activated(layer, last) or [layers.Activation(layer.activation, name=last)]
    if len(parts) > 1:
        return keras.Sequential(parts, name=f"{name}.parts")
    return parts[0] if parts else None


def _rounded(kind: type, config: dict[str, Any], bits: int) -> keras.layers.Layer:
    return QUANTIZED[kind].from_config({**config, "bits": max(bits, 8) if kind in _EIGHT_BITS else bits})


def _activated(layer: Any, name: str) -> list[keras.layers.Layer]:
    """Return the operations that a layer's activation is in the file, or nothing where it is one itself."""
    if _is(layer, "silu"):
        return [QuantizedSilu(name=name)]
    if _is(layer, "hard_sigmoid"):
        shift, clip = layers.Rescaling(1.0, 3.0, name=f"{name}_shift"), layers.ReLU(6.0, name=f"{name}_clip")
        return [shift, clip, layers.Rescaling(1 / 6, name=f"{name}_scale")]
    return []


def _separable(layer: layers.SeparableConv2D, name: str, bits: int) -> list[keras.layers.Layer]:
    config = layer.get_config()
    shared = {key: config[key] for key in ("dtype", "trainable")}
    depthwise = shared | {
        **{key: config[key] for key in ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier")},
        "use_bias": False,
        **{key: config[key] for key in ("depthwise_regularizer", "depthwise_constraint")},
        "name": f"{name}_depthwise",
    }
    pointwise = shared | {
        **{key: config[key] for key in ("filters", "use_bias", "bias_regularizer", "bias_constraint")},
        "kernel_size": 1,
        "kernel_regularizer": config["pointwise_regularizer"],
        "kernel_constraint": config["pointwise_constraint"],
        "name": f"{name}_pointwise",
    }
    return [_rounded(layers.DepthwiseConv2D, depthwise, bits), _rounded(layers.Conv2D, pointwise, bits)]


def _rescaling(node: Node) -> layers.Rescaling | None:
    """Return the Rescaling that a keras.ops call with one tensor and one number is."""
    operation, [*given] = node.layer, node.args
    if not is_operation(operation) or len(given) != 2 or len(node.inputs) != 1:
        return None
    number = next((x for x in given if isinstance(x, int | float)), None)
    first = given[0] is not number
    if number is None:
        return None
    scale, offset = {
        "Add": (1.0, number),
        "Subtract": (1.0, -number) if first else (-1.0, number),
        "Multiply": (number, 0.0),
        "TrueDivide": (1.0 / number, 0.0) if first and number else (None, None),
    }.get(type(operation).__name__, (None, None))
    return None if scale is None else layers.Rescaling(scale, offset, name=node.scope)


def _is(layer: Any, activation: str) -> bool:
    return layer.activation is keras.activations.get(activation)
