"""Raw batches of a verified split, in the order of training or of evaluation: from memory, by index, or from a stream.

A reader's `training` is a pure function of the step, so that a run can go on at any step and see the very same batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

from pipeline.data.fitting import Decode
from pipeline.data.source import Sample, Split

_SHUFFLE_BYTES = 128 * 2**20  # of encoded images waiting in the shuffle buffer of a stream


@dataclass(frozen=True)
class Pacing:
    """Draw from the first of `ranking` only, and in equal steps from more, until all are there at step `steps`.

    Args:
        ranking: int64 (count,), the samples' indices, the easiest first.
        start: how many the first step draws from, 1 or more.
    """

    ranking: tf.Tensor
    start: int
    steps: int

    def reach(self, step: tf.Tensor) -> tf.Tensor:
        """Return how many samples a step draws from, int64."""
        count = self.ranking.shape[0]
        return tf.minimum(self.start + (count - self.start) * step // self.steps, count)


@dataclass(frozen=True)
class Order:
    """Which batches: steps `start` to `stop` of `batch_size` images, in epochs of `epoch_steps`, shuffled by `seed`."""

    batch_size: int
    seed: int
    start: int
    stop: int
    epoch_steps: int
    pacing: Pacing | None = None

    def augment_seed(self, step: tf.Tensor) -> tf.Tensor:
        """Return the seed (2,) of a step's augmentation."""
        return tf.stack([tf.cast(self.seed, tf.int64), step])

    def index(self, position: tf.Tensor, count: int) -> tf.Tensor:
        """Return which of `count` samples comes at the position (counted over all epochs), int64 of any shape.

        Every epoch is another permutation, and none is ever stored. While pacing leaves samples out, every batch is
        drawn by itself, without repetition where there are enough.
        """
        if self.pacing is None:
            return self._shuffled(position, count)
        step = tf.reshape(position, (-1,))[0] // self.batch_size
        reach, seed = self.pacing.reach(step), tf.stack([tf.cast(self.seed, tf.int64), -1 - step])
        place = tf.random.experimental.index_shuffle(position % self.batch_size % reach, seed, reach - 1)
        return tf.where(reach < count, tf.gather(self.pacing.ranking, place), self._shuffled(position, count))

    def _shuffled(self, position: tf.Tensor, count: int) -> tf.Tensor:
        epoch_length = self.epoch_steps * self.batch_size
        within = position % epoch_length % count  # a split smaller than a batch is gone through again
        seed = tf.stack([tf.cast(self.seed, tf.int64), tf.reshape(position, (-1,))[0] // epoch_length])
        return tf.random.experimental.index_shuffle(within, seed, count - 1)


class Reader(Protocol):
    """Give batches as dicts of `image` uint8 (B, H, W, C), `id` and the task's fields."""

    def training(self, order: Order) -> tf.data.Dataset:
        """Return the batches of an order, one for each step, with static shapes."""

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """Return all samples in index order; the last batch may be smaller."""


@dataclass(frozen=True)
class Memory:
    """Whole batches gathered from decoded arrays."""

    arrays: dict[str, tf.Tensor]

    def training(self, order: Order) -> tf.data.Dataset:
        count = self._count()

        def batch(step: tf.Tensor) -> Sample:
            index = order.index(step * order.batch_size + tf.range(order.batch_size, dtype=tf.int64), count)
            return {name: tf.gather(array, index) for name, array in self.arrays.items()}

        return tf.data.Dataset.range(order.start, order.stop).map(batch, tf.data.AUTOTUNE)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        def batch(start: tf.Tensor) -> Sample:
            return {name: array[start : start + batch_size] for name, array in self.arrays.items()}

        return tf.data.Dataset.range(0, self._count(), batch_size).map(batch, tf.data.AUTOTUNE)

    def _count(self) -> int:
        return self.arrays["image"].shape[0]


@dataclass(frozen=True)
class Indexed:
    """Samples loaded and decoded one by one, in any order; only indices are shuffled."""

    load: Callable[[tf.Tensor], Sample]
    valid: tf.Tensor  # int64 indices
    decode: Decode

    def training(self, order: Order) -> tf.data.Dataset:
        count = self.valid.shape[0]
        positions = tf.data.Dataset.range(order.start * order.batch_size, order.stop * order.batch_size)
        samples = self._samples(positions, lambda position: order.index(position, count))
        return samples.batch(order.batch_size, True)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        return self._samples(tf.data.Dataset.range(self.valid.shape[0]), lambda position: position).batch(batch_size)

    def _samples(self, positions: tf.data.Dataset, index: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
        def sample(position: tf.Tensor) -> Sample:
            return self.decode(self.load(tf.gather(self.valid, index(position))), position)

        return positions.map(sample, tf.data.AUTOTUNE)


@dataclass(frozen=True)
class Streamed:
    """Samples that can only be read in order: shuffled while encoded, in a bounded buffer, and decoded after it."""

    stream: Callable[[], tf.data.Dataset]
    valid: tf.Tensor  # int64 indices
    decode: Decode
    encoded_bytes: float  # of the mean sample

    def training(self, order: Order) -> tf.data.Dataset:
        samples = self._valid_samples()
        buffer = max(order.batch_size, min(self.valid.shape[0], int(_SHUFFLE_BYTES / self.encoded_bytes)))
        length = order.epoch_steps * order.batch_size
        start = order.start * order.batch_size

        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            seed = tf.random.experimental.stateless_fold_in((order.seed, 0), number)
            seed = tf.random.stateless_uniform((), seed, 1, 2**31 - 1, tf.int64)
            # Of this function's graph alone. tf.data mixes it into a shuffle's own seed; where the global seed is 0 it
            # compares that one, a tensor here, with 0, and fails.
            tf.random.set_seed(1)
            shuffled = samples.shuffle(buffer, seed, reshuffle_each_iteration=False).repeat().take(length)
            return shuffled.skip(tf.maximum(start - number * length, 0))

        epochs = tf.data.Dataset.range(order.start // order.epoch_steps, -(-order.stop // order.epoch_steps))
        batches = epochs.flat_map(epoch).map(self._fit, tf.data.AUTOTUNE).batch(order.batch_size, True)
        return batches.take(order.stop - order.start)

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        return self._valid_samples().map(self._fit, tf.data.AUTOTUNE).batch(batch_size)

    def _fit(self, sample: Sample) -> Sample:
        return self.decode(sample, tf.constant(0, tf.int64))

    def _valid_samples(self) -> tf.data.Dataset:
        is_valid = tf.scatter_nd(self.valid[:, None], tf.ones_like(self.valid), (tf.reduce_max(self.valid) + 1,))

        def is_kept(index: tf.Tensor, sample: Sample) -> tf.Tensor:
            last = tf.size(is_valid, tf.int64) - 1
            return (index <= last) & (tf.gather(is_valid, tf.minimum(index, last)) > 0)

        return self.stream().enumerate().ignore_errors().filter(is_kept).map(lambda index, sample: sample)


def read_split(split: Split, valid: tf.Tensor, decode: Decode, encoded_bytes: float) -> Reader:
    """Return the reader for a split that is decoded anew every epoch."""
    if split.load is not None:
        return Indexed(split.load, valid, decode)
    return Streamed(split.stream, valid, decode, encoded_bytes)
