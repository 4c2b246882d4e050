"""How much noise a quantised file adds, tensor by tensor, against the float file it was made from."""

import warnings
from collections.abc import Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from pipeline.export import flatbuffer
from pipeline.export.interpreter import Port
from pipeline.quiet import quiet


def noisiest(float_file: bytes, content: bytes, images: Sequence[np.ndarray]) -> list[tuple[str, ...]]:
    """Rank the layers with weights by the noise that each adds to what it is given, worst first.

    Each comes as the name of its output, after that of the layer with weights before it if there is one. Noise is the
    mean square of the error, relative to the variance of the tensor over the images (H, W, C).
    """
    noise = _noise(float_file, content, images)
    operators = list(flatbuffer.operators(float_file))
    maker = {tensor.name: operator for operator in operators for tensor in operator.outputs}

    def before(name: str) -> tuple[str, ...]:
        while name in maker and maker[name].name not in flatbuffer.WITH_WEIGHTS:
            name = maker[name].inputs[0].name
        return (name,) if name in maker else ()

    added = {}
    for operator in operators:
        if operator.name in flatbuffer.WITH_WEIGHTS and operator.outputs[0].name in noise:
            name, given = operator.outputs[0].name, operator.inputs[0].name
            added[(*before(given), name)] = noise[name] - noise.get(given, 0.0)
    return sorted(added, key=added.get, reverse=True)


def output_noise(float_file: bytes, content: bytes, images: Sequence[np.ndarray]) -> float:
    """Return the noise of the last layer with weights: before a softmax, which hides it."""
    last = [op.outputs[0].name for op in flatbuffer.operators(float_file) if op.name in flatbuffer.WITH_WEIGHTS][-1]
    return _noise(float_file, content, images)[last]


def _noise(float_file: bytes, content: bytes, images: Sequence[np.ndarray]) -> dict[str, float]:
    exact, rounded = _tensors(float_file, images), _tensors(content, images)
    return {
        name: float(np.mean((rounded[name] - values) ** 2) / max(np.var(values), 1e-12))
        for name, values in exact.items()
        if name in rounded and rounded[name].shape == values.shape
    }


def _tensors(content: bytes, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return what each operator gives on each image, as real numbers."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # keeping all tensors costs memory, and is what is wanted
        interpreter = Interpreter(model_content=content, num_threads=1, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
    [given] = map(Port.of, interpreter.get_input_details())
    names = {tensor.name for operator in flatbuffer.operators(content) for tensor in operator.outputs}
    details = [d for d in interpreter.get_tensor_details() if d["name"] in names and d["dtype"] != np.object_]
    found: dict[str, list[np.ndarray]] = {}
    for image in images:
        interpreter.set_tensor(given.index, given.store(np.asarray(image, np.float32))[None])
        interpreter.invoke()
        for detail in details:
            port = Port.of(detail)
            values = interpreter.get_tensor(port.index)
            found.setdefault(detail["name"], []).append(port.load(values) if port.scale else values)
    return {name: np.stack(values) for name, values in found.items()}
