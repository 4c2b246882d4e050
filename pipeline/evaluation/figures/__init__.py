"""Pictures of results as PNG bytes, on light or dark paper, readable without colour."""

from pipeline.evaluation.figures.answers import calibration, confusion, mistakes, reliability
from pipeline.evaluation.figures.canvas import DARK, LIGHT, Theme
from pipeline.evaluation.figures.runs import curves, front, parity, variants

__all__ = [
    "DARK",
    "LIGHT",
    "Theme",
    "calibration",
    "confusion",
    "curves",
    "front",
    "mistakes",
    "parity",
    "reliability",
    "variants",
]
