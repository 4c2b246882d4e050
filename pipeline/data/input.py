"""From a split to batches: the only place where images are cached, shuffled, batched and prefetched."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from pipeline.data.augment import Augment, compile_augmentations
from pipeline.data.batches import Indexed, Memory, Order, Pacing, Reader, read_split
from pipeline.data.fitting import ExactDecode, QuickDecode
from pipeline.data.preprocess import Preprocess
from pipeline.data.source import Sample, Split, gives_files
from pipeline.data.verify import Verified, verify
from pipeline.errors import UserError

log = logging.getLogger(__name__)

_BATCHES_AT_ONCE = 4  # augmented side by side: more would cost memory (100 MB each at 64 × 224 × 224) and gain little
_NAMED = 3  # corrupt files that a message names


@dataclass(frozen=True)
class Prepared:
    """A verified split that gives batches.

    Args:
        count: samples that can be decoded.
        corrupt: ids of the others, refused files included.
        note: one line on how many images there are and where they are kept.
    """

    count: int
    corrupt: tuple[str, ...]
    note: str
    fields: tuple[str, ...]
    classes: int
    reader: Reader

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the whole batches in an epoch, at least one: a split smaller than a batch is gone through again."""
        return max(1, self.count // batch_size)

    def training(
        self,
        *,
        batch_size: int,
        augment: Sequence[tuple[str, Mapping[str, Any]]],
        seed: int,
        start_step: int,
        total_steps: int,
        encode: Callable[[Sample], Any],
        image_size: tuple[int, int] | None = None,
        pacing: Pacing | None = None,
    ) -> tf.data.Dataset:
        """Return the batches of steps `start_step` to `total_steps`: image float32 (B, H, W, C) in 0..255, and y.

        Where samples have a weight it comes third, float32 (B,).

        A batch is a function of the seed and its step alone: it is the same whatever the start step was. With an
        `image_size` (height, width) it is made as ever, and then resized. `pacing` leaves hard samples for later.
        """
        order = Order(batch_size, seed, start_step, total_steps, self.steps_per_epoch(batch_size), pacing)
        reader, change = _hasten(self.reader, compile_augmentations(augment, self.classes, self.fields), order)

        def finish(step: tf.Tensor, batch: Sample) -> tuple[Any, ...]:
            batch = change(_with_int_masks(batch), order.augment_seed(step))
            batch = _resized(batch, image_size) if image_size else batch
            weights = (batch["weight"],) if "weight" in batch else ()
            return batch["image"], encode(batch), *weights

        numbered = tf.data.Dataset.zip(tf.data.Dataset.range(start_step, total_steps), reader.training(order))
        return _run(numbered.map(finish, _BATCHES_AT_ONCE))

    def evaluation(self, batch_size: int, encode: Callable[[Sample], Any]) -> tf.data.Dataset:
        """Return all samples in index order: image float32 (B, H, W, C), y, weight float32 (B,), id string (B,).

        The last batch is padded to full size by copies of its last sample, with weight 0.
        """

        def finish(batch: Sample) -> Sample:
            real = tf.shape(batch["image"])[0]
            rows = tf.range(batch_size)
            whole = {name: tf.gather(values, tf.minimum(rows, real - 1)) for name, values in batch.items()}
            whole = _with_int_masks(whole)
            return {
                "image": tf.cast(whole["image"], tf.float32),
                "y": encode(whole),
                "weight": tf.cast(rows < real, tf.float32),
                "id": whole["id"],
            }

        return _run(self.reader.evaluation(batch_size).map(finish, _BATCHES_AT_ONCE))


def prepare(
    split: Split,
    preprocess: Preprocess,
    *,
    fields: tuple[str, ...],
    classes: int,
    cache_bytes: int,
    max_corrupt: float,
    name: str,
) -> Prepared:
    """Decode a split once, leave out what cannot be decoded, and keep the rest in memory if it fits `cache_bytes`.

    Raises UserError when more than the share `max_corrupt` is left out, or everything.
    """
    if not split.count:
        raise UserError(f"the split {name!r} is empty: it has no image that can be used.")
    fields = (*fields, "weight") if split.weighted else fields
    verified = verify(split, preprocess, fields, classes, cache_bytes)
    corrupt = (*(split.refused or ()), *verified.failed)
    _report(split, verified, max_corrupt, name)
    count = len(verified.valid)
    if verified.arrays is not None:
        size = sum(array.shape.num_elements() * array.dtype.size for array in verified.arrays.values())
        note = f"{name}: {count:,} images, kept decoded in memory ({size / 2**20:.1f} MiB)"
        reader: Reader = Memory(verified.arrays)
    else:
        note = f"{name}: {count:,} images, decoded anew in every epoch: they do not fit data.cache_mb"
        decode = ExactDecode(preprocess, fields, verified.most_boxes)
        reader = read_split(split, tf.constant(verified.valid), decode, verified.encoded_bytes)
        log.info(note)
    return Prepared(count, corrupt, note, fields, classes, reader)


def _report(split: Split, verified: Verified, max_corrupt: float, name: str) -> None:
    """Tell of images that were left out, or raise UserError when there are too many."""
    reasons = dict(split.refused or {}) | dict.fromkeys(verified.failed, "is damaged or cut short")
    if not reasons:
        return
    first = "; ".join(f"{one} {reason}" for one, reason in list(reasons.items())[:_NAMED])
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    total = len(verified.valid) + len(reasons)
    share = len(reasons) / total
    found = f"{len(reasons)} of {total} images of {name} ({share:.1%}) cannot be used: {first}{more}"
    if not len(verified.valid):
        raise UserError(f"{found}. Nothing is left of {name}; check data.source.")
    if share > max_corrupt:
        raise UserError(
            f"{found}. That is more than data.max_corrupt ({max_corrupt:.1%}) allows; mend or remove them, or raise it."
        )
    log.info("%s; they are left out.", found)


def _hasten(reader: Reader, augment: Augment, order: Order) -> tuple[Reader, Augment]:
    """Let files be decoded only as far as the augmentation will look at them, where that is simple.

    That is: stretched images without masks or boxes, whose pixels are interpolated again anyhow.
    """
    is_simple = isinstance(reader, Indexed) and set(reader.decode.fields) <= {"label", "weight"}
    is_simple = is_simple and gives_files(reader.load)
    if not (is_simple and augment.interpolates and reader.decode.preprocess.resize == "stretch"):
        return reader, augment
    preprocess, fields = reader.decode.preprocess, reader.decode.fields
    if not augment.begins_with_windows:
        return replace(reader, decode=QuickDecode(preprocess, fields, None)), augment
    height, width = preprocess.image_size

    def window(position: tf.Tensor) -> tf.Tensor:
        seed = order.augment_seed(position // order.batch_size)
        # The draws of the whole batch, of which one is used: the same window as if the decoded image were cropped.
        windows = tf.stack(augment.windows((order.batch_size, height, width), seed), axis=1)
        return windows[position % order.batch_size] / tf.constant([height, width] * 2, tf.float32)

    return replace(reader, decode=QuickDecode(preprocess, fields, window)), augment.after_windows()


def _resized(batch: Sample, size: tuple[int, int]) -> Sample:
    batch = batch | {"image": tf.image.resize(batch["image"], size, antialias=True)}
    if "mask" in batch:
        batch["mask"] = tf.image.resize(batch["mask"][..., None], size, "nearest")[..., 0]
    return batch


def _with_int_masks(batch: Sample) -> Sample:
    return batch | {"mask": tf.cast(batch["mask"], tf.int32)} if "mask" in batch else batch


def _run(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    # Rewriting the graph copies every tensor it captures, the whole cache among them; nothing is left to rewrite here.
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = True
    return dataset.prefetch(2).with_options(options)
