import errno
import os

import keras
import numpy as np
import pytest
from tiny import loop, weights

from pipeline.errors import UserError
from pipeline.training.checkpoint import Checkpoints, Progress


def variables(value: float) -> list[keras.Variable]:
    return [keras.Variable(np.full(shape, value, "float32")) for shape in ((3,), (2, 2), ())]


def values(state: list[keras.Variable]) -> list[float]:
    return [float(np.mean(variable.numpy())) for variable in state]


def test_a_state_comes_back_whole(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), variables(1.5)
    progress = Progress(seed=3, step=7, seconds=1.25, rows=[{"epoch": 1, "val_loss": 0.1}])
    checkpoints.save(progress, state)
    other = variables(0.0)
    assert Checkpoints(tmp_path).restore(other) == progress
    assert values(other) == [1.5] * 3


def test_nothing_there_is_no_state(tmp_path):
    assert Checkpoints(tmp_path / "none").restore(variables(0)) is None


def test_the_two_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10, 9999, 12345678):
        checkpoints.save(Progress(0, step), variables(step))
        checkpoints.save_best(step, variables(step))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best-00009999.npz", "best-12345678.npz", "last-00009999.npz", "last-12345678.npz"]


@pytest.mark.parametrize("damage", ["cut", "empty", "one byte changed"])
def test_a_damaged_file_falls_back_to_the_one_before(tmp_path, damage, caplog):
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10):
        checkpoints.save(Progress(0, step), variables(step))
    newest = tmp_path / "last-00000010.npz"
    content = newest.read_bytes()
    inside = content.index(np.full(3, 10, "float32").tobytes())
    changed = content[:inside] + b"\1" + content[inside + 1 :]
    newest.write_bytes({"cut": content[:inside], "empty": b"", "one byte changed": changed}[damage])
    state = variables(0)
    assert checkpoints.restore(state).step == 5
    assert values(state) == [5] * 3
    assert "last-00000010.npz is damaged" in caplog.text
    assert not newest.exists()


def test_half_written_leftovers_are_removed(tmp_path):
    (tmp_path / ".last-00000010.abc.npz").write_bytes(b"PK")
    assert Checkpoints(tmp_path).restore(variables(0)) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_of_a_later_time_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Progress(0, 5, rows=[{"epoch": 1}]), variables(5))
    for epoch in (1, 2):
        checkpoints.save_best(epoch, variables(epoch))
    checkpoints.restore(variables(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-00000001.npz", "last-00000005.npz"]


def test_another_models_state_is_refused(tmp_path):
    Checkpoints(tmp_path).save(Progress(0), variables(1))
    with pytest.raises(UserError, match=r"last-00000000.npz does not fit this experiment's model.*--force"):
        Checkpoints(tmp_path).restore(variables(1)[:2])


def test_a_missing_best_is_told(tmp_path):
    with pytest.raises(UserError, match=r"best-00000004.npz, the weights of the best epoch, is missing"):
        Checkpoints(tmp_path).restore_best(4, variables(1))


def test_a_worker_that_is_not_chief_writes_nothing(tmp_path):
    Checkpoints(tmp_path, writes=False).save(Progress(0), variables(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, monkeypatch, code):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Progress(0, 5), variables(5))
    original = np.savez

    def half(path, **arrays):
        original(path, **arrays)
        os.truncate(path, 100)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(
        UserError, match=r"last-00000010.npz cannot be written \(.*\); what was saved before is unchang"
    ):
        checkpoints.save(Progress(0, 10), variables(10))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["last-00000005.npz"]
    assert checkpoints.restore(variables(0)).step == 5


@pytest.mark.parametrize("stop", [1, 7, 12, 15])
def test_a_loop_that_broke_off_ends_with_the_same_bits(tmp_path, stop):
    """Dropout's seeds, momentum, averages and the metrics of the broken epoch all come back."""

    class BreakOff(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch + 1 >= stop:
                raise KeyboardInterrupt

    settings = {"network": {"dropout": 0.3}, "optimizer": {"name": "adam"}, "ema": 0.9, "checkpoint_minutes": 1e-9}
    reference = loop(tmp_path / "reference", **settings)
    rows = reference.run()
    with pytest.raises(KeyboardInterrupt):
        loop(tmp_path / "run", callbacks=(BreakOff(),), **settings).run()
    resumed = loop(tmp_path / "run", **settings)
    again = resumed.run()
    for a, b in zip(weights(resumed.model), weights(reference.model), strict=True):
        np.testing.assert_array_equal(a, b)
    for key in ("loss", "accuracy", "val_loss", "learning_rate", "step"):
        assert [row[key] for row in again] == [row[key] for row in rows]
