"""Networks that are only counted, drawn or rebuilt: their weights have shapes, but no values."""

import contextlib
from collections.abc import Iterator

import keras
from keras.src.backend.common import global_state

_WAITING = "uninitialized_variables"


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Give no values to the weights of the networks that are built inside, then or later.

    Values would take most of a large network's time and hundreds of megabytes. Keras's own scope only puts them off:
    every weight stays in a list, and the next scope of that kind, opened by Keras for another network, fills them all.
    """
    waiting = list(global_state.get_global_attribute(_WAITING, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(_WAITING, waiting)
