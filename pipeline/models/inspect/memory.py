"""The memory of activations: what each layer writes, and how much is alive at once."""

import math
from dataclasses import dataclass
from typing import Any

import keras

from pipeline.models.inspect.calls import calls, functional

_BYTES = 4  # of a float32


@dataclass(frozen=True)
class Memory:
    """One call: the bytes of its output, and all that is alive while it runs, its inputs and output included."""

    name: str
    output: int
    alive: int


def activation_memory(model: keras.Model) -> list[Memory]:
    """Return the memory of each call of a functional model, in order, for one image in float32.

    A tensor is alive from its making to its last use; the model's outputs stay. Every call writes a tensor of its own,
    as plain Keras does: a runtime that fuses or works in place needs less, one that packs tensors badly needs more.
    `max(one.alive for one in ...)` is the peak. A model inside the model is one call, of which only the output counts.
    """
    order = list(calls(model))
    last: dict[int, int] = {id(tensor): step for step, node in enumerate(order) for tensor in node.input_tensors}
    last |= {id(tensor): len(order) for tensor in functional(model).outputs}
    rows, alive, held = [], 0, {}
    for step, node in enumerate(order):
        written = {id(tensor): _bytes(tensor) for tensor in node.output_tensors}
        held |= written
        alive += sum(written.values())
        rows.append(Memory(node.operation.name, sum(written.values()), alive))
        done = [tensor for tensor in held if last.get(tensor, step) <= step]
        alive -= sum(held.pop(tensor) for tensor in done)
    return rows


def _bytes(tensor: Any) -> int:
    return _BYTES * math.prod(tensor.shape[1:])
