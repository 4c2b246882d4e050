"""Every registered augmentation keeps shapes, ranges and promises, eagerly and inside tf.data."""

import numpy as np
import pytest
import tensorflow as tf

from pipeline.data.augment import compile_augmentations
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS

NAMES = AUGMENTATIONS.names()
MIXING = {"mixup", "cutmix"}
CLASSES = 5
FIELDS = [(), ("mask",), ("boxes",)]


def make_batch(fields=(), channels=3, count=6, size=(24, 20), seed=0):
    rng = np.random.default_rng(seed)
    batch = {"image": rng.integers(0, 256, (count, *size, channels), np.uint8)}
    batch["label"] = (np.arange(count) % CLASSES).astype(np.int32)
    if "mask" in fields:
        batch["mask"] = rng.integers(0, CLASSES, (count, *size)).astype(np.int32)
    if "boxes" in fields:
        batch["boxes"] = np.tile(np.float32([[0.2, 0.3, 0.7, 0.8], [0, 0, 0, 0]]), (count, 1, 1))
        batch["classes"] = np.tile(np.int32([1, -1]), (count, 1))
    return {key: tf.constant(value) for key, value in batch.items()}


def run(names, batch, seed=(3, 4), classes=CLASSES):
    augmentations = [(name, {}) if isinstance(name, str) else name for name in names]
    return compile_augmentations(augmentations, classes, batch)(batch, tf.constant(seed, tf.int64))


def test_all_are_registered():
    assert len(NAMES) == 28
    assert set(NAMES) >= {"flip", "pad_crop", "random_resized_crop", "mixup", "cutmix", "rand_augment"}
    assert all(AUGMENTATIONS.describe(name).endswith(".") for name in NAMES)


@pytest.mark.parametrize("fields", FIELDS, ids=["image", "mask", "boxes"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_ranges(name, channels, fields):
    batch = make_batch(fields, channels)
    if name in MIXING and fields:
        with pytest.raises(UserError, match=rf"data\.augment: {name} .*{fields[0]}.*leave it out"):
            run([name], batch)
        return
    result = run([name], batch)
    assert result["image"].shape == batch["image"].shape
    assert result["image"].dtype == tf.float32
    assert 0 <= result["image"].numpy().min() <= result["image"].numpy().max() <= 255
    assert result.keys() == batch.keys()
    for field in {*batch} - {"image", "label"}:
        assert (result[field].shape, result[field].dtype) == (batch[field].shape, batch[field].dtype)
    if "mask" in fields:
        assert set(np.unique(result["mask"])) <= {*range(CLASSES), 255}
    if "boxes" in fields:
        boxes, classes = result["boxes"].numpy(), result["classes"].numpy()
        assert np.all((boxes >= 0) & (boxes <= 1))
        assert np.all(boxes[classes < 0] == 0)
        assert np.all(boxes[classes >= 0][:, 2:] > boxes[classes >= 0][:, :2])
        assert np.all(classes[:, 1] == -1)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_and_another_another(name):
    batch = make_batch(count=16)
    first, again, other = (run([name], batch, seed)["image"].numpy() for seed in [(7, 1), (7, 1), (7, 2)])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", NAMES)
def test_eager_and_dataset_agree(name):
    fields = () if name in MIXING else ("mask", "boxes")
    batch = make_batch(fields)
    augment = compile_augmentations([(name, {})], CLASSES, batch)
    seed = tf.constant((5, 6), tf.int64)
    dataset = tf.data.Dataset.from_tensors((batch, seed)).map(augment)
    eager, [graph] = augment(batch, seed), list(dataset)
    assert all(spec.shape.is_fully_defined() for spec in dataset.element_spec.values())
    for key in eager:
        differs = ~np.isclose(eager[key].numpy(), graph[key].numpy(), atol=0.05)
        # A position halfway between two pixels of a mask may be rounded either way.
        assert differs.mean() <= (0.01 if key == "mask" else 0), key


def test_mixing_needs_labels():
    batch = make_batch()
    del batch["label"]
    with pytest.raises(UserError, match="these samples have none"):
        run(["mixup"], batch)


def test_all_in_a_row():
    result = run([name for name in NAMES if name not in MIXING], make_batch(("mask", "boxes")))
    assert np.isfinite(result["image"].numpy()).all()


def test_nothing_changes_nothing():
    batch = make_batch(("mask", "boxes"))
    for key, value in run([], batch).items():
        np.testing.assert_array_equal(value.numpy(), batch[key].numpy())
