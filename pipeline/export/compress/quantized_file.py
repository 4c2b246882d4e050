"""Quantisation-aware Keras model → integer .tflite with the same answers."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.export.compress.fake_quantize import FakeQuantize, QuantizedConv2D, QuantizedDepthwiseConv2D
from pipeline.export.compress.folding import folded_weights, scale_and_offset
from pipeline.export.compress.graph import Graph, Node
from pipeline.export.compress.quantization_ranges import Range
from pipeline.export.compress.quantization_rules import Role, role, taken_in
from pipeline.export.compress.rebuild import copy, rebuild
from pipeline.export.convert import OUTPUT, run_converter
from pipeline.export.convert import rebuild as at_batch_one

_PORTS = {"int8": (tf.int8, tf.int8), "uint8": (tf.uint8, tf.float32)}
_SMALLEST_RANGE = 1e-6
_MOST_BIAS = 2**29  # leaves room in the 32 bits for the sum of products


def convert_quantized(
    model: keras.Model, decode: Callable[[Any], Any], *, ports: Literal["int8", "uint8"] = "int8"
) -> bytes:
    """Convert a quantisation-aware model to a .tflite file that computes in int8.

    Scales are the model's own, so no calibration images are needed. Kernels of 4 bits are stored so; float islands
    stay float between integers. The file takes `image` and gives `probabilities` = decode(model(image)), as
    `pipeline.export.convert` does.

    Args:
        model: what `quantize_aware` gave, trained or calibrated.
        decode: from the model's outputs to probabilities, part of the file.
        ports: int8 from input to output, or the ones that MediaPipe and LiteRT.js accept: uint8 pixels in, floats out.

    Raises:
        UserError: the model is not quantisation-aware, its ranges were never set, or it cannot be converted.
    """
    single = at_batch_one(_constant(model))
    serving = keras.Model(single.input, {OUTPUT: decode(single.output)})
    converter = tf.lite.TFLiteConverter.from_keras_model(serving)
    # Without a representative set: then the ranges are those of the fake_quant operators in the graph.
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type, converter.inference_output_type = _PORTS[ports]
    with warnings.catch_warnings():
        # It misses the statistics of the inputs, which the graph's own fake_quant has.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs", UserWarning)
        return run_converter(converter, model)


def _constant(model: keras.Model) -> keras.Model:
    """Rebuild a model for inference: ranges that are constants, and every norm inside a convolution.

    Taking a norm into a kernel keeps the kernel's integers: its scale per channel absorbs the norm's.
    """
    graph = Graph.of(model)
    _require_ranges(graph, model)
    norms = [node for node in graph.nodes if role(node) is Role.AFFINE]
    taken = [node for node in norms if taken_in(graph, node)]
    folds = {graph.producer(node.inputs[0]).layer: node for node in taken}

    def constant(layer: Any) -> keras.layers.Layer | None:
        if isinstance(layer, FakeQuantize):
            return copy(layer, fixed=_usable(layer.range))
        return copy(layer, use_bias=True) if layer in folds else None

    def after(node: Node, index: int, tensor: Any) -> Any:
        if role(node) is Role.SAME_RANGE:
            # Nothing to round, but the converter loses sight of ranges that it has to carry over many readers.
            return FakeQuantize(fixed=_usable(_range_before(graph, node)))(tensor)
        if node not in norms or node in taken:
            return tensor
        return _multiply_and_shift(tensor, _with_room_for_bias(graph, node, _scale_and_offset(node)), node.scope)

    weights = {layer: [] for layer in graph.layers if isinstance(layer, FakeQuantize)}
    for layer in graph.layers:
        if isinstance(layer, QuantizedConv2D | QuantizedDepthwiseConv2D) and (layer in folds or layer.use_bias):
            folded = folded_weights(layer, folds[layer].layer) if layer in folds else layer.get_weights()
            weights[layer] = _with_room_for_bias(graph, graph.calls(layer)[0], folded)
    return rebuild(graph, replace=constant, drop=norms, after=after, weights=weights)


def _multiply_and_shift(tensor: Any, weights: list[np.ndarray], name: str) -> Any:
    """Scale each channel by a depthwise convolution: one integer operation instead of two with a range between."""
    shape = tensor.shape[1:]
    image = tensor if len(shape) == 3 else keras.layers.Reshape((1, 1, *shape))(tensor)
    depthwise = QuantizedDepthwiseConv2D(1, name=f"{name}_depthwise")
    result = depthwise(image)
    depthwise.set_weights(weights)
    return result if len(shape) == 3 else keras.layers.Reshape(shape)(result)


def _scale_and_offset(node: Node) -> list[np.ndarray]:
    layer, channels = node.layer, node.inputs[0].shape[-1]
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = layer.scale, layer.offset
    elif isinstance(layer, keras.layers.Normalization):
        scale = 1 / np.maximum(np.sqrt(layer.variance), keras.config.epsilon())
        offset = -np.asarray(layer.mean) * scale
    else:
        scale, offset = scale_and_offset(layer)
    scale, offset = (np.broadcast_to(np.ravel(x), channels).astype(np.float64) for x in (scale, offset))
    return [scale.reshape(1, 1, channels, 1), offset]


def _with_room_for_bias(graph: Graph, node: Node, weights: list[np.ndarray]) -> list[np.ndarray]:
    """Raise the largest weight of channels that are all but switched off, so that their bias fits in 32 bits.

    The file stores a bias in units of input scale x kernel scale, and a kernel near zero makes these so small that
    the bias overflows. What is added is below 1e-4 of the bias.
    """
    kernel, bias = weights
    low, high = _usable(_range_before(graph, node))
    channels = kernel.reshape(-1, len(bias)).copy()  # of a depthwise kernel the last two axes are outputs
    largest = np.abs(channels).argmax(axis=0)[None]
    value = np.take_along_axis(channels, largest, axis=0)
    needed = np.abs(bias) / _MOST_BIAS * 127 * 255 / (high - low)
    raised = np.where(np.abs(value) < needed, np.copysign(needed, value), value)
    np.put_along_axis(channels, largest, raised, axis=0)
    return [channels.reshape(kernel.shape), bias]


def _range_before(graph: Graph, node: Node) -> Range:
    while not isinstance(node.layer, FakeQuantize):
        node = graph.producer(node.inputs[0])
    return node.layer.range


def _usable(limits: Range) -> Range:
    """Widen the range of a tensor that is always zero: it needs a scale."""
    low, high = limits
    return low, max(high, low + _SMALLEST_RANGE)


def _require_ranges(graph: Graph, model: keras.Model) -> None:
    places = [layer for layer in graph.layers if isinstance(layer, FakeQuantize)]
    if not places:
        raise UserError(f"the model {model.name!r} is not quantisation-aware; make it so by quantize_aware first")
    if all(layer.fixed or layer.range == (0.0, 0.0) for layer in places):
        raise UserError(f"the ranges of {model.name!r} were never set; train it, or calibrate it with images")
