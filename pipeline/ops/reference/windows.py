"""Where windows lie on an image: what padding, stride and dilation mean, for convolution and pooling alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

Pair = tuple[int, int]
Padding = Literal["valid", "same"]


@dataclass(frozen=True)
class Windows:
    """A grid of `output` windows, each of `kernel` taps that lie `dilation` pixels apart, `stride` from the next."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair  # rows above and columns left of the image
    after: Pair
    output: Pair

    @classmethod
    def over(
        cls,
        image: Pair,
        kernel: Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = "valid",
        dilation: int | Pair = 1,
    ) -> Self:
        """Lay windows over an image of (H, W) pixels.

        `same` pads so that ceil(size / stride) windows fit, with the odd pixel after the image, as TensorFlow does.
        Raises ValueError where not one window fits.
        """
        stride, dilation = pair(stride), pair(dilation)
        span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        if padding == "same":
            output = [-(-n // s) for n, s in zip(image, stride, strict=True)]
            missing = [max((o - 1) * s + r - n, 0) for o, s, r, n in zip(output, stride, span, image, strict=True)]
        else:
            output = [(n - r) // s + 1 for n, r, s in zip(image, span, stride, strict=True)]
            missing = [0, 0]
        if min(output) < 1:
            raise ValueError(f"no window of {span[0]}x{span[1]} pixels fits an image of {image[0]}x{image[1]}")
        before = (missing[0] // 2, missing[1] // 2)
        after = (missing[0] - before[0], missing[1] - before[1])
        return cls(kernel, stride, dilation, before, after, (output[0], output[1]))

    def pad(self, images: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Put the border around images (B, H, W, C)."""
        return np.pad(images, self._border, constant_values=fill)

    def crop(self, padded: np.ndarray) -> np.ndarray:
        """Take the border off again."""
        (_, (top, bottom), (left, right), _) = self._border
        return padded[:, top : padded.shape[1] - bottom, left : padded.shape[2] - right]

    def taps(self) -> Iterator[tuple[Pair, tuple[slice, slice, slice]]]:
        """Yield each tap (i, j) of the kernel and the pixels of the padded images that it meets, one per window."""
        for i, j in np.ndindex(*self.kernel):
            yield (i, j), (slice(None), self._met(i, 0), self._met(j, 1))

    def gather(self, images: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Return every window's pixels, (B, H', W', h * w, C), taps in reading order."""
        padded = self.pad(images, fill)
        return np.stack([padded[met] for _, met in self.taps()], axis=3)

    @property
    def _border(self) -> tuple[Pair, Pair, Pair, Pair]:
        return (0, 0), (self.before[0], self.after[0]), (self.before[1], self.after[1]), (0, 0)

    def _met(self, tap: int, axis: int) -> slice:
        first, step = tap * self.dilation[axis], self.stride[axis]
        return slice(first, first + step * (self.output[axis] - 1) + 1, step)


def pair(value: int | Pair) -> Pair:
    """Read one number as the same for rows and columns."""
    return (value, value) if isinstance(value, int) else value
