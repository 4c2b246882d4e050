"""Layer by layer: what a .tflite file computes inside, beside the Keras model, on the same images.

The converter fuses layers (a convolution, its norm and its activation are one operator) and drops others (a reshape
may vanish). A tensor of the file bears the names of layers that went into it; which Keras output it holds is the one of
these layers, or of those that only they feed, that it is nearest to. A tensor from which a layer that it bears the name
of goes on computing is no layer's output, but a step on the way, such as a norm's product before its sum; and one that
is a multiple of a layer's output has a factor of the layer after it folded in (InceptionResNetV2 scales its branches
where it adds them). Layers without a tensor of their own are listed with the layer they went into.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.compress.graph import Graph, Node
from pipeline.export.compress.rebuild import rebuild
from pipeline.export.interpreter import Port
from pipeline.export.noise import SILENCE, decibels
from pipeline.export.variants import reference
from pipeline.quiet import quiet

# Signal to noise that every layer of a float file must have, dB. Integer files have no bound of their own: what their
# rounding may cost is a matter of the task's score, and how much of it each layer brings in is what the table is for.
# Kernels of 11 bits lose 71 dB once, and 40 after the 52 layers of a MobileNetV2 that is hardly trained.
BOUNDS = {"float32": 60.0, "float16": 30.0}
# A multiple of what is expected is nearer to the multiple by so many dB, and the layers after it are to their own.
_FOLDED = 20.0


@dataclass(frozen=True)
class Match:
    """A tensor of the file and the Keras layer whose output it is, with both values (N, ...)."""

    layer: str
    tensor: str
    expected: np.ndarray
    found: np.ndarray


def compare_layers(model: keras.Model, content: bytes, images: np.ndarray) -> pd.DataFrame:
    """Return one row per Keras layer, in the order of the graph.

    Columns: `layer`, `tensor` (of the file), `fused_into` (the layer that holds its result, where it has no tensor of
    its own), `max_abs`, `mean_abs`, `sqnr_db` (signal to quantisation noise), `cosine`.

    Args:
        model: the functional model of one image input that the file was made from, logits out.
        content: the file.
        images: (N, H, W, C) in 0..255.
    """
    graph = Graph.of(rebuild(Graph.of(model)))  # flat: of a nested model the inner layers count
    expected = _keras_outputs(graph, images)
    matches = {match.layer: match for match in _match(graph, expected, _file_outputs(content, images))}
    for node in [node for node in graph.nodes if node.name in matches and _is_scaled(graph, node, matches)]:
        del matches[node.name]
    rows = []
    for node in graph.nodes:
        match = matches.get(node.name)
        figures = _figures(match) if match else {}
        own = {"layer": node.name, "tensor": match.tensor if match else None}
        rows.append({**own, "fused_into": None if match else _holder(graph, node, matches), **figures})
    return pd.DataFrame(rows, columns=["layer", "tensor", "fused_into", "max_abs", "mean_abs", "sqnr_db", "cosine"])


def check_layers(model: keras.Model, paths: Mapping[str, Path], images: np.ndarray) -> pd.DataFrame:
    """Return `compare_layers` of every file, by `variant`.

    Raises UserError where a float file diverges from the Keras model, naming the first layer that does.
    """
    tables = []
    for variant, path in paths.items():
        table = compare_layers(reference(model, variant), path.read_bytes(), images)
        diverging = first_divergence(table, BOUNDS.get(variant, -np.inf))
        if diverging:
            found = table.set_index("layer").loc[diverging, "sqnr_db"]
            raise UserError(
                f"{variant}: the file computes something else than the Keras model from the layer {diverging!r} on "
                f"({found:.0f} dB signal to noise, {BOUNDS[variant]:.0f} are needed)"
            )
        tables.append(table.assign(variant=variant))
    return pd.concat(tables, ignore_index=True)


def noisiest_layers(layers: pd.DataFrame) -> pd.DataFrame:
    """Return the layer with the lowest signal to noise of each variant: `variant`, `noisiest_layer`, `noisiest_db`."""
    worst = layers.loc[layers.groupby("variant", sort=False)["sqnr_db"].idxmin(), ["variant", "layer", "sqnr_db"]]
    return worst.rename(columns={"layer": "noisiest_layer", "sqnr_db": "noisiest_db"})


def first_divergence(layers: pd.DataFrame, bound: float) -> str | None:
    """Name the first layer whose signal to noise is below a bound, dB."""
    below = layers[layers["sqnr_db"] < bound]
    return None if below.empty else str(below["layer"].iloc[0])


def _keras_outputs(graph: Graph, images: np.ndarray) -> dict[str, np.ndarray]:
    once = [node for node in graph.nodes if len(node.outputs) == 1 and len(graph.calls(node.layer)) == 1]
    model = keras.Model(graph.model.inputs[0], {node.name: node.layer.output for node in once})
    return {name: np.asarray(value) for name, value in model(images.astype(np.float32), training=False).items()}


def _file_outputs(content: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run the file with every tensor kept, by the plain kernels: a delegate would hide what is inside."""
    with quiet():
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    port = Port.of(interpreter.get_input_details()[0])
    made = _computed(content) - _unfinished(content)
    wanted = [details for details in interpreter.get_tensor_details() if details["name"] in made]
    values: dict[str, list[np.ndarray]] = {details["name"]: [] for details in wanted}
    for image in port.store(images.astype(np.float32)):
        interpreter.set_tensor(port.index, image[None])
        interpreter.invoke()
        for details in wanted:
            values[details["name"]].append(Port.of(details).load(interpreter.get_tensor(details["index"])))
    return {name: np.concatenate(each) for name, each in values.items() if each[0].ndim}


