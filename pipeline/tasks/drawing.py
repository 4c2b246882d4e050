"""Draw images and class maps as RGB pictures."""

import colorsys

import numpy as np

# Okabe and Ito's eight colours, which people with any kind of colour vision tell apart.
_OKABE_ITO = (
    *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115)),
    *((240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
IGNORED = (128, 128, 128)


def palette(count: int) -> np.ndarray:
    """Return a fixed colour for each class number, uint8 (count, 3): more classes never change the earlier colours."""
    colours = list(_OKABE_ITO[:count])
    for number in range(len(colours), count):
        hue = number * 0.61803399 % 1.0  # steps of the golden ratio never come close to an earlier hue soon
        level = (0.95, 0.6, 0.8)[number % 3]
        colours.append(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, level)))
    return np.array(colours, np.uint8)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return a float or uint8 image of 0 to 255, (H, W, 1 or 3), as uint8 RGB (H, W, 3)."""
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def overlay(image: np.ndarray, labels: np.ndarray, classes: int, opacity: float = 0.6) -> np.ndarray:
    """Tint an RGB image by its class map (H, W); labels that are no class are grey."""
    known = (labels >= 0) & (labels < classes)
    colours = np.where(known[..., None], palette(classes)[np.where(known, labels, 0)], np.array(IGNORED))
    return as_rgb((1 - opacity) * image + opacity * colours)
