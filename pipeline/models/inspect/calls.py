"""The calls of a functional model, in the order in which they run."""

from collections.abc import Iterator
from typing import Any

import keras

from pipeline.errors import UserError


def functional(model: keras.Model) -> keras.Model:
    """Return the model whose graph can be read: itself, or what a sequential model is inside.

    Raises UserError for a model that has no graph.
    """
    inner = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    if not hasattr(inner, "_nodes_by_depth"):
        raise UserError(
            f"the model {model.name!r} cannot be inspected, since its layers are called in code; build it of layers "
            "with keras.Model(inputs, outputs), or give a Sequential model its Input"
        )
    return inner


def calls(model: keras.Model) -> Iterator[Any]:
    """Yield each call as Keras's node, with `operation`, `input_tensors`, `output_tensors`, `is_input`.

    The only way to see every call of a layer that is shared between several places. Raises UserError as `functional`.
    """
    for _, nodes in sorted(functional(model)._nodes_by_depth.items(), reverse=True):
        yield from nodes
