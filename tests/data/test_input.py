"""Batches: every order, resume at any step, padding, and images that cannot be read."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.batches import Indexed, Memory, Streamed
from pipeline.data.input import prepare
from pipeline.data.preprocess import Preprocess
from pipeline.data.source import Split
from pipeline.data.verify import _aligned, _compact, _shared
from pipeline.errors import UserError

SIZE = (12, 10)
COUNT = 23
AUGMENT = [("flip", {}), ("rotation", {"fill": "black"}), ("contrast", {}), ("random_erasing", {"probability": 0.5})]
KINDS = {
    "memory": ("load", 2**30, Memory),
    "memory_of_stream": ("stream", 2**30, Memory),
    "indexed": ("load", 0, Indexed),
    "streamed": ("stream", 0, Streamed),
}


def jpegs(count=COUNT, seed=0):
    """Smooth pictures, so that JPEG and resizing keep their mean."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 3, 4, 3))
    return [tf.io.encode_jpeg(np.kron(one, np.ones((8, 8, 1))).astype(np.uint8)).numpy() for one in coarse]


def make_split(kind="load", files=None, fields=("label",), refused=None):
    files = jpegs() if files is None else files
    encoded = tf.constant(files)
    ids = tf.constant([f"{index:02}.jpg" for index in range(len(files))])

    def load(index):
        index = tf.cast(index, tf.int32)
        sample = {"image": tf.gather(encoded, index), "id": tf.gather(ids, index), "orientation": tf.constant(1)}
        if "label" in fields:
            sample["label"] = index
        if "mask" in fields:
            sample["mask"] = tf.fill((24, 32), index)
        if "boxes" in fields:
            boxes = index % 3  # 0, 1 or 2 of them
            sample["boxes"] = tf.tile([[0.25, 0.1, 0.75, 0.4]], (boxes, 1))
            sample["classes"] = tf.fill((boxes,), index)
        return sample

    if kind == "load":
        return Split(len(files), load=load, refused=refused)
    return Split(len(files), stream=lambda: tf.data.Dataset.range(len(files)).map(load), refused=refused)


def make(kind="memory", files=None, fields=("label",), channels=3, max_corrupt=0.0, classes=COUNT, refused=None):
    access, cache_bytes, reader = KINDS[kind]
    prepared = prepare(
        make_split(access, files, fields, refused),
        Preprocess(SIZE, channels),
        fields=fields,
        classes=classes,
        cache_bytes=cache_bytes,
        max_corrupt=max_corrupt,
        name="train",
    )
    assert isinstance(prepared.reader, reader)
    return prepared


def label(batch):
    return batch["label"]


def batches(prepared, start=0, stop=12, size=5, augment=AUGMENT, seed=1, encode=label):
    dataset = prepared.training(
        batch_size=size, augment=augment, seed=seed, start_step=start, total_steps=stop, encode=encode
    )
    return list(dataset.as_numpy_iterator())


def visited(prepared, epoch, size, **options):
    steps = prepared.steps_per_epoch(size)
    some = batches(prepared, epoch * steps, (epoch + 1) * steps, size, augment=[], **options)
    return np.concatenate([y for _, y in some])


@pytest.fixture(scope="module", params=KINDS)
def prepared(request):
    return make(request.param)


@pytest.fixture(scope="module")
def whole_runs():
    prepared = {kind: make(kind) for kind in KINDS}
    return {kind: (one, batches(one)) for kind, one in prepared.items()}


def assert_equal_batches(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


@settings(max_examples=6, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), start=st.integers(0, 12))
def test_resume_at_any_step_is_bit_for_bit(whole_runs, kind, start):
    prepared, whole = whole_runs[kind]
    assert_equal_batches(batches(prepared, start), whole[start:])


def test_another_seed_gives_other_batches(whole_runs):
    for prepared, whole in whole_runs.values():
        assert not np.array_equal(whole[0][0], batches(prepared, stop=1, seed=2)[0][0])


