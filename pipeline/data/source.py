"""What a source of labelled images gives: its classes, and splits whose samples can be read by index or streamed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipeline.errors import UserError

Sample = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Split:
    """One split: `count` samples in a fixed order, read by index (`load`) or, where that cannot be, as a `stream`.

    A sample holds `image` (uint8 (H, W, C), or a scalar string: the encoded file), `id` (string) and what the source
    knows: `label` int32 (), or `labels` int32 (heads,) where an image has several, `mask` int32 (H, W), or encoded as a
    scalar string, `boxes` float32 (N, 4) as relative ymin, xmin, ymax, xmax, `classes` int32 (N,), `orientation` int32
    () (the EXIF tag, 1 to 8, of an encoded image).

    Args:
        count: how many samples there are, corrupt ones included.
        load: graph-safe function from an int64 scalar index to a sample, or None.
        stream: function to a dataset of all samples in index order, or None when `load` is given.
        labels: int32 (count,), where every sample has one label; the stratified cut and class weights need it.
        refused: ids of files that were left out when the source was opened, each with the reason.
        weighted: whether samples hold `weight`, float32 (): how much each counts in the loss.
    """

    count: int
    load: Callable[[tf.Tensor], Sample] | None = None
    stream: Callable[[], tf.data.Dataset] | None = None
    labels: np.ndarray | None = None
    refused: Mapping[str, str] | None = None
    weighted: bool = False

    def dataset(self) -> tf.data.Dataset:
        """Return all samples in index order."""
        if self.load is None:
            return self.stream()
        return tf.data.Dataset.range(self.count).map(self.load, num_parallel_calls=tf.data.AUTOTUNE)


@dataclass(frozen=True)
class Source:
    """Labelled images: class names in label order, the fields its samples have, and its splits by name."""

    classes: tuple[str, ...]
    fields: frozenset[str]
    splits: Mapping[str, Split]

    def split(self, name: str) -> Split:
        """Return one split. Raises UserError where there is none of this name."""
        if name not in self.splits:
            raise UserError(f"there is no split {name!r}; this source has {', '.join(self.splits)}")
        return self.splits[name]


def gives_files(load: Callable[[tf.Tensor], Sample]) -> bool:
    """Say whether the images of samples read by index come as encoded files."""
    return tf.data.Dataset.range(1).map(load).element_spec["image"].dtype == tf.string
