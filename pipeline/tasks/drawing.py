"""Draw images and class maps as RGB pictures."""

import functools
import itertools

import numpy as np

# Okabe and Ito's eight colours, which people with any kind of colour vision tell apart.
_OKABE_ITO = (
    *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115)),
    *((240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
IGNORED = (128, 128, 128)


def palette(count: int) -> np.ndarray:
    """Return a fixed colour for each class number, uint8 (count, 3): more classes never change the earlier colours.

    After the eight come the colours that are farthest from all before; beyond 500 classes they repeat.
    """
    order = _colours()
    return np.array([order[number % len(order)] for number in range(count)], np.uint8)


@functools.cache
def _colours() -> tuple[tuple[int, int, int], ...]:
    candidates = np.array(list(itertools.product(np.linspace(0, 255, 8).round(), repeat=3)))
    taken = [*_OKABE_ITO, IGNORED, (255, 255, 255)]
    distance = np.min([_distance(candidates, np.array(colour)) for colour in taken], axis=0)
    chosen = list(_OKABE_ITO)
    while distance.max() > 0 and len(chosen) < 500:
        farthest = candidates[np.argmax(distance)]
        chosen.append(tuple(int(part) for part in farthest))
        distance = np.minimum(distance, _distance(candidates, farthest))
    return tuple(chosen)


def _distance(colours: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how different colours look, roughly: the eye sees green best and blue least."""
    return np.sqrt(((colours - other) ** 2) @ np.array([3.0, 4.0, 2.0]))


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return a float or uint8 image of 0 to 255, (H, W, 1 or 3), as uint8 RGB (H, W, 3)."""
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def overlay(image: np.ndarray, labels: np.ndarray, classes: int, opacity: float = 0.6) -> np.ndarray:
    """Tint an RGB image by its class map (H, W); labels that are no class are grey."""
    known = (labels >= 0) & (labels < classes)
    colours = np.where(known[..., None], palette(classes)[np.where(known, labels, 0)], np.array(IGNORED))
    return as_rgb((1 - opacity) * image + opacity * colours)
