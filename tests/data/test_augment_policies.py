"""Policies by hand, and their operations against Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from pipeline.data.augment import aug_mix, compile_augmentations, policies
from pipeline.data.augment.auto_augment_table import SUB_POLICIES
from pipeline.data.augment.color import map_colors, stretch
from pipeline.data.augment.nonlinear import equalize, posterize, sharpen, solarize
from pipeline.data.augment.operations import MOVES, OPERATIONS, Drawn, Space, motions, recolor
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS

RNG = np.random.default_rng(0)
IMAGES = [
    np.clip(RNG.normal(110, 30, (20, 30, 3)), 0, 255).astype(np.uint8),
    RNG.integers(0, 256, (20, 30, 3), np.uint8),
    np.full((20, 30, 3), 77, np.uint8),
    np.tile(np.uint8([[[10, 200, 30], [40, 60, 90]]]), (20, 15, 1)),
]
BATCH = tf.constant(np.stack(IMAGES), tf.float32)


def with_pillow(function):
    return np.stack([np.asarray(function(Image.fromarray(image)), np.float32) for image in IMAGES])


@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (lambda: posterize(BATCH, 4), lambda image: ImageOps.posterize(image, 4)),
        (lambda: solarize(BATCH, 100.0), lambda image: ImageOps.solarize(image, 100)),
        (lambda: equalize(BATCH), ImageOps.equalize),
        (lambda: map_colors(BATCH, stretch(BATCH)), ImageOps.autocontrast),
        (lambda: sharpen(BATCH, tf.fill((4,), 1.9)), lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
        (lambda: sharpen(BATCH, tf.fill((4,), 0.1)), lambda image: ImageEnhance.Sharpness(image).enhance(0.1)),
    ],
    ids=["posterize", "solarize", "equalize", "auto_contrast", "sharpen", "smooth"],
)
def test_agrees_with_pillow(ours, pillows):
    # Pillow rounds the smoothed copy before it blends, and cuts the blend's decimals off.
    np.testing.assert_allclose(ours().numpy(), with_pillow(pillows), atol=1.5)


def drawn(operations, strength=0.9, sign=1.0):
    count = len(operations)
    return [Drawn(tf.constant(operations), tf.fill((count,), strength), tf.fill((count,), sign))]


def test_each_operation_reaches_only_the_images_that_drew_it():
    image = tf.tile(BATCH[:1], (len(OPERATIONS), 1, 1, 1))
    changed = recolor(image, drawn(range(len(OPERATIONS))), Space()).numpy()
    same = [np.array_equal(row, IMAGES[0].astype(np.float32)) for row in changed]
    assert [name for name, is_same in zip(OPERATIONS, same, strict=True) if is_same] == ["identity", *MOVES]
    expected = ImageOps.equalize(Image.fromarray(IMAGES[0]))
    np.testing.assert_allclose(changed[OPERATIONS.index("equalize")], np.asarray(expected), atol=1.01)


def test_no_image_draws_anything():
    unchanged = recolor(BATCH, drawn([OPERATIONS.index("identity")] * 4), Space())
    np.testing.assert_array_equal(unchanged, BATCH)


def test_strengths_are_each_images_own():
    number = OPERATIONS.index("posterize"), OPERATIONS.index("solarize")
    image = tf.tile(BATCH[1:2], (4, 1, 1, 1))
    slot = Drawn(
        tf.constant([number[0], number[0], number[1], number[1]]), tf.constant([0.5, 1.0, 0.5, 1.0]), tf.ones(4)
    )
    changed = recolor(image, [slot], Space()).numpy()
    pillow = Image.fromarray(IMAGES[1])
    expected = [
        ImageOps.posterize(pillow, 6), ImageOps.posterize(pillow, 4), ImageOps.solarize(pillow, 128),
        ImageOps.invert(pillow),
    ]  # fmt: skip
    for ours, theirs in zip(changed, expected, strict=True):
        np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_motions_by_hand():
    matrices = motions(drawn(range(1, 6), 0.5), (5, 100, 200), Space()).numpy()
    np.testing.assert_allclose(matrices[0], [[1, 0.15, 0], [0, 1, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(matrices[1], [[1, 0, 0], [0.15, 1, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(matrices[2], [[1, 0, 45], [0, 1, 0], [0, 0, 1]], atol=1e-4)
    np.testing.assert_allclose(matrices[3], [[1, 0, 0], [0, 1, 22.5], [0, 0, 1]], atol=1e-4)
    np.testing.assert_allclose(matrices[4][0, :2], [np.cos(np.pi / 12), -np.sin(np.pi / 12)], atol=1e-6)


def draws_of(name, monkeypatch, count, **options):
    """Return what a policy draws for so many images, and its space."""
    kept = []
    monkeypatch.setattr(policies, "as_augmentations", lambda *policy: kept.append(policy) or ())
    AUGMENTATIONS.build(name, **options)
    [(draw, space, _)] = kept
    return draw(count, tf.constant((1, 2))), space


@pytest.mark.parametrize(("name", "options"), [("rand_augment", {"operations": 1}), ("trivial_augment", {})])
def test_every_operation_is_drawn_alike(name, options, monkeypatch):
    [(operation, _, sign)], _ = draws_of(name, monkeypatch, 14000, **options)
    counts = np.bincount(operation.numpy(), minlength=14)
    assert len(OPERATIONS) == 14
    assert counts.min() > 850
    assert counts.max() < 1150
    assert abs(sign.numpy().mean()) < 0.05


def test_trivial_augment_draws_every_strength_of_the_wide_space(monkeypatch):
    [(_, strength, _)], space = draws_of("trivial_augment", monkeypatch, 6200)
    levels, counts = np.unique(np.round(strength.numpy() * 30, 4), return_counts=True)
    assert levels.tolist() == list(range(31))
    assert counts.min() > 130
    assert (space.shift(224), space.shear, space.enhancement, np.degrees(space.rotation)) == (32, 0.99, 0.99, 135)
    assert space.bits(tf.constant([0.0, 0.5, 1.0])).numpy().tolist() == [8, 5, 2]


def test_auto_augment_draws_the_pairs_as_often_as_they_say(monkeypatch):
    first, second = draws_of("auto_augment", monkeypatch, 50000, policy="cifar10")[0]
    strengths = np.stack([first.strength, second.strength], axis=1)
    # Only the pair (rotate 0.7 2, translate_x 0.3 9) has these strengths beside these operations.
    rotates, shifts = (OPERATIONS.index(name) for name in ("rotate", "translate_x"))
    both = (first.operation.numpy() == rotates) & (second.operation.numpy() == shifts)
    np.testing.assert_allclose(strengths[both], [[2 / 9, 1]] * both.sum(), atol=1e-6)
    assert both.mean() == pytest.approx(0.7 * 0.3 / 25, rel=0.15)
    # A level of `invert` is none: all is inverted. It is drawn with 0.1 of the first pair, and is never of the 15th.
    solarized = (first.operation.numpy() == OPERATIONS.index("solarize")) & (strengths[:, 0] == 1)
    assert solarized.mean() == pytest.approx(0.1 / 25, rel=0.25)
    assert abs(first.sign.numpy().mean()) < 0.03


@pytest.mark.parametrize(("name", "sum_of_chances", "sum_of_levels"), [("cifar10", 26.5, 187), ("imagenet", 31.0, 159)])
def test_auto_augments_table_is_whole(name, sum_of_chances, sum_of_levels):
    pairs = SUB_POLICIES[name]
    operations = [operation for pair in pairs for operation in pair]
    assert (len(pairs), len(operations)) == (25, 50)
    assert {one for one, _, _ in operations} <= {*OPERATIONS, "invert"} - {"identity"}
    assert sum(chance for _, chance, _ in operations) == pytest.approx(sum_of_chances)
    assert sum(level for _, _, level in operations) == sum_of_levels


def mixed(batch, **options):
    augment = compile_augmentations([("aug_mix", options)], 2, batch)
    return augment({key: tf.constant(value) for key, value in batch.items()}, tf.constant((3, 4)))


def test_aug_mix_blends_between_the_image_and_its_chains():
    image = np.stack(IMAGES[:1] * 64)
    changes = np.abs(mixed({"image": image})["image"].numpy() - image).mean(axis=(1, 2, 3))
    assert changes.min() < 2  # shares of Beta(1, 1) are even between 0 and 1
    assert changes.max() > 10
    weights = aug_mix._dirichlet(tf.constant((1, 2)), (3, 4000), 1.0).numpy()
    np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-5)
    assert weights.mean(axis=1) == pytest.approx(np.full(3, 1 / 3), abs=0.02)
    assert weights.var() == pytest.approx(1 / 18, rel=0.1)  # of a Dirichlet(1, 1, 1)


def test_aug_mix_keeps_pixels_where_masks_are():
    image = np.zeros((32, 20, 30, 3), np.uint8)
    image[:, 5:12, 8:20] = 90  # under auto-contrast, equalize, posterize and solarize an edge stays where it is
    mask = (image[..., 0] > 0).astype(np.int32)
    result = mixed({"image": image, "mask": mask}, depth=2)
    np.testing.assert_array_equal(result["mask"], mask)
    for picture, inside in zip(result["image"].numpy(), mask == 1, strict=True):
        assert np.ptp(picture[inside]) < 1e-3
        assert np.ptp(picture[~inside]) < 1e-3


def test_aug_mix_draws_chains_of_one_to_three():
    operations = np.stack([one.operation for one in aug_mix._draw(tf.constant((1, 2)), MOVES, (3, 6000), 3.0, 0)])
    lengths = (operations != OPERATIONS.index("identity")).sum(axis=0)
    assert np.bincount(lengths)[1:] == pytest.approx([2000] * 3, rel=0.1)
    assert np.all(operations[0] != 0)
    fixed = np.stack([one.operation for one in aug_mix._draw(tf.constant((1, 2)), MOVES, (2, 60), 3.0, 2)])
    assert np.all(fixed != 0)


def test_magnitude_zero_leaves_most_alone():
    image = np.stack(IMAGES[1:2] * 32)
    batch = {"image": tf.constant(image)}
    augment = compile_augmentations([("rand_augment", {"operations": 1, "magnitude": 0.0})], 2, ())
    result = augment(batch, tf.constant((0, 0)))["image"].numpy()
    changed = np.abs(result - image).max(axis=(1, 2, 3)) > 1
    assert changed.mean() < 0.35  # only equalize and auto-contrast have no magnitude


def test_fuses_with_neighbouring_motions():
    augment = compile_augmentations([("flip", {}), ("rand_augment", {})], 2, ())
    graph = tf.function(augment).get_concrete_function({"image": BATCH}, tf.constant((0, 0))).graph
    assert [op.type for op in graph.get_operations()].count("PartitionedCall") == 1  # the compiled warp


def test_magnitude_above_ten_is_refused():
    with pytest.raises(UserError, match="between 0 and 10, not 11"):
        compile_augmentations([("rand_augment", {"magnitude": 11})], 2, ())
