import keras
import numpy as np
import pytest
from keras import ops

from pipeline import train
from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.export.compress.distill import STUDENT, TEACHER, distill, divergence, open_teacher
from pipeline.export.compress.finetune import Finetuning, finetune
from pipeline.export.compress.sparsity import SparsitySchedule, sparsify, sparsity_of
from pipeline.registry import TASKS

layers = keras.layers


def network(classes: int = 3, *, width: int = 4, size: int = 8, dropout: float = 0.0, softmax: bool = False):
    keras.utils.set_random_seed(width)
    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(width, 3, name="features")(layers.Rescaling(1 / 255)(image))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(classes, activation="softmax" if softmax else None)(x))


def task(classes: int = 3):
    return TASKS.build("classification", tuple("abcdefgh"[:classes]), None)


def pictures(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 8, 8, 3)).astype("float32")


def softmax(x, temperature=1.0):
    e = np.exp(np.asarray(x, np.float64) / temperature)
    return e / e.sum(axis=-1, keepdims=True)


def test_the_divergence_by_hand():
    teacher, student = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    np.testing.assert_allclose(divergence(teacher, student, 1.0), [expected], rtol=1e-5)
    p, q = softmax([[4.0, 0, 2]], 2.0), softmax([[1.0, 3, 0]], 2.0)
    expected = 4 * (p * np.log(p / q)).sum()
    found = divergence(np.array([[4.0, 0, 2]]), np.array([[1.0, 3, 0]]), 2.0)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
    np.testing.assert_allclose(divergence(teacher, teacher + 7, 3.0), [0.0], atol=1e-5)


def test_the_divergence_is_averaged_over_pixels():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 2, 4, 5, 3))
    found = divergence(teacher, student, 1.0)
    each = [
        divergence(t.reshape(-1, 3), s.reshape(-1, 3), 1.0).numpy().mean()
        for t, s in zip(teacher, student, strict=True)
    ]
    np.testing.assert_allclose(found, each, rtol=1e-5)


def test_the_loss_is_the_weighted_sum():
    student, teacher = network(), network(width=8)
    lesson = distill(student, teacher, task(), temperature=2.0, weight=0.25)
    x, y = pictures(), np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    outputs = lesson.model(x)
    expected = 0.25 * divergence(teacher(x), student(x), 2.0) + 0.75 * task().loss(y, student(x))
    np.testing.assert_allclose(lesson.task.loss(y, outputs), expected, rtol=1e-4)
    only = distill(student, teacher, task(), weight=1.0)
    np.testing.assert_allclose(only.task.loss(y, only.model(x)), divergence(teacher(x), student(x), 4.0), rtol=1e-4)


def test_the_teacher_answers_as_in_inference_and_is_never_changed():
    student, teacher = network(), network(width=8, dropout=0.9)
    lesson = distill(student, teacher, task())
    x = pictures()
    training = lesson.model(x, training=True)
    np.testing.assert_allclose(training[TEACHER], teacher(x, training=False), rtol=1e-5)
    assert not {id(v) for v in lesson.model.variables} & {id(v) for v in teacher.variables}
    assert {id(v) for v in lesson.model.trainable_variables} == {id(v) for v in student.trainable_variables}
    assert teacher.trainable_variables


def test_probabilities_of_a_teacher_become_logits():
    logits, softmaxed = network(width=8), network(width=8, softmax=True)
    softmaxed.set_weights(logits.get_weights())
    x = pictures()
    first, second = (
        lesson.task.loss(np.eye(3, dtype="float32")[[0, 1, 2, 0]], lesson.model(x))
        for lesson in (distill(network(), teacher, task()) for teacher in (logits, softmaxed))
    )
    np.testing.assert_allclose(first, second, rtol=1e-4)


def test_features_are_matched_through_a_projection():
    student, teacher = network(), network(width=8)
    lesson = distill(student, teacher, task(), features={"features": "features"}, feature_weight=10.0)
    x, y = pictures(), np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    kernel = lesson.model.get_layer("features_0").projection.kernel
    assert kernel.shape == (4, 8)
    mine, theirs = (keras.Model(m.input, m.get_layer("features").output)(x) for m in (student, teacher))
    distance = ops.mean(ops.square(ops.matmul(mine, kernel) - theirs), axis=(1, 2, 3))
    outputs = lesson.model(x)
    np.testing.assert_allclose(outputs["features_0"], distance, rtol=1e-4)
    plain = distill(student, teacher, task())
    difference = lesson.task.loss(y, outputs) - plain.task.loss(y, plain.model(x))
    np.testing.assert_allclose(difference, 10 * distance, rtol=1e-3)
    assert len(lesson.model.trainable_variables) == len(student.trainable_variables) + 1


