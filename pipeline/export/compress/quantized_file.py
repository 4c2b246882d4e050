"""Quantisation-aware Keras model → integer .tflite with the same answers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.export.compress.fake_quantize import FakeQuantize, QuantizedDepthwiseConv2D
from pipeline.export.compress.folding import folded_weights, scale_and_offset
from pipeline.export.compress.graph import Graph, Node
from pipeline.export.compress.quantization_rules import Role, role, taken_in
from pipeline.export.compress.rebuild import copy, rebuild
from pipeline.export.convert import OUTPUT, check
from pipeline.export.convert import rebuild as at_batch_one
from pipeline.export.quiet import quiet

_SMALLEST_RANGE = 1e-6


def convert_quantized(model: keras.Model, decode: Callable[[Any], Any]) -> bytes:
    """Convert a quantisation-aware model to a .tflite file of int8 from input to output.

    Scales are the model's own, so no calibration images are needed. Kernels of 4 bits are stored so; float islands
    stay float between integers. The file takes `image` and gives `probabilities` = decode(model(image)), as
    `pipeline.export.convert` does.

    Raises:
        UserError: the model is not quantisation-aware, its ranges were never set, or it cannot be converted.
    """
    single = at_batch_one(_constant(model))
    serving = keras.Model(single.input, {OUTPUT: decode(single.output)})
    converter = tf.lite.TFLiteConverter.from_keras_model(serving)
    # Without a representative set: then the ranges are those of the fake_quant operators in the graph.
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet():
        content = converter.convert()
    check(content)
    return content


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
            low, high = layer.range
            # A tensor that is always zero has no range, but needs a scale.
            return copy(layer, fixed=(low, max(high, low + _SMALLEST_RANGE)))
        return copy(layer, use_bias=True) if layer in folds else None

    def alone(node: Node, index: int, tensor: Any) -> Any:
        return _multiply_and_shift(node, tensor) if node in norms and node not in taken else tensor

    weights = {layer: [] for layer in graph.layers if isinstance(layer, FakeQuantize)}
    weights |= {layer: folded_weights(layer, norm.layer) for layer, norm in folds.items()}
    return rebuild(graph, replace=constant, drop=norms, after=alone, weights=weights)


def _multiply_and_shift(node: Node, tensor: Any) -> Any:
    """Scale each channel by a depthwise convolution: one integer operation instead of two with a range between."""
    shape = tensor.shape[1:]
    image = tensor if len(shape) == 3 else keras.layers.Reshape((1, 1, *shape))(tensor)
    depthwise = QuantizedDepthwiseConv2D(1, name=f"{node.name}_depthwise")
    result = depthwise(image)
    depthwise.set_weights(_scale_and_offset(node))
    return result if len(shape) == 3 else keras.layers.Reshape(shape)(result)


def _scale_and_offset(node: Node) -> list[np.ndarray]:
    layer, channels = node.layer, node.inputs[0].shape[-1]
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = (np.broadcast_to(np.asarray(x, np.float64), channels) for x in (layer.scale, layer.offset))
    else:
        scale, offset = scale_and_offset(layer)
    return [scale.reshape(1, 1, channels, 1), offset]


def _require_ranges(graph: Graph, model: keras.Model) -> None:
    places = [layer for layer in graph.layers if isinstance(layer, FakeQuantize)]
    if not places:
        raise UserError(f"the model {model.name!r} is not quantisation-aware; make it so by quantize_aware first")
    if all(layer.fixed or layer.range == (0.0, 0.0) for layer in places):
        raise UserError(f"the ranges of {model.name!r} were never set; train it, or calibrate it with images")
