"""The calls of a functional model, in the order in which they run."""

from collections.abc import Iterator
from typing import Any

import keras


def calls(model: keras.Model) -> Iterator[Any]:
    """Yield each call as Keras's node, with `operation`, `input_tensors`, `output_tensors`, `is_input`.

    The only way to see every call of a layer that is shared between several places.
    """
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        yield from nodes
