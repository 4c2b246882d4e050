"""The rules of the lint: each finds layers that will hurt an integer file. A new rule is one function here.

What each layer becomes in an integer file is told by the table that quantization-aware training places its rounding by
(compress/quantization_rules.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from pipeline.export.compress.folding import fold_batch_norm, layer_to_fold_into
from pipeline.export.compress.graph import Graph, Node
from pipeline.export.compress.quantization_rules import Role, is_operation, role
from pipeline.export.compress.quantize_aware import float_islands
from pipeline.export.lint_subject import (
    Subject,
    chain_back,
    givers,
    inner_layers,
    last_kernels,
    reaches_a_kernel,
)

layers = keras.layers

GRAIN = 8  # channels that integer kernels take at a time
KERNEL_RATIO = 100.0  # between the largest weights of two channels that share a scale
_DEAD = 1e-4  # a channel below this part of the largest one is switched off, and loses nothing

Found = Iterator[tuple[str, str]]  # a layer and the figures that were found there, "" where the graph says it all


@dataclass(frozen=True)
class Rule:
    """One kind of finding: what it hurts and how to mend it, each a clause; what it needs to be looked for."""

    name: str
    hurts: str
    mend: str
    needs: Literal["layers", "graph", "images"]
    find: Callable[[Subject], Found]


RULES: list[Rule] = []  # the worst first, in the order of this file


def _rule(*, hurts: str, mend: str, needs: Literal["layers", "graph", "images"] = "graph") -> Callable[..., Any]:
    def add(find: Callable[[Subject], Found]) -> Callable[[Subject], Found]:
        RULES.append(Rule(find.__name__, hurts, mend, needs, find))
        return find

    return add


@_rule(
    hurts="hides what it computes: nothing here can be checked, pruned or trained with rounding",
    mend="write it as a layer or a keras.ops call; a mean over height and width is GlobalAveragePooling2D",
    needs="layers",
)
def python_code(subject: Subject) -> Found:
    """Find Lambda layers."""
    for layer in inner_layers(subject.model):
        if isinstance(layer, layers.Lambda):
            yield layer.name, ""


@_rule(
    hurts="gives outputs of different kinds one scale: boxes in pixels leave no levels for scores below 1",
    mend="give the parts as outputs of their own, or bring them to one range first",
)
def joined_outputs(subject: Subject) -> Found:
    """Find a concatenation of channels that is given out."""
    for tensor in keras.tree.flatten(subject.finer.outputs):
        for node in chain_back(subject.finer, tensor):
            axis = getattr(node.layer, "axis", None)
            if type(node.layer).__name__ == "Concatenate" and axis in (-1, len(node.outputs[0].shape) - 1):
                yield node.name, ""


@_rule(
    hurts="has a few values far beyond all others: 256 levels stretch to them, and the rest falls on a handful",
    mend="bound it by a ReLU6, or balance it by pipeline compress --equalise or --qat, or export int16x8 or mixed",
    needs="images",
)
def activation_range(subject: Subject) -> Found:
    """Find tensors of the file whose largest value is far from their usual ones."""
    for name, spread in subject.spreads.items():
        if spread.is_huge:
            yield name, str(spread)


@_rule(
    hurts="has channels whose weights differ by orders of magnitude: with one scale for all, the small ones round to 0",
    mend="balance them by pipeline compress --equalise, or train with the rounding: --qat",
    needs="images",
)
def kernel_range(subject: Subject) -> Found:
    """Find kernels, batch norm folded in, that some targets give one scale and whose channels are far apart."""
    kinds = (layers.DepthwiseConv2D, layers.Conv2DTranspose, layers.Dense)
    for layer in Graph.of(fold_batch_norm(subject.model)).layers:
        if type(layer) in kinds:
            largest = _largest_weights(layer)
            alive = largest[largest > _DEAD * largest.max()]
            if alive.size and alive.max() > KERNEL_RATIO * alive.min():
                yield layer.name, f"{alive.max() / alive.min():.0f} times"


@_rule(
    hurts="has no integer rule: it computes in float between two conversions, which integer-only chips refuse",
    mend="use a layer that has one, such as ReLU, hard_silu or batch norm, or accept the float part",
)
def float_island(subject: Subject) -> Found:
    """Find layers that stay float in an integer file."""
    nodes = {node.name: node for node in subject.finer.nodes}
    for name in float_islands(subject.finer.model):
        if not (_is_nearest(nodes[name]) or _is_mean(nodes[name])):
            yield subject.own_name(nodes[name]), ""


@_rule(
    hurts="becomes a reshape and a repetition, several operators with copies of the tensor, instead of one",
    mend='use Resizing(height, width, interpolation="nearest"), the same values in one operator',
)
def nearest_upsampling(subject: Subject) -> Found:
    """Find UpSampling2D that repeats pixels."""
    for node in subject.finer.nodes:
        if _is_nearest(node):
            yield node.name, ""


@_rule(
    hurts="pools in float, or over a tensor whose step is coarser than the averages differ",
    mend="use GlobalAveragePooling2D, right after an activation with a bounded range",
)
def pooling(subject: Subject) -> Found:
    """Find means that are no pooling layer, and global pooling over a huge range."""
    for node in subject.finer.nodes:
        if _is_mean(node):
            yield node.name, ""
        elif isinstance(node.layer, layers.GlobalAveragePooling2D):
            [given] = givers(subject.finer, node.inputs[0])[:1]
            spread = subject.spreads.get(given.name)
            if spread and spread.is_huge:
                yield node.name, str(spread)


@_rule(
    hurts="stays a multiplication and an addition of its own, rounded anew, since no kernel before it can take it in",
    mend="put it right after a convolution without activation that nothing else reads",
)
def unfolded_norm(subject: Subject) -> Found:
    """Find batch norms that cannot fold: before their convolution, or behind a tensor with other readers."""
    for node in subject.graph.nodes:
        if isinstance(node.layer, layers.BatchNormalization) and layer_to_fold_into(subject.graph, node) is None:
            yield node.name, ""


@_rule(
    hurts="takes pixels that were normalised outside the file: they round on ties, differently on every client",
    mend="begin the model with Rescaling and give it pixels of 0..255, which int8 holds exactly",
)
def outside_normalization(subject: Subject) -> Found:
    """Find images that go into a kernel as they come."""
    for node in subject.finer.nodes:
        if node.is_input and len(node.outputs[0].shape) == 4 and reaches_a_kernel(subject.finer, node):
            yield node.name, ""


@_rule(
    hurts="leaves a subtraction and a multiplication on the largest tensor of all, each rounded",
    mend="use Rescaling, which folds into the first convolution, unless an offset meets zero padding",
)
def normalization_layer(subject: Subject) -> Found:
    """Find Normalization layers."""
    for node in subject.graph.nodes:
        if isinstance(node.layer, layers.Normalization):
            yield node.name, ""


@_rule(
    hurts="gives probabilities in steps of 1/256, so small ones vanish, and a loss on them is imprecise",
    mend="end the model in logits; the export adds the softmax to the file",
)
def softmax_inside(subject: Subject) -> Found:
    """Find softmax and sigmoid at an output."""
    for node in subject.outputs():
        activation = getattr(getattr(node.layer, "activation", None), "__name__", type(node.layer).__name__)
        if activation.lower() in ("softmax", "sigmoid"):
            yield subject.own_name(node), ""


@_rule(
    hurts=f"has a number of channels that is no multiple of {GRAIN}: integer kernels compute the rest for nothing",
    mend=f"round its channels to a multiple of {GRAIN}",
)
def channels(subject: Subject) -> Found:
    """Find kernels with odd channel counts, but for those that give the classes."""
    last = set(last_kernels(subject))
    for node in subject.finer.nodes:
        count = node.outputs[0].shape[-1]
        depthwise = isinstance(node.layer, layers.DepthwiseConv2D)  # it has the channels that it is given
        if role(node) is Role.WEIGHTED and not depthwise and node not in last and count % GRAIN:
            yield subject.own_name(node), f"{count} channels"


def _largest_weights(layer: Any) -> np.ndarray:
    """Return the largest absolute weight of each channel."""
    kernel = np.abs(np.asarray(layer.kernel))
    if isinstance(layer, layers.Conv2DTranspose):
        kernel = kernel.swapaxes(-1, -2)  # (H, W, out, in)
    if isinstance(layer, layers.DepthwiseConv2D):
        kernel = kernel.reshape(*kernel.shape[:2], -1)  # (H, W, C, multiplier)
    return kernel.reshape(-1, kernel.shape[-1]).max(axis=0)


def _is_nearest(node: Node) -> bool:
    return isinstance(node.layer, layers.UpSampling2D) and node.layer.interpolation == "nearest"


def _is_mean(node: Node) -> bool:
    return is_operation(node.layer) and type(node.layer).__name__ == "Mean" and len(node.inputs[0].shape) == 4
