"""Convolution by its definition, its gradients, and the two classic ways of computing it faster.

Images are (B, H, W, C), kernels (h, w, C / groups, F) as in Keras; the kernel is not flipped (cross-correlation). With
`groups`, output channels F / groups * g and following see only the g-th part of the input channels; as many groups as
channels make a depthwise convolution.
"""

from typing import Any, NamedTuple

import numpy as np

from pipeline.ops.reference.windows import Padding, Pair, Windows, pair

# Winograd's minimal filtering F(2x2, 3x3): transforms of the image, the kernel and the result (arXiv 1509.09308, 4.1).
_IMAGE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_RESULT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float)


class Gradients(NamedTuple):
    """How a loss changes with what a convolution was given; each has the shape of its argument."""

    images: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray


def convolve(
    images: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None, *, groups: int = 1, **geometry: Any
) -> np.ndarray:
    """Sum, over the taps of the kernel, the pixels under a tap times the tap's matrix: (B, H', W', F).

    `geometry` is `stride`, `padding` and `dilation`, see Windows. Raises ValueError for channels that groups do not
    divide or a kernel for other channels.
    """
    windows = Windows.over(images.shape[1:3], kernel.shape[:2], **geometry)
    padded, matrices = _by_group(windows.pad(images), groups), _matrices(kernel, images.shape[-1], groups)
    result = sum(np.einsum("bhwgc,cgf->bhwgf", padded[met], matrices[tap]) for tap, met in windows.taps())
    result = result.reshape(*result.shape[:3], -1)
    return result if bias is None else result + bias


def convolve_backward(
    images: np.ndarray, kernel: np.ndarray, upstream: np.ndarray, *, groups: int = 1, **geometry: Any
) -> Gradients:
    """Return the gradients of a loss from `upstream`, its gradient (B, H', W', F) at the result.

    A tap met certain pixels: its matrix collects these pixels times upstream, and hands upstream times itself back to
    the same pixels. The bias met every window once.
    """
    windows = Windows.over(images.shape[1:3], kernel.shape[:2], **geometry)
    padded, matrices = _by_group(windows.pad(images), groups), _matrices(kernel, images.shape[-1], groups)
    to_images, to_kernel, upstream = np.zeros_like(padded), np.zeros_like(matrices), _by_group(upstream, groups)
    for tap, met in windows.taps():
        to_kernel[tap] = np.einsum("bhwgc,bhwgf->cgf", padded[met], upstream)
        to_images[met] += np.einsum("bhwgf,cgf->bhwgc", upstream, matrices[tap])
    to_images = windows.crop(to_images.reshape(*to_images.shape[:3], -1))
    return Gradients(to_images, to_kernel.reshape(kernel.shape), upstream.sum(axis=(0, 1, 2)).reshape(-1))


def im2col(images: np.ndarray, kernel_size: Pair, **geometry: Any) -> np.ndarray:
    """Write each window as one row of a matrix, (B * H' * W', h * w * C): each pixel up to h * w times."""
    windows = Windows.over(images.shape[1:3], kernel_size, **geometry).gather(images)
    return windows.reshape(-1, windows.shape[3] * windows.shape[4])


def convolve_im2col(images: np.ndarray, kernel: np.ndarray, **geometry: Any) -> np.ndarray:
    """Convolve, in one group, by a single product of matrices, which is how most libraries do it."""
    windows = Windows.over(images.shape[1:3], kernel.shape[:2], **geometry)
    columns = im2col(images, kernel.shape[:2], **geometry)
    return (columns @ kernel.reshape(-1, kernel.shape[-1])).reshape(len(images), *windows.output, -1)


def convolve_winograd(images: np.ndarray, kernel: np.ndarray, *, padding: Padding = "valid") -> np.ndarray:
    """Convolve with a 3x3 kernel, stride 1, with 16 products per 2x2 outputs where the definition takes 36.

    F(2x2, 3x3) of Lavin and Gray, arXiv 1509.09308: tiles of 4x4 that overlap by two are transformed, multiplied
    point by point, and transformed back.
    """
    to_tile, to_spread, to_result = (matrix.astype(images.dtype) for matrix in (_IMAGE, _KERNEL, _RESULT))
    windows = Windows.over(images.shape[1:3], (3, 3), padding=padding)
    height, width = windows.output
    padded = np.pad(windows.pad(images), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))  # whole tiles
    tiles = Windows.over(padded.shape[1:3], (4, 4), stride=2).gather(padded)
    tiles = tiles.reshape(*tiles.shape[:3], 4, 4, -1)
    tiles = np.einsum("ai,bhwijc,dj->bhwadc", to_tile, tiles, to_tile, optimize=True)
    spread = np.einsum("ai,ijcf,dj->adcf", to_spread, kernel, to_spread, optimize=True)
    products = np.einsum("bhwadc,adcf->bhwadf", tiles, spread, optimize=True)
    result = np.einsum("ia,bhwadf,jd->bhiwjf", to_result, products, to_result, optimize=True)
    batch, rows, _, columns, _, filters = result.shape
    return result.reshape(batch, 2 * rows, 2 * columns, filters)[:, :height, :width]


def convolve_transposed(
    images: np.ndarray, kernel: np.ndarray, *, stride: int | Pair = 1, padding: Padding = "valid"
) -> np.ndarray:
    """Spread each pixel over a window: the gradient of a convolution with respect to its images.

    `kernel` is (h, w, F, C) as in Keras: that of the convolution that goes the other way, from F channels to C. The
    result is (B, H * stride, W * stride, F), for `valid` larger by what the kernel reaches beyond the stride.
    """
    stride = pair(stride)
    reach = [max(k - s, 0) if padding == "valid" else 0 for k, s in zip(kernel.shape[:2], stride, strict=True)]
    size = [n * s + more for n, s, more in zip(images.shape[1:3], stride, reach, strict=True)]
    blank = np.zeros((len(images), *size, kernel.shape[2]), images.dtype)
    return convolve_backward(blank, kernel, images, stride=stride, padding=padding).images


def _by_group(values: np.ndarray, groups: int) -> np.ndarray:
    return values.reshape(*values.shape[:3], groups, -1)


def _matrices(kernel: np.ndarray, channels: int, groups: int) -> np.ndarray:
    if channels % groups or kernel.shape[2] != channels // groups or kernel.shape[3] % groups:
        raise ValueError(f"a kernel of {kernel.shape} does not fit {channels} channels in {groups} groups")
    return kernel.reshape(*kernel.shape[:3], groups, -1)
