"""A model with some channels zeroed at its full size: what a pruned model has to equal."""

from typing import Any

import keras
import numpy as np

from pipeline.export.compress.graph import Node
from pipeline.export.compress.kernels import without_heads
from pipeline.export.compress.rebuild import copy, rebuild
from pipeline.export.compress.spaces import Channels, Mask, Rule


def mask(channels: Channels, kept: np.ndarray) -> keras.Model:
    """Zero the channels that are not kept where they are read, in a model of layers that everyone knows."""
    weights: dict[keras.Operation, list[np.ndarray]] = {}
    replaced: dict[keras.Operation, keras.layers.Layer] = {}
    for layer in channels.graph.layers:
        node, rule = channels.graph.calls(layer)[0], channels.rule(layer)
        given, made = channels.masks(node, kept)
        if rule and rule.joint and not given[0].all():
            replaced[layer], weights[layer] = _over_kept(node, rule, given[0])
        if (layer, "heads") in channels.blocks and not made[-1].all():
            weights[layer] = without_heads(node, made[-1])

    def zeroed(node: Node, index: int, tensor: Any) -> Any:
        rule, given = channels.rule(node.layer), channels.masks(node, kept)[0]
        if not (rule and rule.reads) or given[index].all():
            return tensor
        scale = given[index].astype(float).tolist()
        return keras.layers.Rescaling(scale, dtype=tensor.dtype, name=f"{node.scope}_mask{index}")(tensor)

    return rebuild(channels.graph, replace=replaced.get, before=zeroed, weights=weights)


def _over_kept(node: Node, rule: Rule, given: Mask) -> tuple[keras.Model, list[np.ndarray]]:
    """Compute over the kept channels alone: gather them, normalise or average, and put them back in their places."""
    layer, selection, dtype = node.layer, np.eye(len(given))[:, given], node.inputs[0].dtype
    changes, arrays = rule.shrink(node, [given], [given]) if rule.shrink else ({}, [])
    inputs = keras.Input(batch_shape=node.inputs[0].shape, dtype=dtype)
    gather = keras.layers.Dense(selection.shape[1], use_bias=False, dtype=dtype, name="gather")
    x, weights = copy(layer, **changes)(gather(inputs)), [selection, *arrays]
    if x.shape[-1] == selection.shape[1]:  # not where one value stands for all channels
        x = keras.layers.Dense(len(selection), use_bias=False, dtype=dtype, name="put_back")(x)
        weights.append(selection.T)
    return keras.Model(inputs, x, name=layer.name), weights
