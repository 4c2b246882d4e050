"""Cuts are stratified, seeded and never touch test."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.source import Source, Split
from pipeline.data.split import stratified_choice, subset, with_fold, with_test, with_validation
from pipeline.errors import UserError


def numbered(count: int, labels: np.ndarray | None = None, *, streamed: bool = False) -> Split:
    """Make a split whose sample is its own index."""
    if streamed:
        stream = lambda: tf.data.Dataset.range(count).map(lambda index: {"id": index})  # noqa: E731
        return Split(count, stream=stream, labels=labels)
    return Split(count, load=lambda index: {"id": index}, labels=labels, refused={"bad.jpg": "is empty"})


def ids(split: Split) -> list[int]:
    return [int(sample["id"]) for sample in split.dataset()]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=12), st.floats(0.01, 0.9), st.integers(0, 5))
def test_every_class_gets_its_share_and_keeps_one(counts, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = stratified_choice(labels, fraction, seed)
    np.testing.assert_array_equal(chosen, np.unique(chosen))
    np.testing.assert_array_equal(chosen, stratified_choice(labels, fraction, seed))
    per_class = np.bincount(labels[chosen], minlength=len(counts))
    shares = np.array(counts) * fraction
    assert (per_class < counts).all()
    assert (per_class >= np.minimum(np.floor(shares), np.array(counts) - 1)).all()
    assert (per_class <= shares + 1).all()
    if min(counts) * (1 - fraction) > 1:  # no class had to keep its last image
        assert len(chosen) == max(1, round(sum(counts) * fraction))


def test_counts_are_exact_where_they_divide():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    np.testing.assert_array_equal(np.bincount(labels[stratified_choice(labels, 0.1, 0)]), [10, 5, 1])


def test_other_seeds_choose_others():
    labels = np.zeros(100, int)
    assert set(stratified_choice(labels, 0.2, 0)) != set(stratified_choice(labels, 0.2, 1))


@pytest.mark.parametrize("streamed", [False, True])
def test_subset_reads_the_chosen_samples_in_order(streamed):
    part = subset(numbered(10, np.arange(10, dtype=np.int32), streamed=streamed), np.array([1, 4, 7]))
    assert part.count == 3
    assert ids(part) == [1, 4, 7]
    assert part.labels.tolist() == [1, 4, 7]


@pytest.mark.parametrize("labels", [None, np.repeat([0, 1], 20).astype(np.int32)], ids=["masks", "labels"])
@pytest.mark.parametrize("streamed", [False, True])
def test_validation_is_cut_from_train_only(labels, streamed):
    splits = {"train": numbered(40, labels, streamed=streamed), "test": numbered(9)}
    source = with_validation(Source(("a", "b"), frozenset(), splits), 0.25, seed=3)
    train, validation = ids(source.splits["train"]), ids(source.splits["validation"])
    assert sorted(train + validation) == list(range(40))
    assert len(validation) == 10
    assert source.splits["test"] is splits["test"]
    if labels is not None:
        assert np.bincount(source.splits["validation"].labels).tolist() == [5, 5]


def test_refused_files_are_told_once():
    source = with_validation(Source(("a",), frozenset(), {"train": numbered(10)}), 0.2, 0)
    assert source.splits["train"].refused == {"bad.jpg": "is empty"}
    assert source.splits["validation"].refused is None


def test_a_given_validation_split_is_kept():
    source = Source(("a",), frozenset(), {"train": numbered(4), "validation": numbered(2)})
    assert with_validation(source, 0.5, 0) is source
    only_test = Source(("a",), frozenset(), {"test": numbered(2)})
    assert with_validation(only_test, 0.5, 0) is only_test


def test_one_image_per_class_cannot_be_cut():
    splits = {"train": numbered(3, np.arange(3, dtype=np.int32))}
    with pytest.raises(UserError, match="train has too few images per class to cut a validation split from it"):
        with_validation(Source(("a", "b", "c"), frozenset(), splits), 0.1, 0)


def test_test_split_comes_from_validation_or_else_from_train(caplog):
    caplog.set_level(logging.INFO)
    given = {"train": numbered(8), "test": numbered(2)}
    assert with_test(given, 0.5) == given
    assert not caplog.messages

    borrowed = with_test({"train": numbered(8), "validation": numbered(3)}, 0.5)
    assert {name: split.count for name, split in borrowed.items()} == {"train": 8, "test": 3}
    assert "the validation split serves as test" in caplog.messages[-1]

    everything = {"train": numbered(8)}
    assert with_test(everything, 0) == everything
    assert with_test(everything, 1) == {"test": everything["train"]}

    cut = with_test(everything, 0.25)
    assert {name: split.count for name, split in cut.items()} == {"train": 6, "test": 2}
    assert not set(ids(cut["train"])) & set(ids(cut["test"]))
    assert "2 of 8 images" in caplog.messages[-1]


@pytest.mark.parametrize("streamed", [False, True])
def test_folds_hold_every_image_of_train_once_and_all_classes_alike(streamed):
    labels = np.repeat([0, 1, 2], [20, 11, 6]).astype(np.int32)
    splits = {"train": numbered(37, labels, streamed=streamed), "test": numbered(5)}
    source = Source(("a", "b", "c"), frozenset({"label"}), splits)
    folds = [with_fold(source, 4, index) for index in range(4)]
    held = [ids(fold.splits["test"]) for fold in folds]
    assert sorted(number for fold in held for number in fold) == list(range(37))
    for fold, test in zip(folds, held, strict=True):
        assert sorted([*ids(fold.splits["train"]), *test]) == list(range(37))
        assert (np.abs(np.bincount(labels[test], minlength=3) - np.array([20, 11, 6]) / 4) < 1).all()
    assert ids(with_fold(source, 4, 1).splits["test"]) == held[1]


def test_more_folds_than_images_are_refused():
    source = Source(("a",), frozenset({"label"}), {"train": numbered(3)})
    with pytest.raises(UserError, match=r"data.folds: 4 parts need a train split of at least 4 images"):
        with_fold(source, 4, 0)
