"""One pass over a split before it is used: every image is decoded once, and kept where that fits into memory."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipeline.data.decoding import decode_image
from pipeline.data.fitting import pick
from pipeline.data.preprocess import Preprocess
from pipeline.data.source import Sample, Split
from pipeline.ops.segmentation import VOID

_CHUNK = 32  # samples handed to Python at a time
_ALIGNMENT = 64  # bytes; TensorFlow shares a NumPy array's memory only from such an address


@dataclass(frozen=True)
class Verified:
    """What the pass found.

    Args:
        valid: int64 (count,), the ascending indices of the samples that can be decoded.
        failed: ids of the others.
        most_boxes: the largest number of boxes of any image, 0 without boxes.
        encoded_bytes: mean size of an image as its source gives it.
        arrays: the decoded samples in order, by field, or None when they do not fit into memory.
    """

    valid: np.ndarray
    failed: tuple[str, ...]
    most_boxes: int
    encoded_bytes: float
    arrays: dict[str, tf.Tensor] | None


def verify(split: Split, preprocess: Preprocess, fields: Collection[str], classes: int, cache_bytes: int) -> Verified:
    """Decode every sample, on all cores; those that fail are left out and named."""
    keeps = split.count * _sample_bytes(preprocess, fields, classes) <= cache_bytes
    must_fit = keeps or bool({*fields} - {"label", "labels", "weight"})
    numbered = _decoded(split, _whole(preprocess, fields) if must_fit else _readable)
    store = _Store(split.count) if keeps else None
    indices, most_boxes, encoded_bytes = [], 0, 0.0
    for index, size, sample in _chunks(numbered).as_numpy_iterator():
        indices.append(index)
        encoded_bytes += size.sum()
        if "boxes" in sample:
            most_boxes = max(most_boxes, sample["boxes"].shape[1])
        if store:
            store.append(_compact(sample, classes))
    valid = np.concatenate(indices) if indices else np.zeros(0, np.int64)
    return Verified(
        valid,
        _names(split, np.setdiff1d(np.arange(split.count), valid)),
        most_boxes,
        encoded_bytes / max(len(valid), 1),
        store.tensors() if store and len(valid) else None,
    )


def _sample_bytes(preprocess: Preprocess, fields: Collection[str], classes: int) -> int:
    height, width = preprocess.image_size
    mask_bytes = np.dtype(_mask_type(classes)).itemsize if "mask" in fields else 0
    return height * width * (preprocess.channels + mask_bytes)


def _mask_type(classes: int) -> type:
    return np.uint8 if classes < VOID else np.int32


def _compact(sample: dict[str, np.ndarray], classes: int) -> dict[str, np.ndarray]:
    if "mask" not in sample:
        return sample
    mask, kind = sample["mask"], _mask_type(classes)
    if kind == np.uint8:
        mask = np.where(mask > VOID, VOID - 1, mask)  # no class, and not VOID either: whoever reads it refuses it
    return sample | {"mask": mask.astype(kind)}


def _whole(preprocess: Preprocess, fields: Collection[str]) -> Callable[[Sample], Sample]:
    return lambda sample: pick(preprocess.apply(sample), fields)


def _readable(sample: Sample) -> Sample:
    """Decode an image only to see whether that is possible.

    A JPEG is decoded at an eighth of its size: every bit of it is read, only the transform is skipped.
    """
    image = sample["image"]
    if image.dtype == tf.string:
        image = tf.cond(
            tf.io.is_jpeg(image),
            lambda: tf.io.decode_jpeg(image, channels=3, ratio=8),
            lambda: decode_image(image),
        )
    return {"height": tf.shape(image)[0]}


def _decoded(split: Split, fit: Callable[[Sample], Sample]) -> tf.data.Dataset:
    """Return (index, bytes as given, sample) of all samples that can be read and decoded, in order."""

    def fitted(index: tf.Tensor, sample: Sample) -> tuple[tf.Tensor, tf.Tensor, Sample]:
        image = sample["image"]
        size = tf.strings.length(image) if image.dtype == tf.string else tf.size(image)
        return index, size, fit(sample)

    if split.load is not None:
        numbered = tf.data.Dataset.range(split.count).map(
            lambda index: fitted(index, split.load(index)), tf.data.AUTOTUNE
        )
    else:
        numbered = split.stream().enumerate().map(fitted, tf.data.AUTOTUNE)
    return numbered.ignore_errors()


def _chunks(numbered: tf.data.Dataset) -> tf.data.Dataset:
    """Batch samples whose numbers of boxes differ; padding has the class -1."""
    _, _, sample = numbered.element_spec
    padding = {name: tf.constant(-1) if name == "classes" else None for name in sample}
    return numbered.padded_batch(_CHUNK, padding_values=(None, None, padding)).prefetch(2)


def _names(split: Split, indices: np.ndarray) -> tuple[str, ...]:
    """Return the ids of samples whose image cannot be decoded, or their numbers where even the id cannot be read."""
    if not len(indices):
        return ()
    wanted = tf.constant(indices)
    if split.load is not None:
        samples = tf.data.Dataset.from_tensor_slices(wanted).map(lambda index: (index, split.load(index)["id"]))
    else:
        chosen = split.stream().enumerate().filter(lambda index, sample: tf.reduce_any(index == wanted))
        samples = chosen.map(lambda index, sample: (index, sample["id"]))
    found = {int(index): name.decode() for index, name in samples.ignore_errors().as_numpy_iterator()}
    return tuple(found.get(int(index), f"number {index}") for index in indices)


class _Store:
    """Arrays of `count` rows that are filled from the front, in memory that TensorFlow can share."""

    def __init__(self, count: int) -> None:
        self._count, self._filled = count, 0
        self._large: dict[str, np.ndarray] = {}
        self._small: dict[str, list[np.ndarray]] = {}

    def append(self, rows: dict[str, np.ndarray]) -> None:
        added = len(rows["image"])
        for name, values in rows.items():
            if name in ("image", "mask"):
                if name not in self._large:
                    self._large[name] = _aligned((self._count, *values.shape[1:]), values.dtype)
                self._large[name][self._filled : self._filled + added] = values
            else:
                self._small.setdefault(name, []).append(values)
        self._filled += added

    def tensors(self) -> dict[str, tf.Tensor]:
        small = {name: tf.constant(_concatenate(name, parts)) for name, parts in self._small.items()}
        return small | {name: _shared(array[: self._filled]) for name, array in self._large.items()}


def _concatenate(name: str, parts: list[np.ndarray]) -> np.ndarray:
    if name in ("boxes", "classes"):
        most = max(part.shape[1] for part in parts)
        padding = -1 if name == "classes" else 0
        sides = [[(0, 0), (0, most - part.shape[1]), *[(0, 0)] * (part.ndim - 2)] for part in parts]
        parts = [np.pad(part, side, constant_values=padding) for part, side in zip(parts, sides, strict=True)]
    return np.concatenate(parts)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _shared(array: np.ndarray) -> tf.Tensor:
    """Make a tensor of the array's own memory. tf.constant would copy it, twice."""
    tensor = tf.function(lambda: tf.numpy_function(lambda: array, [], array.dtype), autograph=False)()
    return tf.ensure_shape(tensor, array.shape)
