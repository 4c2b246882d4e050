"""What the finished epochs say: which was the best, and what plateaus have made of the learning rate."""

import math
from collections.abc import Sequence

Row = dict[str, float]


def best_epoch(rows: Sequence[Row], monitor: str, sign: float) -> int:
    """Return the epoch (from 1) with the best validation score, 0 before there is one.

    Among equals, which small validation splits give often, the lower validation loss wins, then the earlier one.

    Args:
        sign: 1 where a higher score is better, -1 where a lower one is.
    """
    scores = [(sign * row[f"val_{monitor}"], -row["val_loss"]) for row in rows]
    scores = [score if all(map(math.isfinite, score)) else (-math.inf, 0.0) for score in scores]
    return 1 + max(range(len(scores)), key=scores.__getitem__) if scores else 0


def rate_scale(rows: Sequence[Row], monitor: str, sign: float, *, patience: int, factor: float) -> float:
    """Return `factor` to the number of times that `patience` epochs went by without a better validation score."""
    scale, begun = 1.0, 0
    for epoch in range(1, len(rows) + 1):
        begun = max(begun, best_epoch(rows[:epoch], monitor, sign))
        if epoch - begun >= patience:
            scale, begun = scale * factor, epoch
    return scale
