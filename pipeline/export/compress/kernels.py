"""Rules of the layers that make channels: convolutions, dense layers and attention."""

import math
from typing import Any

import keras
import numpy as np

from pipeline.export.compress.graph import Node, Tensor
from pipeline.export.compress.spaces import Ids, Mask, Rule, Spaces

_Shrunk = tuple[dict[str, Any], list[np.ndarray]]

# Each acts on every channel by itself; softmax and the like do not.
_ELEMENTWISE = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "exponential"),
    *("sigmoid", "hard_sigmoid", "log_sigmoid", "hard_silu", "tanh", "hard_tanh", "tanh_shrink", "softplus"),
    *("softsign", "soft_shrink", "hard_shrink", "squareplus", "threshold", "sparse_plus", "sparse_sigmoid"),
}


def is_elementwise(activation: Any) -> bool:
    """Say whether an activation function acts on each channel by itself."""
    return getattr(activation, "__name__", None) in _ELEMENTWISE


def channels_last(layer: Any) -> bool:
    """Say whether the last axis holds the channels; layers without images have no say."""
    return getattr(layer, "data_format", None) in (None, "channels_last")


def _arrays(layer: keras.layers.Layer) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(weight) for weight in layer.weights]


def _outputs(node: Node, spaces: Spaces) -> list[Ids]:
    ids = spaces.block(node.layer, node.outputs[0].shape[-1])
    if not is_elementwise(node.layer.activation):
        spaces.pin(ids, f"has the activation {getattr(node.layer.activation, '__name__', 'given')}, over all channels")
    return [ids]


def _spread_kernel(node: Node, given: list[Ids], spaces: Spaces) -> list[Ids] | None:
    return _outputs(node, spaces) if channels_last(node.layer) else None


def _spread_conv(node: Node, given: list[Ids], spaces: Spaces) -> list[Ids] | None:
    outputs = _spread_kernel(node, given, spaces)
    if outputs and node.layer.groups > 1:
        # A group of channels goes as a whole, with what is made of it: the others' kernels stay as they are.
        sides = [ids.reshape(node.layer.groups, -1) for ids in (*given, *outputs)]
        spaces.tie_rows(np.concatenate(sides, axis=1))
    return outputs


def _shrink_conv(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    kernel, *bias = _arrays(node.layer)
    changes = {"filters": int(kept[0].sum())}
    if node.layer.groups > 1:
        changes["groups"] = int(given[0].sum()) // kernel.shape[-2]
    else:
        kernel = kernel[..., given[0], :]
    return changes, [kernel[..., kept[0]], *(b[kept[0]] for b in bias)]


def _shrink_transposed(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    kernel, *bias = _arrays(node.layer)
    return {"filters": int(kept[0].sum())}, [kernel[..., kept[0], :][..., given[0]], *(b[kept[0]] for b in bias)]


def _shrink_dense(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    kernel, *bias = _arrays(node.layer)
    return {"units": int(kept[0].sum())}, [kernel[given[0]][:, kept[0]], *(b[kept[0]] for b in bias)]


def _shrink_separable(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    depthwise, pointwise, *bias = _arrays(node.layer)
    made = np.repeat(given[0], node.layer.depth_multiplier)
    weights = [depthwise[..., given[0], :], pointwise[..., made, :][..., kept[0]], *(b[kept[0]] for b in bias)]
    return {"filters": int(kept[0].sum())}, weights


def _spread_depthwise(node: Node, given: list[Ids], spaces: Spaces) -> list[Ids] | None:
    understood = channels_last(node.layer) and is_elementwise(node.layer.activation)
    return [np.repeat(given[0], node.layer.depth_multiplier)] if understood else None


def _shrink_depthwise(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    kernel, *bias = _arrays(node.layer)
    return {}, [kernel[..., given[0], :], *(b[kept[0]] for b in bias)]


def _last_axis(layer: Any, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    kernel = arrays[1] if hasattr(layer, "pointwise_kernel") else arrays[0]
    return {"outputs": kernel.reshape(-1, kernel.shape[-1]).T}


def _last_but_one(layer: Any, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    kernel = np.moveaxis(arrays[0], -2, 0)
    return {"outputs": kernel.reshape(len(kernel), -1)}


def _attention_inputs(node: Node) -> list[str]:
    """Name the inputs of an attention call in the order of `node.inputs`."""
    positional = [name for name, x in zip(("query", "value", "key"), node.args, strict=False) if isinstance(x, Tensor)]
    return positional + sorted(name for name, x in node.kwargs.items() if isinstance(x, Tensor))


def _attention_weight(weight: keras.Variable) -> tuple[str, str]:
    part, kind = weight.path.split("/")[-2:]
    return part, kind


def _spread_attention(node: Node, given: list[Ids], spaces: Spaces) -> list[Ids] | None:
    layer, names = node.layer, _attention_inputs(node)
    config = layer.get_config()
    understood = (
        len(names) == len(given)
        and set(names) <= {"query", "value", "key"}
        and len(node.outputs) == 1
        and len(config["output_shape"] or (0,)) == 1
        and not config["use_gate"]
    )
    if not understood:
        return None
    spaces.block(layer, layer.num_heads, "heads")
    return [spaces.block(layer, node.outputs[0].shape[-1])]


def _shrink_attention(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    """Cut attention by whole heads: the width of a head, over which scores are scaled, stays."""
    outputs, heads = kept
    sides = dict(zip(_attention_inputs(node), given, strict=True))
    sides.setdefault("key", sides["value"])
    weights = []
    for weight in node.layer.weights:
        part, kind = _attention_weight(weight)
        array = keras.ops.convert_to_numpy(weight)
        if part == "attention_output":
            array = array[heads][..., outputs] if kind == "kernel" else array[outputs]
        else:
            array = array[sides[part]][:, heads] if kind == "kernel" else array[heads]
        weights.append(array)
    return {"num_heads": int(heads.sum()), "output_shape": (int(outputs.sum()),)}, weights


def without_heads(node: Node, heads: Mask) -> list[np.ndarray]:
    """Return the weights of attention with some heads silenced, where the heads are summed."""
    weights = []
    for weight in node.layer.weights:
        array = keras.ops.convert_to_numpy(weight)
        silenced = _attention_weight(weight) == ("attention_output", "kernel")
        weights.append(array * heads[:, None, None] if silenced else array)
    return weights


def _attention_rows(layer: Any, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    names = [_attention_weight(weight) for weight in layer.weights]
    kernel = arrays[names.index(("attention_output", "kernel"))]
    return {"outputs": kernel.reshape(-1, kernel.shape[-1]).T, "heads": kernel.reshape(len(kernel), -1)}


def _rows_of_depthwise(layer: Any, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    kernel = arrays[0]
    return {"handed on": kernel.reshape(-1, math.prod(kernel.shape[-2:])).T}


_CONV = Rule(_spread_conv, _shrink_conv, _last_axis, reads=True)
_TRANSPOSED = Rule(_spread_kernel, _shrink_transposed, _last_but_one, reads=True)
_SEPARABLE = Rule(_spread_kernel, _shrink_separable, _last_axis, reads=True)
_DEPTHWISE = Rule(_spread_depthwise, _shrink_depthwise, _rows_of_depthwise)

KERNEL_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _CONV),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _TRANSPOSED),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _SEPARABLE),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _DEPTHWISE),
    "Dense": Rule(_spread_kernel, _shrink_dense, _last_axis, reads=True),
    "MultiHeadAttention": Rule(_spread_attention, _shrink_attention, _attention_rows, reads=True),
}
