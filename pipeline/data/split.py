"""Seeded, class-stratified cuts: validation from train, test from train where a source has none, and folds."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf

from pipeline.data.source import Sample, Source, Split
from pipeline.errors import UserError

log = logging.getLogger(__name__)

# How people name their splits, in folders and in tables.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def with_validation(source: Source, fraction: float, seed: int) -> Source:
    """Return the source with a validation split, cut from train where it has none. Test is never touched.

    A source without train (images to evaluate on) is returned as it is.
    """
    if "validation" in source.splits or "train" not in source.splits:
        return source
    train, validation = _cut(source.splits["train"], fraction, seed, "validation")
    return replace(source, splits={**source.splits, "train": train, "validation": validation})


def with_fold(source: Source, of: int, index: int) -> Source:
    """Return the source with one of `of` class-stratified parts of train as its test split, and the others as train.

    The parts do not overlap, are the same in every run, and differ by at most one image in all and in each class. The
    source's own test split is left out: what is chosen by folds has not seen it.
    Raises UserError where there is no train split, or where some part would be empty.
    """
    train = source.splits.get("train")
    if train is None or train.count < of:
        raise UserError(f"data.folds: {of} parts need a train split of at least {of} images; give fewer parts.")
    labels = np.zeros(train.count, np.int32) if train.labels is None else train.labels
    random = np.random.default_rng(0)
    # Class after class, each in random order, dealt out like cards.
    dealt = np.concatenate([random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)])
    held = np.sort(dealt[index::of])
    kept = np.setdiff1d(np.arange(train.count), held)
    splits = {"train": replace(subset(train, kept), refused=train.refused), "test": subset(train, held)}
    return replace(source, splits={**source.splits, **splits})


def with_test(splits: Mapping[str, Split], fraction: float) -> dict[str, Split]:
    """Return the splits with a test split.

    Where there is a validation split but no test split, it becomes the test split: it is what its authors report on,
    and it must not also choose the weights, so validation is cut from train. Where there is neither, a fraction of
    train is cut, the same images in every run; a fraction of 1 makes all of it the test split, and of 0 none.
    """
    if "test" in splits:
        return dict(splits)
    if "validation" in splits:
        log.info("There is no test split: the validation split serves as test, and validation is cut from train.")
        return {"test" if name == "validation" else name: split for name, split in splits.items()}
    if fraction in (0, 1):
        return {"test": splits["train"]} if fraction else dict(splits)
    train, test = _cut(splits["train"], fraction, 0, "test")
    log.info(
        "There is no test split: %d of %d images, spread over all classes, are kept for it.",
        test.count,
        train.count + test.count,
    )
    return {**splits, "train": train, "test": test}


def _cut(split: Split, fraction: float, seed: int, name: str) -> tuple[Split, Split]:
    labels = np.zeros(split.count, np.int32) if split.labels is None else split.labels
    held = stratified_choice(labels, fraction, seed)
    if not len(held):
        raise UserError(f"train has too few images per class to cut a {name} split from it; give a {name} split.")
    kept = np.setdiff1d(np.arange(split.count), held)
    return replace(subset(split, kept), refused=split.refused), subset(split, held)


def stratified_choice(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose a fraction of the indices, ascending, with every class as near to its share as whole numbers allow.

    The counts are rounded by largest remainder. Every class keeps at least one index outside the choice, and at
    least one index is chosen where that leaves any.
    """
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = counts * fraction
    chosen = np.minimum(np.floor(shares).astype(int), counts - 1)
    missing = max(1, round(len(labels) * fraction)) - chosen.sum()
    for label in np.argsort(chosen - shares, kind="stable"):
        if missing > 0 and chosen[label] < counts[label] - 1:
            chosen[label] += 1
            missing -= 1
    random = np.random.default_rng(seed)
    picks = [random.permutation(np.flatnonzero(labels == label))[:take] for label, take in enumerate(chosen)]
    return np.sort(np.concatenate(picks))


def subset(split: Split, indices: np.ndarray) -> Split:
    """Return the samples at these ascending indices as a split of its own; refused files stay with the original."""
    indices = np.asarray(indices, np.int64)
    labels = None if split.labels is None else split.labels[indices]
    if split.load is not None:
        positions, load = tf.constant(indices), split.load
        return Split(len(indices), load=lambda index: load(tf.gather(positions, index)), labels=labels)
    wanted = np.zeros(split.count, bool)
    wanted[indices] = True
    wanted, stream = tf.constant(wanted), split.stream

    def picked() -> tf.data.Dataset:
        numbered = stream().enumerate().filter(lambda index, sample: tf.gather(wanted, index))
        return numbered.map(_without_number)

    return Split(len(indices), stream=picked, labels=labels)


def _without_number(index: tf.Tensor, sample: Sample) -> Sample:
    return sample