@pytest.mark.parametrize("seed", [0, 7])
def test_the_global_seed_changes_nothing(whole_runs, seed):
    try:
        tf.random.set_seed(seed)
        for prepared, whole in whole_runs.values():
            np.testing.assert_array_equal(batches(prepared, stop=1)[0][0], whole[0][0])
    finally:
        tf.random.set_seed(1)


EXACT = [("flip", {}), ("pad_crop", {"pixels": 2}), ("contrast", {}), ("random_erasing", {"probability": 0.5})]


def test_the_cache_changes_nothing(whole_runs):
    ours, theirs = (batches(whole_runs[kind][0], augment=EXACT) for kind in ("memory", "indexed"))
    assert_equal_batches(ours, theirs)


@pytest.mark.parametrize(
    "augment", [[("rotation", {})], [("random_resized_crop", {"scale": (0.3, 1.0)}), ("flip", {})]]
)
def test_quick_decoding_gives_nearly_the_same_pictures(augment):
    files = jpegs(10)
    files[3] = tf.io.encode_png(tf.io.decode_jpeg(files[3])).numpy()
    prepared = [make(kind, files) for kind in ("memory", "indexed")]
    exact, quick = (batches(one, stop=2, augment=augment) for one in prepared)
    assert_equal_batches(quick[1:], batches(prepared[1], 1, 2, augment=augment))
    for (x, y), (quick_x, quick_y) in zip(exact, quick, strict=True):
        np.testing.assert_array_equal(y, quick_y)
        assert np.abs(x - quick_x).mean() < 12
        assert np.abs(x - quick_x[::-1]).mean() > 30


def test_large_images_are_decoded_at_the_scale_that_suffices():
    rng = np.random.default_rng(0)
    pictures = np.kron(rng.integers(0, 256, (4, 5, 4, 3)), np.ones((1, 20, 20, 1))).astype(np.uint8)
    files = [tf.io.encode_jpeg(one).numpy() for one in pictures]
    options = {"stop": 1, "size": 4, "augment": [("zoom", {"amount": 0.0})]}
    [(x, y)], [(quick, quick_y)] = (batches(make(kind, files), **options) for kind in ("memory", "indexed"))
    np.testing.assert_array_equal(y, quick_y)
    assert np.abs(x - quick).mean() < 12
    assert np.abs(x - quick[::-1]).mean() > 30


def test_shapes_are_static(prepared):
    x, y = prepared.training(
        batch_size=5, augment=AUGMENT, seed=0, start_step=0, total_steps=3, encode=label
    ).element_spec
    assert (x.shape, x.dtype) == ((5, *SIZE, 3), tf.float32)
    assert y.shape == (5,)


def test_an_epoch_visits_every_sample_once_and_epochs_differ():
    for kind in KINDS:
        prepared = make(kind, jpegs(20))
        epochs = [visited(prepared, number, 5) for number in range(3)]
        for order in epochs:
            assert sorted(order) == list(range(20)), kind
        assert not np.array_equal(epochs[0], epochs[1])
        assert not np.array_equal(epochs[1], epochs[2])


def test_an_odd_rest_is_left_out_and_differs(prepared):
    assert prepared.steps_per_epoch(5) == 4
    left_out = [set(range(COUNT)) - set(visited(prepared, number, 5)) for number in range(3)]
    assert [len(rest) for rest in left_out] == [3, 3, 3]
    assert left_out[0] != left_out[1] or left_out[1] != left_out[2]


def test_a_split_smaller_than_a_batch_is_gone_through_again(prepared):
    assert prepared.steps_per_epoch(50) == 1
    counts = np.bincount(visited(prepared, 1, 50), minlength=COUNT)
    assert set(counts) == {2, 3}


def test_pictures_follow_their_labels(prepared):
    expected = [tf.reduce_mean(tf.cast(tf.io.decode_jpeg(one), tf.float32)) for one in jpegs()]
    for x, y in batches(prepared, stop=4, augment=[("flip", {})]):
        np.testing.assert_allclose(x.mean((1, 2, 3)), np.array(expected)[y], atol=3)


