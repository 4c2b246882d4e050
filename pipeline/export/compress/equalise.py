"""Repairs for networks that post-training quantisation breaks; they need no training (arXiv 1906.04721).

Depthwise networks break most: their channels drift apart in scale, and one int8 scale for all of them leaves the
quiet ones a few levels.
"""

import logging
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from pipeline.export.compress.decompose import decompose
from pipeline.export.compress.fake_quantize import QUANTIZED
from pipeline.export.compress.folding import fold_batch_norm
from pipeline.export.compress.graph import Graph, Node
from pipeline.export.compress.quantization_rules import Role, role
from pipeline.export.compress.rebuild import copy, rebuild

log = logging.getLogger(__name__)

layers = keras.layers

_SWEEPS, _SETTLED = 50, 1e-3
# What keeps channels apart and commutes with scaling each of them by a positive number, besides ReLU.
_TRANSPARENT = (
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D),
    *(layers.ZeroPadding2D, layers.Cropping2D, layers.UpSampling2D),
)
# Of a kernel (..., in, out), and of a depthwise one (H, W, C, 1), whose channels are both.
_OUT = {layers.Conv2D: 3, layers.DepthwiseConv2D: 2, layers.Dense: 1}
_IN = {layers.Conv2D: 2, layers.DepthwiseConv2D: 2, layers.Dense: 0}

Weights = dict[Any, list[np.ndarray]]  # kernel, and bias if there is one, by layer


def equalise(model: keras.Model) -> keras.Model:
    """Even out the ranges of channels between convolution, depthwise and dense layers, and fold batch norms.

    Where one layer's channels go only into the next layer, through ReLU or poolings, each channel is divided by
    sqrt(its range in the first kernel / its range in the second) there and multiplied by it here: the same function,
    with channels of one size. ReLU6 on such a path becomes ReLU, because a scaled channel would be cut elsewhere: that
    changes the answers where a value above 6 occurred, and is told. Layers that others share, and separable
    convolutions, stay as they are.
    """
    graph = Graph.of(fold_batch_norm(model))
    paths = [path for node in graph.nodes if (path := _path(graph, node))]
    weights = {
        node.layer: [np.array(w, np.float64) for w in node.layer.weights] for p in paths for node in (p[0], p[-1])
    }
    for _ in range(_SWEEPS):
        if max((_even_out(path[0], path[-1], weights) for path in paths), default=0.0) < _SETTLED:
            break
    clipped = {node.layer: changes for path in paths for node in path[:-1] if (changes := _unclipped(node.layer))}
    log.info("equalised %d pairs of layers; %d ReLU6 became ReLU", len(paths), len(clipped))
    return rebuild(graph, replace=lambda x: copy(x, **clipped[x]) if x in clipped else None, weights=weights)


def correct_bias(model: keras.Model, images: np.ndarray, *, bits: int = 8) -> keras.Model:
    """Shift each bias by what rounding the kernels to `bits` moved the mean of its channel on `images`.

    Empirical, layer after layer, so that each correction sees the ones before; batch norms are folded first. The
    float model that comes back is a little off by itself: it is right once its kernels are rounded. Layers without a
    bias stay as they are.

    Args:
        model: a functional model.
        images: float (N, H, W, C) as the model takes them; a hundred will do.
        bits: of the kernels in the file, 4 or 8; depthwise kernels are rounded to 8 anyway.
    """
    corrected = fold_batch_norm(model)
    graph = Graph.of(corrected)
    rounded = _finer(graph, bits)
    names = {layer.name for layer in corrected.layers}
    exact = _finer(graph, 16)  # stands for no rounding: the same finer layers with the float model's values
    for node in Graph.of(rounded).nodes:
        if type(node.layer) in QUANTIZED.values() and node.layer.use_bias:
            name = node.layer.name
            shift = _channel_means(exact, name, images) - _channel_means(rounded, name, images)
            own = name if name in names else name.removesuffix("_pointwise")
            for layer in (node.layer, corrected.get_layer(own)):
                layer.bias.assign_add(shift)
    return corrected


def _finer(graph: Graph, bits: int) -> keras.Model:
    return rebuild(Graph.of(decompose(graph, lambda layer: bits)))


def _channel_means(model: keras.Model, name: str, images: np.ndarray) -> np.ndarray:
    part = keras.Model(model.input, model.get_layer(name).output)
    outputs = np.asarray(part(images), np.float64)
    return outputs.reshape(-1, outputs.shape[-1]).mean(axis=0)


def _path(graph: Graph, first: Node) -> list[Node]:
    """Return the nodes from a layer to the one that alone reads its channels, or nothing."""
    if not _scalable(graph, first) or not _is_relu(first.layer.activation):
        return []
    path = [first]
    for node in _sole_readers(graph, first):
        path.append(node)
        if _scalable(graph, node) and getattr(node.layer, "groups", 1) == 1:
            return path
        if type(node.layer).__name__ == "Relu6":  # a keras.ops call, which cannot be made a ReLU
            return []
        if role(node) not in (Role.RELU, Role.NOTHING) and type(node.layer) not in _TRANSPARENT:
            return []
        if _unclipped(node.layer) and len(graph.calls(node.layer)) > 1:  # it still has to clip elsewhere
            return []
    return []


def _sole_readers(graph: Graph, node: Node) -> Iterator[Node]:
    while len(readers := graph.consumers(node.outputs[0])) == 1 and not graph.is_output(node.outputs[0]):
        [node] = readers
        yield node


def _scalable(graph: Graph, node: Node) -> bool:
    layer = node.layer
    return (
        type(layer) in _OUT
        and len(graph.calls(layer)) == 1
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and getattr(layer, "depth_multiplier", 1) == 1
    )


def _even_out(first: Node, second: Node, weights: Weights) -> float:
    """Scale the channels between two layers in place; return how far the largest scale is from 1, as a logarithm."""
    kernel, *bias = weights[first.layer]
    reader = weights[second.layer][0]
    out, into = _OUT[type(first.layer)], _IN[type(second.layer)]
    ranges = _ranges(kernel, out), _ranges(reader, into)
    alive = (ranges[0] > 0) & (ranges[1] > 0)
    scale = np.sqrt(np.where(alive, ranges[0], 1.0) / np.where(alive, ranges[1], 1.0))
    kernel /= _along(scale, kernel, out)
    for values in bias:
        values /= scale
    reader *= _along(scale, reader, into)
    return float(np.abs(np.log(scale)).max())


def _ranges(kernel: np.ndarray, axis: int) -> np.ndarray:
    return np.abs(kernel).max(axis=tuple(i for i in range(kernel.ndim) if i != axis))


def _along(scale: np.ndarray, kernel: np.ndarray, axis: int) -> np.ndarray:
    return scale.reshape([-1 if i == axis else 1 for i in range(kernel.ndim)])


def _is_relu(activation: Any) -> bool:
    return activation in (keras.activations.linear, keras.activations.relu, keras.activations.relu6)


def _unclipped(layer: Any) -> dict[str, Any]:
    """Return what makes a ReLU6, or a layer that ends in one, a ReLU."""
    if isinstance(layer, layers.ReLU):
        return {"max_value": None} if layer.max_value is not None else {}
    return {"activation": "relu"} if getattr(layer, "activation", None) is keras.activations.relu6 else {}
