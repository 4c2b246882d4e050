"""What a .tflite file holds, read from the file itself: operators, tensors, types and signatures."""

from collections.abc import Iterator
from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

OPERATOR_NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int) and name != "CUSTOM"
}
TYPE_NAMES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_ALIGNMENT = 16
WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Tensor:
    """One tensor: its static shape (-1 where unknown), its type as NumPy names it, and whether it is a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool


@dataclass(frozen=True)
class Operator:
    """One operator: its builtin name, or the custom code, and its tensors in the kernel's order."""

    name: str
    custom: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read(content: bytes) -> schema.ModelT:
    """Parse a file into the schema's objects, every buffer inside the flatbuffer and as an array."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = as_array(bytes(buffer.data))
    return model


def write(model: schema.ModelT) -> bytes:
    """Serialise the schema's objects into a file."""
    builder = _Aligned(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def as_array(content: bytes) -> np.ndarray:
    """Return bytes as the buffers of the schema's objects hold them."""
    return np.frombuffer(content, np.uint8)


class _Aligned(flatbuffers.Builder):
    """Begins every vector of bytes at a multiple of 16, as schema.fbs demands of buffers.

    The generated Python code forgets it, and kernels may then read weights from odd addresses, or copy them.
    """

    def CreateNumpyVector(self, values: np.ndarray) -> int:
        if values.dtype == np.uint8:
            self.Prep(_ALIGNMENT, values.nbytes)
        return super().CreateNumpyVector(values)


def operators(content: bytes) -> Iterator[Operator]:
    """Yield every operator of every subgraph, in order of execution."""
    model = read(content)
    for graph in model.subgraphs:
        tensors = [_tensor(tensor, model) for tensor in graph.tensors]
        for operator in graph.operators:
            yield Operator(
                name=operator_name(operator, model),
                custom=model.operatorCodes[operator.opcodeIndex].customCode is not None,
                inputs=tuple(tensors[i] for i in operator.inputs if i >= 0),
                outputs=tuple(tensors[i] for i in operator.outputs),
            )


def operator_name(operator: schema.OperatorT, model: schema.ModelT) -> str:
    """Return the builtin's name as the schema spells it, or the custom code."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode is not None:
        return code.customCode.decode()
    return OPERATOR_NAMES[flatbuffer_utils.get_builtin_code_from_operator_code(code)]


def _tensor(tensor: schema.TensorT, model: schema.ModelT) -> Tensor:
    signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    buffer = model.buffers[tensor.buffer]
    return Tensor(
        name=(tensor.name or b"").decode(),
        shape=tuple(int(size) for size in (signature if signature is not None else ())),
        dtype=TYPE_NAMES[tensor.type],
        constant=buffer.data is not None and len(np.atleast_1d(buffer.data)) > 0,
    )
