"""The heads of a network with several labels per image: each is a stretch of its outputs, and named by its classes.

A class is called `head=value`, as in `colour=red`, so that every list of labels, inside a file or beside it, says by
itself where each head begins.
"""

import itertools
from collections.abc import Sequence

_SEPARATOR = "="


def class_of(head: str, value: str) -> str:
    """Name a class of a head."""
    return f"{head}{_SEPARATOR}{value}"


def heads_of(classes: Sequence[str]) -> dict[str, slice]:
    """Return where each head's classes stand, in their order; {} for the classes of one label per image.

    >>> heads_of(["colour=red", "colour=blue", "shape=round", "shape=long"])
    {'colour': slice(0, 2, None), 'shape': slice(2, 4, None)}
    """
    names = [name.partition(_SEPARATOR)[0] if _SEPARATOR in name else None for name in classes]
    heads, end = {}, 0
    for name, group in itertools.groupby(names):
        start, end = end, end + len(list(group))
        if name is None or name in heads or end - start < 2:
            return {}
        heads[name] = slice(start, end)
    return heads
