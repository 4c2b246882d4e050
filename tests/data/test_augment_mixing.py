"""Mixing and erasing: what is mixed is mixed in the label, what is erased is void in the mask."""

import numpy as np
import pytest
import tensorflow as tf

from pipeline.data.augment import compile_augmentations
from pipeline.data.augment.draw import beta

CLASSES = 4


def apply(augmentations, batch, seed=(0, 1)):
    batch = {key: tf.constant(value) for key, value in batch.items()}
    result = compile_augmentations(augmentations, CLASSES, batch)(batch, tf.constant(seed))
    return {key: value.numpy() for key, value in result.items()}


def levels(count=40):
    """Images of one grey level each, so that a mixed image tells its shares."""
    level = (np.arange(count) * 6).astype(np.uint8)
    image = np.broadcast_to(level[:, None, None, None], (count, 16, 16, 1))
    return {"image": image, "label": (np.arange(count) % CLASSES).astype(np.int32)}


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_label_rows_sum_to_one_and_say_what_is_in_the_image(name):
    batch = levels()
    mixed = apply([(name, {"alpha": 1.0})], batch)
    np.testing.assert_allclose(mixed["label"].sum(axis=1), 1, atol=1e-6)
    own, other = batch["label"], np.roll(batch["label"], -1)
    share = mixed["label"][np.arange(40), other]
    np.testing.assert_allclose(mixed["label"][np.arange(40), own], 1 - share, atol=1e-6)
    level = batch["image"][:, 0, 0, 0].astype(np.float32)
    expected = level + share * (np.roll(level, -1) - level)
    np.testing.assert_allclose(mixed["image"].mean(axis=(1, 2, 3)), expected, atol=1e-2)
    assert share.std() > 0.1


def test_a_mixed_image_weighs_what_its_parts_weigh():
    batch = levels(8) | {"weight": np.float32([1, 1, 0.5, 0.5] * 2)}
    mixed = apply([("mixup", {"alpha": 1.0})], batch)
    level = batch["image"][:, 0, 0, 0].astype(float)
    share = ((mixed["image"].mean(axis=(1, 2, 3)) - level) / (np.roll(level, -1) - level))[:, None]
    own = np.eye(CLASSES)[batch["label"]] * batch["weight"][:, None]
    both = own + share * (np.roll(own, -1, axis=0) - own)
    assert share.max() > 0.05
    np.testing.assert_allclose(mixed["label"] * mixed["weight"][:, None], both, atol=1e-3)
    np.testing.assert_allclose(mixed["weight"], both.sum(axis=1), atol=1e-3)


def test_cutmix_pastes_one_rectangle():
    batch = levels()
    pasted = apply([("cutmix", {})], batch)["image"] != batch["image"]
    for hole in pasted[..., 0]:
        rows, columns = hole.any(axis=1), hole.any(axis=0)
        assert hole.sum() == rows.sum() * columns.sum()
        assert np.abs(np.diff(rows.astype(int))).sum() <= 2
        assert np.abs(np.diff(columns.astype(int))).sum() <= 2
    assert pasted.any()


def test_probability_leaves_the_others_alone():
    batch = levels(200)
    mixed = apply([("mixup", {"alpha": 1.0, "probability": 0.3})], batch)
    assert 100 < (mixed["label"].max(axis=1) == 1).sum() < 170


def test_mixing_twice():
    mixed = apply([("mixup", {}), ("cutmix", {})], levels())
    np.testing.assert_allclose(mixed["label"].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_beta_moments(alpha):
    draws = beta(tf.constant((1, 2)), 20000, alpha).numpy()
    assert np.isfinite(draws).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.02)
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_cutout_blanks_a_square_with_the_mean_color():
    image = np.random.default_rng(0).integers(0, 256, (60, 20, 20, 3), np.uint8)
    mask = np.ones((60, 20, 20), np.int32)
    cut = apply([("cutout", {"pixels": 6})], {"image": image, "mask": mask})
    hole = cut["mask"] == 255
    np.testing.assert_array_equal(cut["image"][~hole], image[~hole])
    for index in range(60):
        np.testing.assert_allclose(
            cut["image"][index][hole[index]], np.tile(image[index].mean((0, 1)), (hole[index].sum(), 1)), rtol=1e-4
        )
    assert hole.sum(axis=(1, 2)).max() == 36
    assert hole.sum(axis=(1, 2)).min() >= 9


def test_random_erasing_draws_its_share_and_area():
    image = np.full((400, 24, 24, 1), 128, np.uint8)
    mask = np.ones((400, 24, 24), np.int32)
    options = {"probability": 0.5, "scale": (0.1, 0.2), "ratio": (0.5, 2.0)}
    cut = apply([("random_erasing", options)], {"image": image, "mask": mask})
    area = (cut["mask"] == 255).mean(axis=(1, 2))
    assert 150 < (area > 0).sum() < 250
    assert area[area > 0].min() > 0.07
    assert area.max() < 0.23
    erased = cut["image"][..., 0][cut["mask"] == 255]
    assert erased.mean() == pytest.approx(127.5, abs=5)
    assert erased.std() > 60


def test_erasing_keeps_boxes():
    boxes = np.float32([[[0.1, 0.1, 0.9, 0.9]]])
    batch = {"image": np.zeros((1, 8, 8, 3), np.uint8), "boxes": boxes, "classes": np.int32([[2]])}
    assert apply([("cutout", {})], batch)["boxes"].tolist() == boxes.tolist()
