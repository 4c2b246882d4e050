"""`train.distill`: a run that learns from a teacher, from the experiment to the files of the run."""

import csv
import json

import keras
import numpy as np
import pytest
from test_train import experiment

from pipeline.errors import UserError
from pipeline.training import setup
from pipeline.training.runtime import choose
from pipeline.training.teacher import open_teacher
from pipeline.training.train import train


def taught(teacher, **changes):
    """Return the experiment of a student whose dropout and average have a state of their own."""
    student = {"name": "simple_cnn", "filters": [4, 8], "units": 8, "dropout": 0.2}
    distill = {"teacher": str(teacher), "weight": 0.5, "temperature": 2.0}
    return experiment(model=student, train={"epochs": 2, "ema": 0.9, "distill": distill, **changes})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    larger = experiment(model={"name": "simple_cnn", "filters": [16, 32], "units": 64}, train__epochs=6)
    return train(larger, tmp_path_factory.mktemp("runs") / "teacher")


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    return train(taught(teacher.path), tmp_path_factory.mktemp("runs") / "student")


def history(run):
    with run.history_path.open() as file:
        return [{name: value for name, value in row.items() if "second" not in name} for row in csv.DictReader(file)]


def test_the_run_is_of_the_student_alone(teacher, student):
    model = keras.saving.load_model(student.model_path, safe_mode=True)
    assert model.name == "simple_cnn"
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert model.count_params() < open_teacher(teacher.path).count_params() / 4
    assert set(student.facts["teacher"]) == {"path", "model_sha256"}


def test_the_teachers_score_stands_beside_the_students(teacher, student):
    rows = history(student)
    assert len({row["val_teacher_accuracy"] for row in rows}) == 1
    kept = max(float(row["val_accuracy"]) for row in history(teacher))
    assert float(rows[0]["val_teacher_accuracy"]) == pytest.approx(kept, abs=1e-6)
    assert rows[0]["val_loss"] != rows[1]["val_loss"]


def test_an_interrupted_student_continues_exactly(teacher, student, tmp_path, monkeypatch):
    class BreakOff(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch >= 8:
                raise KeyboardInterrupt

    standard = setup.standard_callbacks
    monkeypatch.setattr(setup, "standard_callbacks", lambda tensorboard: [*standard(tensorboard), BreakOff()])
    changes = {"checkpoint_minutes": 1e-9, "steps_per_call": 2}
    with pytest.raises(KeyboardInterrupt):
        train(taught(teacher.path, **changes), tmp_path / "run")
    monkeypatch.undo()
    continued = train(taught(teacher.path, **changes), tmp_path / "run")
    assert history(continued) == history(student)
    found, truth = (keras.saving.load_model(run.model_path).get_weights() for run in (continued, student))
    assert [a.tobytes() for a in found] == [b.tobytes() for b in truth]


def test_a_student_begins_with_the_weights_that_it_would_have_alone(teacher):
    begun = []
    for distill in (None, {"teacher": str(teacher.path)}):
        alone = taught(teacher.path, distill=distill)
        runtime = choose(alone.train, batch_size=128, image_size=(16, 16))
        begun.append(setup.build_lesson(alone, runtime, setup.open_task(alone)[1]).student.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(*begun, strict=True))


def test_mixed_precision_with_sharpness_and_a_file_of_another_size(tmp_path):
    image = keras.Input((20, 20, 1))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(image))
    keras.Model(image, keras.layers.Dense(10, activation="softmax")(x)).save(tmp_path / "other.keras")
    changes = {"precision": "mixed_float16", "sharpness": 0.05, "epochs": 1, "accumulate": 2}
    run = train(taught(tmp_path / "other.keras", **changes), tmp_path / "run")
    assert np.isfinite(float(history(run)[0]["loss"]))


def test_a_run_with_other_classes_is_no_teacher(teacher, tmp_path):
    facts = json.loads(teacher.environment_path.read_text())
    other = tmp_path / "other"
    other.mkdir()
    for path in (teacher.experiment_path, teacher.model_path):
        (other / path.name).write_bytes(path.read_bytes())
    (other / "environment.json").write_text(json.dumps(facts | {"classes": facts["classes"][::-1]}))
    with pytest.raises(UserError, match=r"was trained on the classes '9', '8', .*; the student's are '0', '1'"):
        train(taught(other), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_changed_is_refused_unless_forced(teacher, tmp_path, monkeypatch):
    file = tmp_path / "teacher.keras"
    file.write_bytes(teacher.model_path.read_bytes())
    monkeypatch.setattr(setup.Loop, "run", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(taught(file), tmp_path / "run")
    monkeypatch.undo()
    model = keras.saving.load_model(file)
    model.set_weights([2 * each for each in model.get_weights()])
    model.save(file)
    with pytest.raises(UserError, match=r"teacher\.keras is not the file that .*run began with; bring that back"):
        train(taught(file, epochs=1), tmp_path / "run")
    assert train(taught(file, epochs=1), tmp_path / "run", force=True).finished


def test_bad_teachers(teacher, student, tmp_path):
    with pytest.raises(UserError, match=r"student cannot be its own teacher; name another --run"):
        train(taught(student.path), student.path, force=True)
    assert student.finished
    with pytest.raises(UserError, match=r"there is no teacher at gone\.keras; give a finished run or a \.keras file"):
        train(taught("gone.keras"), tmp_path / "run")
    image = keras.Input((16, 16, 1))
    code = keras.layers.Lambda(lambda x: x + 1)(image)
    keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(code))).save(tmp_path / "code.keras")
    with pytest.raises(UserError, match=r"code\.keras cannot be read as a Keras model \(.*Lambda"):
        train(taught(tmp_path / "code.keras"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fold_has_no_teacher(teacher):
    with pytest.raises(UserError, match=r"a teacher may have seen the images that data\.folds holds out") as caught:
        taught(teacher.path).replace(["data.folds={of: 5, index: 0}"])
    assert caught.value.usage
