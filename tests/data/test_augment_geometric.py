"""Motions of pixels: hand-made matrices, and image, mask and boxes that stay together."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.augment import compile_augmentations
from pipeline.data.augment.geometric import draw_windows, matrices, rotate, warp
from pipeline.data.augment.sampling import sample
from pipeline.errors import UserError

MOVING = ["flip", "pad_crop", "random_resized_crop", "rotation", "shear", "translation", "zoom"]


def apply(augmentations, batch, seed=(0, 0)):
    return compile_augmentations(augmentations, 2, batch)(batch, tf.constant(seed, tf.int64))


def ramp(height=6, width=8):
    return np.arange(height * width, dtype=np.float32).reshape(1, height, width, 1)


def warped(image, **entries):
    return warp({"image": tf.constant(image)}, matrices(count=1, **entries), "black")["image"].numpy()


def test_mirrors():
    image = ramp()
    np.testing.assert_array_equal(warped(image, x=-1.0), image[:, :, ::-1])
    np.testing.assert_array_equal(warped(image, y=-1.0), image[:, ::-1])


def test_shift_says_where_pixels_come_from():
    image = ramp()
    shifted = warped(image, across=2.0)
    np.testing.assert_array_equal(shifted[:, :, :-2], image[:, :, 2:])
    np.testing.assert_array_equal(shifted[:, :, -2:], 0)


def test_quarter_turn():
    image = ramp(5, 5)
    turned = warp({"image": tf.constant(image)}, rotate(tf.constant([math.pi / 2])), "black")["image"].numpy()
    np.testing.assert_allclose(turned[0], np.rot90(image[0]), atol=1e-4)


def test_half_zoom_interpolates_about_the_centre():
    image = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)
    np.testing.assert_allclose(warped(image, x=0.5)[0, 0, :, 0], [0.75, 1.25, 1.75, 2.25])


def test_flip_twice_is_identity_and_half_are_flipped():
    image = np.random.default_rng(0).integers(0, 256, (200, 4, 6, 3), np.uint8)
    options = {"horizontal": True, "vertical": True}
    once = apply([("flip", options)], {"image": tf.constant(image)})
    kinds = [image, image[:, :, ::-1], image[:, ::-1], image[:, ::-1, ::-1]]
    same = np.stack([(once["image"].numpy() == kind).all(axis=(1, 2, 3)) for kind in kinds])
    assert (same.sum(axis=0) == 1).all()
    assert (same.sum(axis=1) > 25).all()
    twice = apply([("flip", options)], once)
    np.testing.assert_array_equal(twice["image"].numpy(), image)


def test_plain_flip_is_horizontal():
    image = np.random.default_rng(0).integers(0, 256, (50, 4, 6, 3), np.uint8)
    flipped = apply([("flip", {})], {"image": tf.constant(image)})["image"].numpy()
    mirrored = (flipped == image[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 10 < mirrored.sum() < 40
    np.testing.assert_array_equal(flipped[~mirrored], image[~mirrored])


def test_pad_crop_equals_numpy_and_reaches_every_offset():
    image = np.random.default_rng(0).integers(0, 256, (300, 5, 5, 1), np.uint8)
    cropped = apply([("pad_crop", {"pixels": 1})], {"image": tf.constant(image)})["image"].numpy()
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    offsets = [(y, x) for y in range(3) for x in range(3)]
    matches = np.stack([(cropped == padded[:, y : y + 5, x : x + 5]).all(axis=(1, 2, 3)) for y, x in offsets])
    assert (matches.sum(axis=0) == 1).all()
    assert (matches.sum(axis=1) > 10).all()


def test_fills():
    image = {"image": tf.fill((8, 10, 10, 1), 200.0)}
    for fill, dark in [("reflect", False), ("nearest", False), ("black", True)]:
        moved = apply([("rotation", {"degrees": 40.0, "fill": fill})], image)["image"].numpy()
        assert (moved.min() < 100) == dark


def test_fills_are_not_mixed_up():
    image = {"image": tf.fill((8, 10, 10, 1), 200.0)}
    chain = [("rotation", {"degrees": 40.0, "fill": "black"}), ("pad_crop", {"pixels": 4, "fill": "nearest"})]
    assert apply(chain, image)["image"].numpy()[:, 0].min() < 100
    assert apply(chain[1:], image)["image"].numpy().min() == 200


def test_consecutive_motions_are_one_warp():
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32))
    chain = [("rotation", {"degrees": 30.0}), ("zoom", {"amount": 0.3}), ("translation", {}), ("flip", {})]
    augment = compile_augmentations(chain, 2, ())
    graph = tf.function(augment).get_concrete_function({"image": image}, tf.constant((0, 0), tf.int64)).graph
    assert [op.type for op in graph.get_operations()].count("PartitionedCall") == 1  # the compiled warp


@pytest.mark.parametrize(("fill", "mode"), [("reflect", "REFLECT"), ("nearest", "NEAREST"), ("black", "CONSTANT")])
def test_agrees_with_tensorflows_own_warp(fill, mode):
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (3, 17, 22, 3), np.uint8))
    matrix = rotate(tf.constant([0.5, -2.0, 0.1])) @ matrices(count=3, x=1.3, slant_y=0.2, across=4.5, down=-3.0)
    centre = matrices(count=1, across=-10.5, down=-8.0)
    absolute = tf.linalg.inv(centre) @ matrix @ centre
    expected = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32),
        transforms=tf.reshape(absolute, (3, 9))[:, :8],
        output_shape=(17, 22),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=mode,
    )
    np.testing.assert_allclose(sample(image, matrix, fill=fill), expected, atol=0.05)


@pytest.mark.parametrize("fill", ["reflect", "nearest", "black"])
@pytest.mark.parametrize("nearest", [False, True])
def test_compiled_and_eager_sampling_agree(fill, nearest):
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (3, 17, 22, 3), np.uint8))
    matrix = rotate(tf.constant([0.5, -2.0, 0.1]))
    compiled = tf.function(lambda: sample(image, matrix, fill=fill, nearest=nearest))()
    np.testing.assert_allclose(compiled, sample(image, matrix, fill=fill, nearest=nearest), atol=0.05)


def test_order_of_motions():
    """A shift of ten columns and then a mirror: the bright column goes right, then left."""
    image = np.zeros((1, 3, 9, 1), np.float32)
    image[:, :, 6] = 255
    shift, mirror = matrices(count=1, across=-2.0), matrices(count=1, x=-1.0)
    moved = warp({"image": tf.constant(image)}, shift @ mirror, "black")["image"].numpy()
    assert moved[0, 0, :, 0].argmax() == 0  # 6 → 8 → 0


def marked(count=24, size=(60, 80), box=(0.3, 0.35, 0.6, 0.75)):
    """Batch of white rectangles on black, marked in the image, the mask and as a box."""
    top, left, bottom, right = (round(edge * side) for edge, side in zip(box, size * 2, strict=True))
    image = np.zeros((count, *size, 3), np.uint8)
    image[:, top:bottom, left:right] = 255
    exact = np.float32([top / size[0], left / size[1], bottom / size[0], right / size[1]])
    return {
        "image": tf.constant(image),
        "mask": tf.constant((image[..., 0] > 0).astype(np.int32)),
        "boxes": tf.tile(tf.constant([[exact, np.zeros(4, np.float32)]]), (count, 1, 1)),
        "classes": tf.tile(tf.constant([[0, -1]]), (count, 1)),
    }


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(MOVING), min_size=1, max_size=4), st.integers(0, 2**31))
def test_image_mask_and_box_stay_together(names, seed):
    result = {key: value.numpy() for key, value in apply([(n, {}) for n in names], marked(4), (seed, 1)).items()}
    for image, mask, boxes, classes in zip(*(result[k] for k in ("image", "mask", "boxes", "classes")), strict=True):
        assert classes[1] == -1
        white = image[..., 0] > 127
        disagree = white != (mask == 1)
        # The mask is sampled at the nearest pixel: only pixels next to an edge may differ.
        assert disagree.sum() <= 0.12 * max(white.sum(), 50)
        if classes[0] < 0:
            continue
        rows, columns = np.nonzero(mask == 1)
        seen = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
        box = boxes[0] * [60, 80, 60, 80]
        assert (box[:2] <= seen[:2] + 1.5).all()
        assert (box[2:] >= seen[2:] - 1.5).all()
        if boxes[0].min() > 0 and boxes[0].max() < 1:  # a turned rectangle whose corner is cut off has a looser box
            np.testing.assert_allclose(box, seen, atol=4)


def test_box_moves_by_hand():
    batch = {
        "image": tf.zeros((1, 10, 20, 1)),
        "boxes": tf.constant([[[0.1, 0.1, 0.5, 0.3], [0.0, 0.9, 0.5, 1.0]]]),
        "classes": tf.constant([[4, 5]]),
    }
    moved = warp(batch, matrices(count=1, across=-5.0))  # 5 pixels, a quarter of the width, to the right
    np.testing.assert_allclose(moved["boxes"].numpy()[0], [[0.1, 0.35, 0.5, 0.55], [0, 0, 0, 0]], atol=1e-6)
    assert moved["classes"].numpy().tolist() == [[4, -1]]


def test_boxes_are_clipped_and_dropped_when_little_remains():
    batch = {
        "image": tf.zeros((1, 10, 10, 1)),
        "boxes": tf.constant([[[0, 0, 0.5, 0.5]]]),
        "classes": tf.constant([[0]]),
    }
    kept = warp(batch, matrices(count=1, across=3.0))  # 2 of 5 columns stay
    np.testing.assert_allclose(kept["boxes"].numpy()[0, 0], [0, 0, 0.5, 0.2], atol=1e-6)
    assert warp(batch, matrices(count=1, across=4.5))["classes"].numpy().item() == -1


def test_boxes_are_never_reflected():
    batch = marked(1, box=(0.0, 0.0, 0.3, 0.3))
    moved = warp(batch, matrices(count=1, across=-20.0, down=-20.0), "reflect")
    assert moved["image"].numpy()[0, :20].max() == 0
    assert (moved["mask"].numpy()[0, :20] == 255).all()


def test_windows_have_the_drawn_area_and_lie_inside():
    seed = tf.constant((1, 2), tf.int64)
    drawn = draw_windows((500, 100, 200), seed, (0.1, 0.4), (0.75, 1.3333))
    top, left, height, width = (tensor.numpy() for tensor in drawn)
    share = height * width / 20000
    assert ((share > 0.099) & (share < 0.401)).all()
    assert ((width / height > 0.749) & (width / height < 1.334)).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 100.001).all()
    assert (left + width <= 200.001).all()
    assert np.std(top + height / 2) > 5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("random_resized_crop", {"scale": (0.5, 0.2)}),
        ("random_resized_crop", {"scale": (0, 1)}),
        ("shear", {"degrees": 45}),
    ],
)
def test_impossible_options_are_refused(name, options):
    with pytest.raises(UserError, match=name):
        compile_augmentations([(name, options)], 2, ())
