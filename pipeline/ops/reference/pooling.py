"""Pooling of every kind by its definition: one number for each window (or region) of each channel.

Images are (B, H, W, C). `geometry` is `stride` and `padding`, see Windows; a stride that is not given is the window's
size.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.ops.reference.windows import Pair, Windows


def max_pool(images: np.ndarray, size: Pair, **geometry: Any) -> np.ndarray:
    """Return the largest value of each window; the border never wins."""
    return _windows(images, size, geometry).gather(images, -np.inf).max(axis=3)


def max_pool_backward(images: np.ndarray, upstream: np.ndarray, size: Pair, **geometry: Any) -> np.ndarray:
    """Hand each window's gradient to the pixel that won, the first in reading order among equals."""
    windows = _windows(images, size, geometry)
    winners = windows.gather(images, -np.inf).argmax(axis=3)
    result = np.zeros_like(windows.pad(images))
    for number, (_, met) in enumerate(windows.taps()):
        result[met] += upstream * (winners == number)
    return windows.crop(result)


def average_pool(images: np.ndarray, size: Pair, **geometry: Any) -> np.ndarray:
    """Return the mean of each window's pixels; the border does not count."""
    windows = _windows(images, size, geometry)
    return windows.gather(images).sum(axis=3) / windows.gather(np.ones_like(images)).sum(axis=3)


def average_pool_backward(images: np.ndarray, upstream: np.ndarray, size: Pair, **geometry: Any) -> np.ndarray:
    """Hand each window's gradient to its pixels in equal parts."""
    windows = _windows(images, size, geometry)
    share = upstream / windows.gather(np.ones_like(images)).sum(axis=3)
    result = np.zeros_like(windows.pad(images))
    for _, met in windows.taps():
        result[met] += share
    return windows.crop(result)


def adaptive_pool(images: np.ndarray, output: Pair, reduce: Callable[..., np.ndarray] = np.mean) -> np.ndarray:
    """Reduce H x W pixels to `output` regions, region i from floor(i H / H') to ceil((i + 1) H / H'), as PyTorch does.

    Regions share pixels where the sizes do not divide. `reduce` is np.mean or np.max.
    """
    edges = [_regions(n, m) for n, m in zip(images.shape[1:3], output, strict=True)]
    rows = [[reduce(images[:, a:b, c:d], axis=(1, 2)) for c, d in edges[1]] for a, b in edges[0]]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def weighted_pool(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum each window of (h, w) pixels with the weights (h, w, C) of its channel; windows do not overlap."""
    windows = Windows.over(images.shape[1:3], weights.shape[:2], stride=weights.shape[:2]).gather(images)
    return np.einsum("bhwtc,tc->bhwc", windows, weights.reshape(-1, weights.shape[-1]))


def generalized_mean(images: np.ndarray, power: float, least: float = 1e-6) -> np.ndarray:
    """Return (mean of x^p)^(1/p) of each channel, (B, C): 1 is the average, infinity the maximum (arXiv 1711.02512).

    Values below `least` count as `least`, since the powers need positive numbers.
    """
    return np.mean(np.maximum(images, least) ** power, axis=(1, 2)) ** (1 / power)


def stochastic_pool(images: np.ndarray, size: Pair, draws: np.ndarray, **geometry: Any) -> np.ndarray:
    """Return one value of each window, drawn with its share of the window's sum (Zeiler & Fergus, arXiv 1301.3557).

    Negative values count as zero, and a window of zeros gives zero. `draws` are numbers in [0, 1), one per window and
    channel: the value is the first at which the running share exceeds the draw.
    """
    values = _windows(images, size, geometry).gather(np.maximum(images, 0))
    running = np.cumsum(values, axis=3)
    chosen = np.argmax(running > draws[:, :, :, None] * running[:, :, :, -1:], axis=3)
    return np.take_along_axis(values, chosen[:, :, :, None], axis=3)[:, :, :, 0]


def stochastic_pool_mean(images: np.ndarray, size: Pair, **geometry: Any) -> np.ndarray:
    """Return what `stochastic_pool` gives on average, which is what inference uses: each value times its share."""
    values = _windows(images, size, geometry).gather(np.maximum(images, 0))
    total = values.sum(axis=3)
    return np.divide((values**2).sum(axis=3), total, out=np.zeros_like(total), where=total > 0)


def _windows(images: np.ndarray, size: Pair, geometry: dict[str, Any]) -> Windows:
    return Windows.over(images.shape[1:3], size, **{"stride": size, **geometry})


def _regions(pixels: int, count: int) -> list[Pair]:
    return [(i * pixels // count, -(-(i + 1) * pixels // count)) for i in range(count)]
