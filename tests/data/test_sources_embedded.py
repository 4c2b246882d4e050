"""The two sources that need no download: digits, and scenes composed of them."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from pipeline.data.sources.scenes import digit_pools
from pipeline.data.split import with_validation
from pipeline.registry import SOURCES


def test_digits_are_scikit_learns_own_split():
    source = SOURCES.build("digits")
    assert source.classes == tuple("0123456789")
    assert {name: split.count for name, split in source.splits.items()} == {"train": 898, "test": 899}
    bunch = load_digits()
    test = list(source.splits["test"].dataset())
    np.testing.assert_array_equal([sample["label"] for sample in test], bunch.target[898:])
    np.testing.assert_array_equal(source.splits["test"].labels, bunch.target[898:])
    first = test[0]["image"].numpy()
    assert (first.shape, first.dtype) == ((8, 8, 1), np.uint8)
    np.testing.assert_array_equal(first[..., 0], np.round(bunch.images[898] * 255 / 16))
    assert len({sample["id"].numpy() for sample in test}) == 899


def test_digits_validation_is_balanced():
    source = with_validation(SOURCES.build("digits"), 0.1, 0)
    counts = np.bincount(source.splits["validation"].labels)
    assert counts.sum() == 90
    assert set(counts) <= {8, 9, 10}


@pytest.fixture(scope="module")
def scenes():
    return SOURCES.build("scenes", size=[64, 80], train=12, validation=5, test=7, digits=4, seed=1)


def test_scene_samples_agree_with_themselves(scenes):
    assert scenes.classes == ("background", *"0123456789")
    assert scenes.fields == {"mask", "boxes", "classes"}
    assert {name: split.count for name, split in scenes.splits.items()} == {"train": 12, "validation": 5, "test": 7}
    seen = 0
    for split in scenes.splits.values():
        for sample in split.dataset():
            mask, boxes, classes = (sample[name].numpy() for name in ("mask", "boxes", "classes"))
            assert sample["image"].shape == (64, 80, 3)
            assert mask.shape == (64, 80)
            assert 1 <= len(boxes) == len(classes) <= 4
            corners = np.round(boxes * [64, 80, 64, 80]).astype(int)
            covered = np.zeros_like(mask)
            for (top, left, bottom, right), label in zip(corners, classes, strict=True):
                inside = mask[top:bottom, left:right] == label
                # The box is tight: the digit touches all four of its sides.
                assert inside.any(0)[[0, -1]].all()
                assert inside.any(1)[[0, -1]].all()
                covered[top:bottom, left:right] = 1
            assert not mask[covered == 0].any()
            seen += len(boxes)
    assert seen > 24


def test_scenes_repeat_exactly_and_by_index(scenes):
    again = SOURCES.build("scenes", size=[64, 80], train=12, validation=5, test=7, digits=4, seed=1)
    for first, second in zip(scenes.splits["train"].dataset(), again.splits["train"].dataset(), strict=True):
        np.testing.assert_array_equal(first["image"], second["image"])
    alone = again.splits["train"].load(tf.constant(5, tf.int64))
    np.testing.assert_array_equal(alone["image"], list(scenes.splits["train"].dataset())[5]["image"])
    assert alone["id"] == b"train 5"


def test_scenes_differ_between_indices_splits_and_seeds(scenes):
    other = SOURCES.build("scenes", size=[64, 80], train=12, validation=5, test=7, digits=4, seed=2)
    pictures = [s["image"].numpy() for source in (scenes, other) for p in source.splits.values() for s in p.dataset()]
    assert len({hashlib.sha256(picture.tobytes()).digest() for picture in pictures}) == 48


def test_scene_splits_share_no_digit():
    pools = [images for images, _ in digit_pools().values()]
    assert [len(pool) for pool in pools] == [808, 90, 899]
    assert len({digit.tobytes() for pool in pools for digit in pool}) == 1797


@pytest.mark.parametrize("size", [[8, 8], [8, 200], [300, 200]])
def test_scenes_of_any_size(size):
    source = SOURCES.build("scenes", size=size, train=20, validation=1, test=1)
    for sample in source.splits["train"].dataset():
        assert sample["image"].shape == (*size, 3)
        assert len(sample["boxes"]) >= 1


def test_digits_stand_out_from_the_background():
    for sample in SOURCES.build("scenes", train=10, validation=1, test=1).splits["train"].dataset():
        image, mask = sample["image"].numpy().mean(-1), sample["mask"].numpy()
        assert abs(image[mask > 0].mean() - image[mask == 0].mean()) > 30
