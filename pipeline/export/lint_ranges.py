"""How the values inside a trained model spread, tensor by tensor of the integer file."""

from dataclasses import dataclass

import keras
import numpy as np

from pipeline.export.compress.graph import Graph
from pipeline.export.compress.quantization_ranges import place
from pipeline.export.compress.quantization_rules import Role, role

FAR, WIDE = 8.0, 64.0  # times the 99.9th percentile, times the median; healthy small networks stay below 2 and 13
_KEPT = 50_000  # values per tensor and image that percentiles are taken of


@dataclass(frozen=True)
class Spread:
    """Absolute values of one tensor: the largest, the 99.9th percentile, and the median of those that are not 0."""

    largest: float
    high: float
    median: float

    @property
    def is_huge(self) -> bool:
        """Say whether a scale that reaches the largest value leaves too few levels for the others."""
        return self.largest > FAR * self.high or self.largest > WIDE * self.median

    def __str__(self) -> str:
        return f"largest {self.largest:.3g}, 99.9 % are below {self.high:.3g}, half below {self.median:.3g}"


def measure_spreads(graph: Graph, images: np.ndarray | None) -> dict[str, Spread]:
    """Return the spread of each tensor that an integer file stores, by the node that gives it, over these images.

    Args:
        graph: of the finer model (compress/decompose.py).
        images: (N, H, W, C) in 0..255; None gives nothing.
    """
    if images is None:
        return {}
    nodes = [graph.producer(tensor) for tensor in place(graph, None, 0.99)]
    # Pixels, and what a sigmoid gives, have their range whatever the values are.
    nodes = [node for node in nodes if role(node) not in (Role.INPUT, Role.FIXED_RANGE)]
    nodes = [node for node in nodes if len(graph.calls(node.layer)) == len(node.outputs) == 1]
    model = keras.Model(graph.model.inputs[0], {node.name: node.layer.output for node in nodes})
    largest: dict[str, float] = {}
    kept: dict[str, list[np.ndarray]] = {}
    for image in images:  # one at a time: all values inside a large network fill a gigabyte
        for name, value in model(image[None].astype(np.float32), training=False).items():
            values = np.abs(np.asarray(value)).ravel()
            largest[name] = max(largest.get(name, 0.0), float(values.max()))
            kept.setdefault(name, []).append(values[:: -(-values.size // _KEPT)])
    return {name: _spread(largest[name], np.concatenate(values)) for name, values in kept.items()}


def _spread(largest: float, values: np.ndarray) -> Spread:
    alive = values[values > 0]
    if not alive.size:
        return Spread(largest, largest, largest)
    return Spread(largest, float(np.percentile(values, 99.9)), float(np.median(alive)))
