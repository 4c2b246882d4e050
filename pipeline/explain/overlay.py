"""Draw a heat map over its picture."""

import matplotlib
import numpy as np

from pipeline.tasks.drawing import as_rgb

_OPACITY = 0.7


def overlay(image: np.ndarray, heat: np.ndarray, most: float) -> np.ndarray:
    """Tint an image (H, W, 1 | 3) by a heat map (H, W): uint8 (H, W, 3), dark at 0 and below, bright at `most`.

    The colours are cividis (arXiv 1712.01662), which grows evenly brighter for every kind of colour vision.
    """
    share = np.clip(heat / most, 0, 1) if most > 0 else np.zeros_like(heat)
    colours = 255 * matplotlib.colormaps["cividis"](share)[..., :3]
    grey = as_rgb(image).mean(axis=-1, keepdims=True)
    return as_rgb((1 - _OPACITY) * grey + _OPACITY * colours)