def _computed(content: bytes) -> set[str]:
    """Name the tensors that depend on the input: an unpacked float16 kernel may have the shape of an output."""
    fixed: set[str] = set()
    made: set[str] = set()
    for operator in flatbuffer.operators(content):
        given = all(tensor.constant or tensor.name in fixed for tensor in operator.inputs)
        (fixed if given else made).update(tensor.name for tensor in operator.outputs)
    return made


def _unfinished(content: bytes) -> set[str]:
    """Name the tensors from which a layer that they bear the name of goes on computing."""
    later: dict[str, set[str]] = {}  # the calls of layers in whatever is computed from a tensor
    unfinished = set()
    for operator in reversed(list(flatbuffer.operators(content))):
        for output in operator.outputs:
            calls, after = _calls(output.name), later.get(output.name, set())
            if calls & after:
                unfinished.add(output.name)
            for tensor in operator.inputs:
                if not tensor.constant:
                    later.setdefault(tensor.name, set()).update(calls | after)
    return unfinished


def _calls(tensor: str) -> set[str]:
    """Return the calls of layers in a tensor's name: of each path the first part, where operations follow."""
    return {path.partition("/")[0] for path in tensor.split(";") if "/" in path}


def _match(graph: Graph, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> list[Match]:
    names = {re.sub(r"\W", "_", name): name for name in expected}
    best: dict[str, tuple[float, Match]] = {}
    for tensor, value in found.items():
        named = [names[part] for part in _parts(tensor) if part in names]
        candidates = [name for name in _with_followers(graph, named) if expected[name].shape == value.shape]
        if not candidates:
            continue
        name = max(candidates, key=lambda one: _sqnr(expected[one], value))
        quality = _sqnr(expected[name], value)
        if name not in best or quality > best[name][0]:
            best[name] = quality, Match(name, tensor, expected[name], value)
    return [match for _, match in best.values()]


def _is_scaled(graph: Graph, node: Node, matches: Mapping[str, Match]) -> bool:
    """Say whether a layer's tensor is a multiple of its output, and right for all that it goes into."""
    match = matches[node.name]
    expected, found = match.expected.astype(np.float64), match.found
    factor = np.sum(expected * found) / max(np.sum(expected**2), SILENCE)
    enough = _sqnr(expected, found) + _FOLDED
    after = [_holder(graph, reader, matches) for reader in graph.consumers(node.outputs[0])]
    readers = [matches[name] for name in after if name]
    return (
        _sqnr(factor * expected, found) > enough
        and 0 < len(readers) == len(after)
        and all(_sqnr(reader.expected, reader.found) > enough for reader in readers)
    )


def _parts(tensor: str) -> list[str]:
    """Return the names of layers in a tensor's name, with and without the number that a second call appends."""
    parts = [part for path in tensor.split(";") for part in path.split("/")]
    return [name for part in parts for name in (part, re.sub(r"_\d+$", "", part))]


def _with_followers(graph: Graph, names: list[str]) -> list[str]:
    """Return these layers and those that nothing but they feed, one after another: norms and activations."""
    by_name = {node.name: node for node in graph.nodes}
    found: dict[str, None] = {}
    for name in names:
        node: Node | None = by_name[name]
        while node is not None and node.name not in found:
            found[node.name] = None
            readers = graph.consumers(node.outputs[0])
            node = readers[0] if len(readers) == 1 and len(readers[0].inputs) == 1 else None
            if node is not None and len(node.outputs) != 1:
                node = None
    return list(found)


def _holder(graph: Graph, node: Node, matches: Mapping[str, Match]) -> str | None:
    """Return the next layer after this one that has a tensor of its own."""
    seen = [node]
    for one in seen:
        if one.name in matches:
            return one.name
        seen += [reader for tensor in one.outputs for reader in graph.consumers(tensor) if reader not in seen]
    return None


def _figures(match: Match) -> dict[str, float]:
    apart = np.abs(match.found - match.expected)
    a, b = match.found.ravel().astype(np.float64), match.expected.ravel().astype(np.float64)
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return {
        "max_abs": float(apart.max()),
        "mean_abs": float(apart.mean()),
        "sqnr_db": _sqnr(match.expected, match.found),
        "cosine": 1.0 if norm <= SILENCE else float(a @ b / norm),
    }


def _sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the signal to noise, dB, against the mean square of what is expected."""
    expected = expected.astype(np.float64)
    return decibels(np.mean((found - expected) ** 2) / max(np.mean(expected**2), SILENCE))