def test_mixed_labels_reach_the_task(prepared):
    [(_, y)] = batches(prepared, stop=1, augment=[("mixup", {})])
    assert y.shape == (5, COUNT)
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-6)


def test_mixing_masks_is_refused_before_the_first_batch():
    with pytest.raises(UserError, match="mixup mixes whole labels and cannot mix mask; leave it out"):
        batches(make(fields=("mask",)), augment=[("mixup", {})], encode=lambda batch: batch["mask"])


def test_evaluation_is_in_order_and_padded(prepared):
    dataset = prepared.evaluation(8, label)
    spec = dataset.element_spec
    assert spec["image"].shape == (8, *SIZE, 3)
    assert {name: one.shape for name, one in spec.items() if name != "image"} == dict(y=(8,), weight=(8,), id=(8,))
    seen = list(dataset.as_numpy_iterator())
    assert len(seen) == 3
    weight = np.concatenate([batch["weight"] for batch in seen])
    assert weight.tolist() == [1] * 23 + [0]
    assert np.concatenate([batch["y"] for batch in seen])[:23].tolist() == list(range(23))
    assert [one.decode() for one in seen[0]["id"]] == [f"{index:02}.jpg" for index in range(8)]
    expected = Preprocess(SIZE).read(tf.constant(jpegs()[9]))
    np.testing.assert_array_equal(seen[1]["image"][1], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_masks(kind):
    prepared = make(kind, fields=("mask",))
    for x, y in batches(prepared, stop=2, encode=lambda batch: batch["mask"]):
        assert y.shape == (5, *SIZE)
        assert y.dtype == np.int32
        assert all(len(set(np.unique(one)) - {255}) <= 1 for one in y)  # nothing of another picture's
        assert x.shape == (5, *SIZE, 3)
    [batch] = prepared.evaluation(COUNT, lambda batch: batch["mask"]).as_numpy_iterator()
    assert (batch["y"] == np.arange(COUNT)[:, None, None]).all()


def test_masks_of_many_classes_are_not_cut_to_a_byte():
    files = jpegs(3) * 100
    prepared = make(files=files, fields=("mask",), classes=300)
    [batch] = prepared.evaluation(300, lambda batch: batch["mask"]).as_numpy_iterator()
    assert batch["y"].max() == 299


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_padded(kind):
    def encode(batch):
        return {"boxes": batch["boxes"], "classes": batch["classes"]}

    prepared = make(kind, fields=("boxes",))
    [batch] = prepared.evaluation(COUNT, encode).as_numpy_iterator()
    assert batch["y"]["boxes"].shape == (COUNT, 2, 4)
    expected = [[-1, -1], [1, -1], [2, 2]]
    assert batch["y"]["classes"][:3].tolist() == expected
    assert (batch["y"]["boxes"][batch["y"]["classes"] < 0] == 0).all()
    flipped = batches(prepared, stop=2, augment=[("flip", {})], encode=encode)
    moved = np.concatenate([y["boxes"][y["classes"] >= 0] for _, y in flipped])
    mirrored = moved[:, 1] > 0.5
    assert 0 < mirrored.sum() < len(moved)
    np.testing.assert_allclose(moved[~mirrored], np.tile([0.25, 0.1, 0.75, 0.4], (sum(~mirrored), 1)), atol=1e-5)
    np.testing.assert_allclose(moved[mirrored], np.tile([0.25, 0.6, 0.75, 0.9], (sum(mirrored), 1)), atol=1e-5)


def test_grey_images():
    [(x, _)] = batches(make(channels=1), stop=1)
    assert x.shape == (5, *SIZE, 1)


def test_cache_budget_is_exact(caplog):
    caplog.set_level(logging.INFO)
    needed = COUNT * SIZE[0] * SIZE[1] * 4  # three channels and a mask of bytes
    for cache_bytes, reader in [(needed, Memory), (needed - 1, Indexed)]:
        options = {"fields": ("mask",), "classes": 3, "max_corrupt": 0.0, "name": "train"}
        prepared = prepare(make_split(fields=("mask",)), Preprocess(SIZE), cache_bytes=cache_bytes, **options)
        assert isinstance(prepared.reader, reader)
    assert caplog.messages == ["train: 23 images, decoded anew in every epoch: they do not fit data.cache_mb"]
    assert prepared.note == caplog.messages[0]


def test_the_last_image_of_a_stream_may_be_damaged():
    prepared = make("streamed", [*jpegs()[:-1], b"cut"], max_corrupt=0.2)
    assert len(prepared.corrupt) == 1
    assert set(visited(prepared, 0, 11)) == set(range(22))


def test_mask_indices_beyond_a_byte_are_no_class_whether_cached_or_not():
    assert _compact({"mask": np.array([[0, 255], [256, 65535]])}, 3)["mask"].tolist() == [[0, 255], [254, 254]]


def damaged():
    files = jpegs()
    files[4] = files[4][: len(files[4]) * 2 // 3]
    files[9] = b""
    files[17] = b"just some text in a file named .jpg"
    return files


@pytest.mark.parametrize("kind", KINDS)
def test_corrupt_images_are_left_out_counted_and_named(kind, caplog):
    caplog.set_level(logging.INFO)
    prepared = make(kind, damaged(), max_corrupt=0.2)
    assert prepared.count == 20
    assert prepared.corrupt == ("04.jpg", "09.jpg", "17.jpg")
    assert caplog.messages[0] == (
        "3 of 23 images of train (13.0%) cannot be used: 04.jpg is damaged or cut short; "
        "09.jpg is damaged or cut short; 17.jpg is damaged or cut short; they are left out."
    )
    assert set(visited(prepared, 0, 5)) == set(range(23)) - {4, 9, 17}
    seen = list(prepared.evaluation(20, label).as_numpy_iterator())
    assert [one["y"].tolist() for one in seen] == [sorted(set(range(23)) - {4, 9, 17})]


def test_refused_files_count(caplog):
    caplog.set_level(logging.INFO)
    refused = {"a.png": "has more pixels than the limit", "b.png": "is empty (0 bytes)"}
    prepared = make(files=damaged(), refused=refused, max_corrupt=0.25)
    assert prepared.corrupt == ("a.png", "b.png", "04.jpg", "09.jpg", "17.jpg")
    assert "5 of 25 images of train (20.0%)" in caplog.text
    assert "a.png has more pixels than the limit; b.png is empty (0 bytes); 04.jpg is" in caplog.text
    assert "; and 2 more; they are left out." in caplog.text


@pytest.mark.parametrize("kind", ["memory", "indexed"])
def test_too_many_corrupt_images_are_an_error(kind):
    with pytest.raises(UserError) as caught:
        make(kind, damaged(), max_corrupt=0.1)
    message = str(caught.value)
    assert message.startswith("3 of 23 images of train (13.0%) cannot be used: 04.jpg is damaged or cut short;")
    assert message.endswith("more than data.max_corrupt (10.0%) allows; mend or remove them, or raise it.")


def test_nothing_left_is_an_error():
    with pytest.raises(UserError, match="Nothing is left of train; check data"):
        make(files=[b"", b"text"], max_corrupt=1.0)


def test_an_empty_split_is_an_error():
    with pytest.raises(UserError, match="'train' is empty"):
        make(files=[])


def test_the_cache_is_not_copied():
    array = _aligned((4, 5, 6, 3), np.dtype(np.uint8))
    array[:] = 7
    tensor = _shared(array[:3])
    array[0, 0, 0, 0] = 9
    assert tensor.shape == (3, 5, 6, 3)
    assert tensor[0, 0, 0, 0].numpy() == 9
