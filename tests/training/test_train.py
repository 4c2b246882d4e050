import csv
import hashlib
import logging
import signal

import keras
import numpy as np
import pytest

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.training import setup
from pipeline.training.train import train


def experiment(**changes) -> Experiment:
    values = {
        "data": {"source": "digits", "image_size": [16, 16], "channels": 1, "batch_size": 128},
        "model": {"name": "simple_cnn", "filters": [4, 8], "units": 8},
        "train": {"epochs": 1},
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    return Experiment.parse(values, "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(experiment(train__epochs=2), tmp_path_factory.mktemp("runs") / "digits")


def test_a_finished_run_has_everything(run):
    assert run.finished
    assert run.classes == tuple("0123456789")
    assert run.facts["runtime"]["precision"] == "float32"
    assert run.facts["images"] == {"train": 808, "validation": 90}
    with run.history_path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) >= {"step", "learning_rate", "seconds", "images_per_second", "loss", "val_accuracy"}


def test_the_model_is_plain_keras(run):
    model = keras.models.load_model(run.model_path, safe_mode=True)
    assert model.input_shape == (None, 16, 16, 1)
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert model.predict(np.zeros((1, 16, 16, 1), np.float32), verbose=0).shape == (1, 10)


def test_a_finished_run_is_left_alone_unless_forced(run, caplog):
    before = run.model_path.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert train(experiment(train__epochs=2), run.path) == run
    assert "has finished training already; --force trains it again" in caplog.text
    with pytest.raises(UserError, match=r"train.epochs"):
        train(experiment(train__epochs=1), run.path)
    assert run.model_path.stat().st_mtime_ns == before
    forced = train(experiment(train__epochs=1), run.path, force=True)
    assert len(forced.history_path.read_text().splitlines()) == 2


@pytest.fixture(scope="module")
def learned(run, tmp_path_factory):
    """A run from the first one's weights, whose features are frozen."""
    changed = experiment(train__epochs=2, transfer={"base": str(run.path), "every": None})
    return train(changed, tmp_path_factory.mktemp("runs") / "learned")


def test_a_transfer_keeps_the_features_and_says_where_they_are_from(run, learned):
    before, after = (keras.models.load_model(each.model_path) for each in (run, learned))
    for layer in before.layers:
        same = all(
            (a == b).all() for a, b in zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True)
        )
        assert same == (layer.name != "logits")
    assert all(layer.trainable for layer in after.layers)
    digest = hashlib.sha256(run.model_path.read_bytes()).hexdigest()
    assert learned.facts["base"] == {"path": str(run.path), "model_sha256": digest}


def test_a_run_may_start_from_a_file(run, tmp_path):
    slow = {"base": str(run.model_path), "head_epochs": 0, "every": 0, "factor": 1e-4}
    found = train(experiment(transfer=slow), tmp_path / "run")
    before, after = (keras.models.load_model(each.model_path).get_layer("conv1_conv") for each in (run, found))
    moved = np.abs(after.kernel.numpy() - before.kernel.numpy())
    assert 0 < moved.max() < 1e-5  # six steps of Adam at 1e-3 times 1e-4


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("gone", {}, r"^there is no transfer.base at .*gone; give a finished run or a .keras file$"),
        ("", {}, r"is not a run \(it has no experiment.yaml\)"),
        ("text.keras", {}, r"text.keras cannot be read as a Keras model \("),
        ("digits", {"data__channels": 3}, r"learned from images of 1 channels; set data.channels=1"),
        ("digits", {"model": "lenet5"}, r"holds another architecture \(simple_cnn, here lenet5\)"),
    ],
)
def test_a_base_that_does_not_fit_leaves_nothing_behind(tmp_path, run, base, changes, message):
    (tmp_path / "text.keras").write_text("weights")
    path = run.path if base == "digits" else tmp_path / base
    changed = experiment(**changes, train__epochs=6, transfer={"base": str(path)})
    with pytest.raises(UserError, match=message):
        train(changed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fold_cannot_start_from_a_run_that_saw_what_it_holds_out(tmp_path, run):
    settings = {
        "transfer": {"base": str(run.path), "every": None},
        "data__folds": {"of": 5, "index": 0},
        "train__epochs": 2,
    }
    with pytest.raises(UserError, match=r"may have seen the images that data.folds holds out; start from another base"):
        train(experiment(**settings), tmp_path / "fold")
    assert not (tmp_path / "fold").exists()


def test_a_run_cannot_start_from_itself(run):
    changed = experiment(train__epochs=6, transfer={"base": str(run.path)})
    with pytest.raises(UserError, match="is the run to start from; give another --run"):
        train(changed, run.path, force=True)
    assert run.finished


def test_progress_is_told_in_plain_lines(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="pipeline"):
        train(experiment(), tmp_path / "run")
    lines = "\n".join(caplog.messages)
    assert "runtime: 1 × CPU, float32, no XLA, fused batch norm, oneDNN" in lines
    assert "training simple_cnn: 1 epochs of 6 steps, 128 images each" in lines
    assert "epoch 1/1: loss" in lines
    assert "images/s" in lines


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_run_is_saved_in_float32(tmp_path, precision):
    run = train(experiment(train__precision=precision), tmp_path / "run")
    model = keras.models.load_model(run.model_path)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_accumulation_and_tensorboard(tmp_path):
    run = train(experiment(train__accumulate=2, train__tensorboard=True), tmp_path / "run")
    with run.history_path.open() as file:
        assert next(csv.DictReader(file))["step"] == "3"
    assert {path.name for path in (run.path / "tensorboard").iterdir()} == {"train", "validation"}


def test_segmentation_trains(tmp_path):
    source = {"name": "scenes", "size": [32, 32], "train": 32, "validation": 16, "test": 16}
    data = {"source": source, "image_size": [32, 32], "batch_size": 8}
    run = train(
        experiment(data=data, task="segmentation", model={"name": "unet", "backbone": "resnet8"}), tmp_path / "run"
    )
    with run.history_path.open() as file:
        assert float(next(csv.DictReader(file))["val_mean_iou"]) >= 0


def test_a_task_that_needs_masks_from_a_source_without(tmp_path):
    with pytest.raises(UserError, match=r"segmentation needs mask, but the source digits gives only label; choose"):
        train(experiment(task="segmentation", model={"name": "unet", "backbone": "resnet8"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_stopped_at_its_very_last_step_is_finished_by_the_same_command(tmp_path, run, monkeypatch):
    ended = []

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch + 1 == 2 * self.params["steps"]:
                signal.raise_signal(signal.SIGINT)

        def on_train_end(self, logs=None):
            ended.append(True)

    standard = setup.standard_callbacks
    monkeypatch.setattr(setup, "standard_callbacks", lambda tensorboard: [*standard(tensorboard), Interrupt()])
    one = experiment(train__epochs=2)
    with pytest.raises(UserError, match="continue with the same command"):
        train(one, tmp_path / "run")
    assert ended, "the progress bar stays in the terminal"
    monkeypatch.undo()
    weights = [
        keras.saving.load_model(done.model_path).get_weights()
        for done in (train(one, tmp_path / "run"), train(one, tmp_path / "whole"))
    ]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*weights, strict=True))


def test_a_loss_that_is_not_finite_keeps_the_run_resumable(tmp_path):
    wild = {"name": "sgd", "learning_rate": 1e38}
    with pytest.raises(UserError, match="the loss is not finite in epoch 1, step"):
        train(experiment(train__optimizer=wild), tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()