def test_metrics_look_at_the_student():
    lesson = distill(network(), network(width=8), task())
    [metric] = lesson.task.metrics()
    y = np.eye(3, dtype="float32")
    metric.update_state(y, {STUDENT: y, TEACHER: -y})
    assert (metric.name, float(metric.result())) == ("accuracy", 1.0)
    metric.reset_state()
    assert [float(v.numpy()) for v in metric.variables] == [0.0, 0.0]
    assert lesson.task.monitor == "accuracy"
    lesson.task.check(lesson.model)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run on digits of some 95 %."""
    overrides = [
        "data.image_size=[16,16]",
        "data.batch_size=32",
        "data.augment=[]",
        "model={name: simple_cnn, filters: [8, 16], units: 32, dropout: 0.0}",
        "train.epochs=6",
        "train.optimizer={name: adam, learning_rate: 0.01}",
    ]
    return train(Experiment.load("digits", overrides), tmp_path_factory.mktemp("runs") / "digits")


def accuracy(model: keras.Model, tuning: Finetuning) -> float:
    right = total = 0.0
    for batch in tuning.prepared["validation"].evaluation(32, tuning.task.encode):
        same = ops.argmax(model(batch["image"]), -1) == ops.argmax(batch["y"], -1)
        right += float(ops.sum(ops.cast(same, "float32") * batch["weight"]))
        total += float(ops.sum(batch["weight"]))
    return right / total


def student() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 1), name="image")
    x = layers.Rescaling(1 / 255)(image)
    for filters in (8, 16):
        x = layers.ReLU()(
            layers.BatchNormalization(momentum=0.9)(layers.Conv2D(filters, 3, strides=2, name=f"conv{filters}")(x))
        )
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


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
    tuned = finetune(sparse, run, epochs=3)  # by a schedule of its own
    assert max(sparsity_of(tuned).values()) == pytest.approx(0.8, abs=1e-3)
    begun = finetune(sparse, run, epochs=3, callbacks=[SparsitySchedule(0, 1000, every=1)])
    assert 0 < max(sparsity_of(begun).values()) < 0.5
    assert max(sparsity_of(sparse).values()) == 0


def test_fine_tuning_refuses_what_does_not_fit(run):
    with pytest.raises(UserError, match="epochs is 0; give at least 1"):
        finetune(open_teacher(run.path), run, epochs=0)
    with pytest.raises(UserError, match="needs \\(batch, 10\\) outputs"):
        finetune(network(size=16), run)


def test_teachers_from_files(run, tmp_path):
    assert open_teacher(run.model_path).output_shape == (None, 10)
    with pytest.raises(UserError, match=r"there is no teacher at .*gone\.keras; give a finished run or a \.keras file"):
        open_teacher(tmp_path / "gone.keras")
    with pytest.raises(UserError, match="is not a run"):
        open_teacher(tmp_path)
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(UserError, match=r"text\.keras cannot be read as a Keras model"):
        open_teacher(tmp_path / "text.keras")


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        ({"classes": 5}, {}, "the teacher knows 5 classes, the student 3; give a teacher of the same"),
        ({"size": 9}, {}, r"the teacher takes images of \(9, 9, 3\), the student of \(8, 8, 3\)"),
        ({}, {"temperature": 0.0}, "distillation needs temperature > 0, weight in 0..1"),
        ({}, {"weight": 1.5}, "not temperature=4, weight=1.5"),
        ({}, {"features": {"features": "c9"}}, "has no layer 'c9' whose features could be matched"),
        ({}, {"features": {"features": "global"}}, "has no layer 'global'"),
    ],
)
def test_bad_input(teacher, options, message):
    with pytest.raises(UserError, match=message):
        distill(network(), network(**teacher), task(), **options)


def test_features_of_other_sizes_are_refused():
    student, teacher = network(), network()
    pooled = next(layer.name for layer in teacher.layers if isinstance(layer, layers.GlobalAveragePooling2D))
    with pytest.raises(UserError, match=r"features of \(6, 6\) cannot match those of \(\); choose layers"):
        distill(student, teacher, task(), features={"features": pooled})
