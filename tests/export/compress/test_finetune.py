import keras
import numpy as np
import pytest
from keras import ops
from seeding import set_seed

from pipeline import Run
from pipeline.errors import UserError
from pipeline.export.compress.channels import prune_iteratively
from pipeline.export.compress.finetune import Finetuning, finetune
from pipeline.export.compress.sparsity import SparsitySchedule, sparsify, sparsity_of
from pipeline.training.teacher import open_teacher

layers = keras.layers


@pytest.fixture(scope="module")
def run(digits_run) -> Run:
    return digits_run


def accuracy(model: keras.Model, tuning: Finetuning) -> float:
    right = total = 0.0
    for batch in tuning.prepared["validation"].evaluation(32, tuning.task.encode):
        same = ops.argmax(model(batch["image"]), -1) == ops.argmax(batch["y"], -1)
        right += float(ops.sum(ops.cast(same, "float32") * batch["weight"]))
        total += float(ops.sum(batch["weight"]))
    return right / total


def student(classes: int = 10) -> keras.Model:
    set_seed(1)
    image = keras.Input((16, 16, 1), name="image")
    x = layers.Rescaling(1 / 255)(image)
    for filters in (8, 16):
        x = layers.ReLU()(
            layers.BatchNormalization(momentum=0.9)(layers.Conv2D(filters, 3, strides=2, name=f"conv{filters}")(x))
        )
    return keras.Model(image, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))


def test_a_student_learns_from_a_teacher_alone(run, tmp_path):
    tuning = Finetuning(run.experiment)
    teacher, untrained = open_teacher(run.path), student()
    before = [w.copy() for w in untrained.get_weights()]
    # Weight 1: not one label is used, so the divergence must point the right way.
    options = {"weight": 1.0, "temperature": 2.0}
    taught = tuning(untrained, epochs=6, learning_rate=0.01, teacher=teacher, distillation=options, folder=tmp_path)
    assert accuracy(teacher, tuning) > 0.85
    assert accuracy(taught, tuning) > 0.7
    assert all(np.array_equal(a, b) for a, b in zip(before, untrained.get_weights(), strict=True))
    history = (tmp_path / "history.csv").read_text().splitlines()
    assert len(history) == 7
    assert "val_accuracy" in history[0]


def test_fine_tuning_keeps_what_a_schedule_made(run):
    model = open_teacher(run.path)
    sparse = sparsify(model, 0.8, initial=0.0)
    tuned = finetune(sparse, run, epochs=1)  # by a schedule of its own
    assert max(sparsity_of(tuned).values()) == pytest.approx(0.8, abs=1e-3)
    begun = finetune(sparse, run, epochs=1, callbacks=[SparsitySchedule(0, 1000, every=1)])
    assert 0 < max(sparsity_of(begun).values()) < 0.5
    assert max(sparsity_of(sparse).values()) == 0
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(max(sparsity_of(self.model).values()))

    finetune(tuned, run, epochs=1, callbacks=[Look()])  # what was reached is not begun again
    assert min(seen) == pytest.approx(0.8, abs=1e-3)


def test_patience_does_not_end_a_training_before_its_sparsity(run):
    impatient = run.experiment.replace(["train.patience=1"])
    tuned = finetune(sparsify(open_teacher(run.path), 0.8, initial=0.0), impatient, epochs=8, learning_rate=1e-12)
    assert max(sparsity_of(tuned).values()) == pytest.approx(0.8, abs=1e-3)


def test_fine_tuning_refuses_what_does_not_fit(run):
    with pytest.raises(UserError, match="epochs is 0; give at least 1"):
        finetune(open_teacher(run.path), run, epochs=0)
    with pytest.raises(UserError, match="needs \\(batch, 10\\) outputs"):
        finetune(student(classes=3), run)


def test_teachers_from_files(run, tmp_path):
    assert open_teacher(run.model_path).output_shape == (None, 10)
    with pytest.raises(UserError, match=r"there is no teacher at .*gone\.keras; give a finished run or a \.keras file"):
        open_teacher(tmp_path / "gone.keras")
    with pytest.raises(UserError, match="is not a run"):
        open_teacher(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(UserError, match=r"text\.keras cannot be read as a Keras model"):
        open_teacher(tmp_path / "text.keras")


def test_it_fits_between_the_steps_of_pruning(run):
    model = open_teacher(run.path)
    small = prune_iteratively(model, 0.5, 2, Finetuning(run.experiment), multiple=1)
    assert small.count_params() < 0.5 * model.count_params()
