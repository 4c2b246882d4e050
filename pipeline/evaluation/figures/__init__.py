"""Pictures of results as PNG bytes, on light or dark paper, readable without colour."""

from pipeline.evaluation.figures.answers import calibration, confusion, mistakes, reliability
from pipeline.evaluation.figures.canvas import DARK, LIGHT, Theme
from pipeline.evaluation.figures.fields import Seen, receptive_fields
from pipeline.evaluation.figures.rates import rates
from pipeline.evaluation.figures.runs import curves, front, parity, variants
from pipeline.evaluation.figures.searches import parallel_coordinates

__all__ = [
    "DARK",
    "LIGHT",
    "Seen",
    "Theme",
    "calibration",
    "confusion",
    "curves",
    "front",
    "mistakes",
    "parallel_coordinates",
    "parity",
    "rates",
    "receptive_fields",
    "reliability",
    "variants",
]
