"""Progressive resizing: the phases of a run, one network at several sizes, and an exact continuation."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_loop import At
from tiny import CLASSES, SIZE, loop, runtime, weights

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.registry import MODELS, TASKS
from pipeline.sections.training import SizePhase
from pipeline.training.resizing import at_size, size_of
from pipeline.training.setup import build_batches, open_task, prepare_splits

PHASES = [SizePhase(size=(4, 4), share=0.3), SizePhase(size=(6, 6), share=0.3)]
TASK = TASKS.build("classification", ("red", "green", "blue"), None)


@pytest.mark.parametrize(
    ("epochs", "expected"), [(10, "4446668888"), (3, "468"), (2, "48"), (1, "8"), (5, "44688")], ids=str
)
def test_phases_are_shares_of_the_epochs(epochs, expected):
    sizes = [size_of(epoch, epochs, PHASES) or (SIZE, SIZE) for epoch in range(epochs)]
    assert "".join(str(height) for height, _ in sizes) == expected


def test_a_network_at_another_size_has_the_same_variables():
    small, large = (MODELS.build("resnet8", (side, side, 3), CLASSES) for side in (16, 32))
    small.set_weights(large.get_weights())
    other = at_size(large, (16, 16), TASK)
    assert [id(one) for one in other.trainable_variables] == [id(one) for one in large.trainable_variables]
    image = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(other(image), small(image), rtol=1e-5, atol=1e-6)
    assert large(tf.zeros((1, 32, 32, 3))).shape == (1, CLASSES)


@pytest.mark.parametrize("name", ["simple_cnn", "vit_micro_16"])
def test_a_network_of_one_size_is_refused(name):
    model = MODELS.build(name, (32, 32, 3), CLASSES)
    with pytest.raises(UserError, match=r"works at 32 × 32 pixels only, not at 16 × 16; take a network"):
        at_size(model, (16, 16), TASK)
    with pytest.raises(UserError, match=r"64 × 64 is larger than data.image_size"):
        at_size(model, (64, 64), TASK)


def growing(folder, choices=None, **settings):
    """Return the tiny loop for three epochs, at 4, 6 and 8 pixels, with everything a resumed run has to find again."""
    settings = {"epochs": 3, "keep": "last", "ema": 0.9, "checkpoint_minutes": 1e-9, **settings}
    choices = choices or runtime(cpu_ops=True, steps_per_call=2)
    it = loop(folder, network={"dropout": 0.2}, choices=choices, **settings)
    whole, steps = it.batches.training, it.batches.steps_per_epoch
    sizes = [(4, 4), (6, 6), None]

    def training(step):
        size = sizes[step // steps] or (SIZE, SIZE)
        return whole(step).map(lambda x, y: (tf.image.resize(x, size, antialias=True), y)).take(steps - step % steps)

    it.batches = replace(it.batches, training=training, size_of=sizes.__getitem__)
    return it


def test_it_learns_traces_once_for_each_size_and_resumes_exactly(tmp_path, monkeypatch):
    seen, original = [], keras.Model.__call__
    monkeypatch.setattr(keras.Model, "__call__", lambda net, x, **k: seen.append(x.shape[1]) or original(net, x, **k))
    it = growing(tmp_path / "whole")
    rows = it.run()
    assert dict.fromkeys(seen) == dict.fromkeys((4, 8, 6))  # validation is at 8 from the first epoch on
    assert len(seen) <= 8  # autograph may visit a loop's body twice
    assert [row["step"] for row in rows] == [6, 12, 18]

    def stop():
        raise KeyboardInterrupt

    for step in (4, 8, 14):  # once in each phase
        with pytest.raises(KeyboardInterrupt):
            growing(tmp_path / "cut", callbacks=(At(step, stop),)).run()
    resumed = growing(tmp_path / "cut")
    assert [row["val_loss"] for row in resumed.run()] == [row["val_loss"] for row in rows]
    for a, b in zip(weights(it.model), weights(resumed.model), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("choices", "settings"),
    [
        ({"xla": True}, {"sharpness": 0.05}),
        ({"precision": "mixed_bfloat16"}, {"lookahead": (4, 0.5)}),
        ({"strategy": "mirrored"}, {}),
    ],
    ids=str,
)
def test_it_goes_with_the_rest_of_training(tmp_path, choices, settings):
    if "strategy" in choices:
        choices = {"strategy": tf.distribute.MirroredStrategy(["CPU:0"])}
    rows = growing(tmp_path, runtime(**choices), **settings).run()
    assert len(rows) == 3
    assert all(np.isfinite(row["loss"]) for row in rows)


@pytest.mark.parametrize("preset", ["digits", "scenes_segmentation"])
def test_batches_shrink_with_their_phase(preset):
    sizes = "train.curriculum.sizes=[{size: [16, 12], share: 0.5}]"
    experiment = Experiment.load(preset, [sizes, "train.epochs=4", "data.augment=[]", "data.batch_size=32"])
    if preset == "scenes_segmentation":
        experiment = experiment.replace(["data.source.train=96", "data.source.validation=8"])
    source, task = open_task(experiment)
    batches = build_batches(experiment, task, prepare_splits(experiment, source, task))
    steps = batches.steps_per_epoch
    assert [batches.size_of(epoch) for epoch in range(4)] == [(16, 12), (16, 12), None, None]
    assert int(batches.training(1).cardinality()) == 2 * steps - 1
    assert int(batches.training(2 * steps).cardinality()) == 2 * steps
    image, y = batches.training(1).element_spec
    assert image.shape[1:3] == (16, 12)
    if preset == "scenes_segmentation":
        assert y.shape[1:3] == (16, 12)
    assert next(iter(batches.training(2 * steps)))[0].shape[1:3] == experiment.data.image_size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{sizes: [{size: [16, 16], share: 0.5}, {size: [24, 24], share: 0.5}]}", "give less than 1"),
        ("{sizes: [{size: [0, 16], share: 0.5}]}", "greater than 0"),
        ("{size: [16, 16]}", "did you mean 'sizes'"),
    ],
)
def test_a_wrong_curriculum_is_one_sentence(value, message):
    with pytest.raises(UserError, match=message):
        Experiment.load("digits", [f"train.curriculum={value}"])
