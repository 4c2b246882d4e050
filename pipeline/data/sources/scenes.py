"""Scenes composed from the embedded digits, for detection and segmentation without any download."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from pipeline.data.source import Sample, Source, Split
from pipeline.data.sources.digits import load_digits
from pipeline.data.split import stratified_choice
from pipeline.registry import SOURCES, NonNegativeInt, PositiveInt

_ATTEMPTS = 10  # at finding a free place for a digit before it is left out


@SOURCES.register
def scenes(
    *,
    size: tuple[PositiveInt, PositiveInt] = (96, 96),
    train: PositiveInt = 2000,
    validation: PositiveInt = 200,
    test: PositiveInt = 500,
    digits: PositiveInt = 5,
    seed: NonNegativeInt = 0,
) -> Source:
    """Handwritten digits in textured scenes, with boxes and masks: any size and count, drawn when asked for.

    Class 0 is the background, which no box has; class d + 1 is the digit d, in masks and in boxes alike. A scene is
    drawn from (seed, split, index) alone. No digit of one split appears in another, and those of test are by other
    writers. Digits do not overlap.

    Args:
        size: height and width of a scene in pixels.
        digits: the most a scene may have; it has at least one.
    """
    counts = {"train": train, "validation": validation, "test": test}
    splits = {}
    for number, (name, (images, labels)) in enumerate(digit_pools().items()):
        painter = Painter(images, labels, tuple(size), digits, (seed, number))
        splits[name] = _split(painter, counts[name], name)
    classes = ("background", *"0123456789")
    return Source(classes, frozenset({"mask", "boxes", "classes"}), splits)


def digit_pools() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the digits and labels that the scenes of each split may use: disjoint, those of test by other writers."""
    images, labels = load_digits()
    half = len(images) // 2
    held = stratified_choice(labels[:half], 0.1, seed=0)
    train = np.setdiff1d(np.arange(half), held)
    pools = {"train": train, "validation": held, "test": np.arange(half, len(images))}
    return {name: (images[pool], labels[pool]) for name, pool in pools.items()}


@dataclass(frozen=True, eq=False)
class Painter:
    """Draw scenes from a pool of digits: uint8 (N, 8, 8) with labels int32 (N,)."""

    images: np.ndarray
    labels: np.ndarray
    size: tuple[int, int]
    digits: int
    seed: tuple[int, ...]

    def draw(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return scene `index`: image uint8 (H, W, 3), mask int32 (H, W), boxes float32 (N, 4), classes int32 (N,)."""
        random = np.random.default_rng((*self.seed, int(index)))
        ground, tone = random.permutation([(0, 105), (150, 255)])  # dark on bright, or bright on dark
        canvas = _background(random, self.size, ground)
        mask, boxes, classes = np.zeros(self.size, np.int32), [], []
        for _ in range(random.integers(1, self.digits + 1)):
            choice = random.integers(len(self.images))
            # The first digit is always placed: it is never larger than the scene, and nothing is in its way.
            ink = _ink(random, self.images[choice], self.size)
            place = _free_place(random, mask, ink.shape)
            if place is None:
                continue
            top, left = place
            area = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
            canvas[area] += ink[..., None] * (random.uniform(*tone, 3) - canvas[area])
            solid = ink >= 0.5
            mask[area][solid] = self.labels[choice] + 1
            boxes.append(_box(solid, top, left))
            classes.append(self.labels[choice] + 1)
        relative = np.array(boxes, np.float32) / np.array(self.size * 2, np.float32)
        return np.round(canvas).astype(np.uint8), mask, relative, np.array(classes, np.int32)


def _background(random: np.random.Generator, size: tuple[int, int], tone: tuple[int, int]) -> np.ndarray:
    """Paint patches of colours within `tone` that blend into each other, and grain on top: float32 (H, W, 3)."""
    cells = random.uniform(*tone, (*random.integers(2, 9, 2), 3))
    patches = np.asarray(_enlarge(np.round(cells).astype(np.uint8), size), np.float32)
    return np.clip(patches + random.normal(0, random.uniform(0, 12), (*size, 1)), 0, 255).astype(np.float32)


def _ink(random: np.random.Generator, digit: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a digit to a fifth up to a half of the scene's short side, stretched by up to 20 %: (h, w) in 0..1."""
    side = min(size) * random.uniform(0.2, 0.5)
    stretch = random.uniform(0.8, 1.2)
    shape = [max(8, round(side * stretch)), max(8, round(side / stretch))]
    shape = [min(extent, limit) for extent, limit in zip(shape, size, strict=True)]
    return np.asarray(_enlarge(digit, shape), np.float32) / 255


def _enlarge(pixels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC)


def _free_place(random: np.random.Generator, mask: np.ndarray, shape: tuple[int, int]) -> tuple[int, int] | None:
    """Find the top left corner of an area without a digit, or None when none is found."""
    for _ in range(_ATTEMPTS):
        top, left = (random.integers(limit - extent + 1) for limit, extent in zip(mask.shape, shape, strict=True))
        if not mask[top : top + shape[0], left : left + shape[1]].any():
            return top, left
    return None


def _box(solid: np.ndarray, top: int, left: int) -> tuple[int, int, int, int]:
    """Return the tight ymin, xmin, ymax, xmax of a digit's solid pixels, in pixels of the scene."""
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    return top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1


def _split(painter: Painter, count: int, name: str) -> Split:
    def load(index: tf.Tensor) -> Sample:
        dtypes = (tf.uint8, tf.int32, tf.float32, tf.int32)
        image, mask, boxes, classes = tf.numpy_function(painter.draw, [index], dtypes, stateful=False)
        return {
            "image": tf.ensure_shape(image, (*painter.size, 3)),
            "mask": tf.ensure_shape(mask, painter.size),
            "boxes": tf.ensure_shape(boxes, (None, 4)),
            "classes": tf.ensure_shape(classes, (None,)),
            "id": tf.strings.join([name, tf.strings.as_string(index)], separator=" "),
        }

    return Split(count, load=load)
