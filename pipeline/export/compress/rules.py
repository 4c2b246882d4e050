"""Rules of what comes between the layers that make channels: what hands them on, ties, joins or moves them."""

import math
from typing import Any

import keras
import numpy as np

from pipeline.export.compress.graph import Node, Tensor
from pipeline.export.compress.kernels import KERNEL_RULES, channels_last, is_elementwise
from pipeline.export.compress.spaces import Ids, Mask, Rule, Spaces

_Spread = list[Ids] | None
_Shrunk = tuple[dict[str, Any], list[np.ndarray]]


def _hand_on(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    same = all(tensor.shape[-1] == len(given[0]) for tensor in node.outputs)
    return [given[0]] * len(node.outputs) if same and channels_last(node.layer) else None


def _activation(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    return [given[0]] if is_elementwise(node.layer.activation) else None


def _rescaling(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    return None if np.ndim(node.layer.scale) or np.ndim(node.layer.offset) else [given[0]]


def _beside_last(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    """Hand on where an operation works along axes that are not the last."""
    rank = len(node.inputs[0].shape)
    axes = node.layer.axis
    axes = range(rank) if axes is None else [axis % rank for axis in keras.tree.flatten(axes)]
    return _hand_on(node, given, spaces) if rank - 1 not in axes else None


def _statistic(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    """Follow a mean or an extreme: over all channels it gives a single one of its own."""
    if keras.tree.flatten(node.layer.axis) in ([-1], [len(node.inputs[0].shape) - 1]) and node.layer.keepdims:
        return [spaces.anonymous(1, f"is what {node.name!r} gives for all channels")]
    return _beside_last(node, given, spaces)


def _merge(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    """Tie operands one by one; a single channel that is spread over the others has to stay."""
    constants = [x for x in keras.tree.flatten((node.args, node.kwargs)) if x is not None and not isinstance(x, Tensor)]
    if any(np.ndim(x) for x in constants):
        return None
    width = node.outputs[0].shape[-1]
    full = [ids for ids in given if len(ids) == width]
    for ids in given:
        if len(ids) != width:
            spaces.pin(ids, f"is spread over all channels by {node.name!r}")
    spaces.tie(*full)
    return [full[0]]


def _concatenate(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    if node.layer.axis in (-1, len(node.outputs[0].shape) - 1):
        return [np.concatenate(given)]
    spaces.tie(*given)
    return [given[0]]


def _reshape(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    """Follow the last axis where it stays, takes in the axes before it, or is split into several."""
    (ids,), before, after = given, node.inputs[0].shape, node.outputs[0].shape
    if after[-1] is None or None in before[1:] or not channels_last(node.layer):
        return None
    if after[-1] % len(ids) == 0 and after[-1] in _trailing(before):
        return [np.tile(ids, after[-1] // len(ids))]
    if len(ids) in _trailing(after):
        columns = ids.reshape(-1, after[-1]).T
        spaces.tie_rows(columns)
        return [columns[:, 0]]
    return None


def _trailing(shape: tuple[int | None, ...]) -> list[int]:
    """Return the sizes of the last axis, the last two together, and so on."""
    return [math.prod(shape[start:]) for start in range(1, len(shape)) if None not in shape[start:]]


def _shrink_reshape(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    name = "target_shape" if hasattr(node.layer, "target_shape") else "newshape"
    *others, last = getattr(node.layer, name)
    return {name: (*others, last if last == -1 else int(kept[0].sum()))}, []


def _over_last(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    axes = keras.tree.flatten(node.layer.axis)
    return [given[0]] if axes in ([-1], [len(node.inputs[0].shape) - 1]) else None


def _group_norm(node: Node, given: list[Ids], spaces: Spaces) -> _Spread:
    """Keep or remove a group of a group normalisation as a whole: the statistics of the others stay as they are."""
    outputs = _over_last(node, given, spaces)
    if outputs:
        spaces.tie_rows(given[0].reshape(node.layer.groups, -1))
    return outputs


def _shrink_vectors(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    arrays = [keras.ops.convert_to_numpy(weight) for weight in node.layer.weights]
    # A PReLU may share its slope over all channels.
    return {}, [array if array.shape[-1] == 1 < len(kept[0]) else array[..., kept[0]] for array in arrays]


def _shrink_group_norm(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    groups = int(kept[0].reshape(node.layer.groups, -1).any(axis=1).sum())
    return {"groups": groups}, _shrink_vectors(node, given, kept)[1]


def _shrink_layer_scale(node: Node, given: list[Mask], kept: list[Mask]) -> _Shrunk:
    return {"projection_dim": int(kept[0].sum())}, _shrink_vectors(node, given, kept)[1]


_POOLS = [f"{kind}Pooling{rank}" for kind in ("Max", "Average") for rank in ("1D", "2D", "3D")]
_HAND_ON = [
    *_POOLS,
    *(f"Global{pool}" for pool in _POOLS),
    *(f"Adaptive{pool}" for pool in _POOLS),
    *(f"{kind}{rank}" for kind in ("ZeroPadding", "Cropping", "UpSampling") for rank in ("1D", "2D", "3D")),
    *(f"SpatialDropout{rank}" for rank in ("1D", "2D", "3D")),
    *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "StochasticDepth", "ActivityRegularization"),
    *("Identity", "Resizing", "CenterCrop", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"),
    *("ReLU", "LeakyReLU", "ELU"),
    # keras.ops
    *("Absolute", "Negative", "Square", "Sqrt", "Exp", "Log", "Clip", "Cast", "Relu", "Relu6", "LeakyRelu", "Elu"),
    *("Sigmoid", "HardSigmoid", "Tanh", "Silu", "HardSilu", "Gelu", "Softplus", "Softsign", "Resize"),
]
_MERGE = [
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    *("Divide", "TrueDivide", "Power", "CustomScaleLayer"),
]
_JOINT = Rule(_over_last, _shrink_vectors, joint=True)

RULES: dict[str, Rule] = {
    **KERNEL_RULES,
    **dict.fromkeys(_HAND_ON, Rule(_hand_on)),
    **dict.fromkeys(_MERGE, Rule(_merge)),
    "Activation": Rule(_activation),
    "Rescaling": Rule(_rescaling),
    "PReLU": Rule(_hand_on, _shrink_vectors),
    "LayerScale": Rule(_hand_on, _shrink_layer_scale),
    "Concatenate": Rule(_concatenate),
    "Flatten": Rule(_reshape),
    "Reshape": Rule(_reshape, _shrink_reshape),
    **dict.fromkeys(("Softmax", "Sum", "ExpandDims", "Squeeze"), Rule(_beside_last)),
    **dict.fromkeys(("Mean", "Max", "Min"), Rule(_statistic, joint=True)),
    "BatchNormalization": Rule(_over_last, _shrink_vectors),
    "GroupNormalization": Rule(_group_norm, _shrink_group_norm),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "UnitNormalization"), _JOINT),
}
