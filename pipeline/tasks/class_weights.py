"""How much each class counts in a loss."""

import math
from collections.abc import Mapping, Sequence

from pipeline.errors import UserError
from pipeline.registry import suggest


def named(classes: Sequence[str], weights: Mapping[str, float]) -> tuple[float, ...]:
    """Return one weight per class from `{class name: weight}`; classes that are not named weigh 1.

    Raises UserError on an unknown class, on a weight below zero, and when no class has a weight.
    """
    for name, weight in weights.items():
        if name not in classes:
            hint = suggest(name, classes)
            raise UserError(f"task.class_weights names the class {name!r}, which the data does not have; {hint}")
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"task.class_weights gives {name!r} the weight {weight}; a weight is a number from 0 up.")
    vector = tuple(float(weights.get(name, 1.0)) for name in classes)
    if not any(vector):
        raise UserError("task.class_weights gives every class the weight 0; at least one class must count.")
    return vector


def balanced(label_counts: Sequence[int] | None) -> tuple[float, ...]:
    """Return N / (K · n) for each class of n examples, so that every class weighs the same in total.

    A class without examples weighs 0: it never is a target, and label smoothing must not blow it up.
    """
    if label_counts is None:
        raise UserError(
            "task.class_weights: balanced needs the number of training images of each class, which this source does "
            "not tell; give the weights by name instead, as in {cat: 2.0}."
        )
    total, kinds = sum(label_counts), len(label_counts)
    return tuple(float(total / (kinds * count)) if count else 0.0 for count in label_counts)
