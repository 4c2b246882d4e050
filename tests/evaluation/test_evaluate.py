"""`evaluate` on real digits, real folders and real scenes, with small models."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.errors import UserError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.statistics import wilson
from pipeline.runs import Run

FILES = {
    "about.json", "calibration.csv", "calibration.png", "confusion.csv", "confusion.png", "metrics.json",
    "mistakes.json", "mistakes.png", "per_class.csv", "predictions.csv", "scores.npz",
}  # fmt: skip


def write_folder(path, classes, per_class=3):
    digits = load_digits()
    for number, name in enumerate(classes):
        folder = path / "test" / name
        folder.mkdir(parents=True)
        (path / "train" / name).mkdir(parents=True)
        for index, image in enumerate(digits.images[digits.target == number][:per_class]):
            Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{index}.png")
            Image.fromarray((image * 15).astype(np.uint8)).save(path / "train" / name / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def evaluation(make_digits_run, tmp_path_factory):
    return evaluate(make_digits_run(tmp_path_factory.mktemp("runs") / "digits").path)


def test_every_file_is_written(evaluation):
    assert {path.name for path in evaluation.folder.iterdir()} == FILES
    assert evaluation.folder == evaluation.run.path / "evaluation" / "test"
    assert evaluation.report_path.is_file()
    for path in evaluation.folder.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 100


def test_metrics_json_predictions_and_tables_agree(evaluation):
    metrics = json.loads((evaluation.folder / "metrics.json").read_text())
    assert list(metrics) == list(evaluation.metrics)
    assert set(metrics["accuracy"]) == {"value", "low", "high", "n"}
    rows = pd.read_csv(evaluation.folder / "predictions.csv", dtype={"truth": str, "prediction": str})
    assert list(rows.columns) == ["id", "truth", "prediction", "confidence", "probabilities"]
    # scikit-learn's own split: the second half in file order, 899 images.
    digits = load_digits()
    assert rows["truth"].tolist() == [str(label) for label in digits.target[-899:]]
    right = int((rows["truth"] == rows["prediction"]).sum())
    expected = wilson(right, 899)
    assert metrics["accuracy"] == pytest.approx(
        {"value": right / 899, "low": expected.low, "high": expected.high, "n": 899}
    )
    confusion = pd.read_csv(evaluation.folder / "confusion.csv", index_col=0)
    assert confusion.to_numpy().sum() == 899
    assert np.trace(confusion.to_numpy()) == right
    per_class = pd.read_csv(evaluation.folder / "per_class.csv")
    assert per_class["support"].sum() == 899
    probabilities = np.array([json.loads(row) for row in rows["probabilities"]])
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(899), abs=1e-4)
    assert probabilities.argmax(axis=1).tolist() == rows["prediction"].astype(int).tolist()


def test_the_table_has_a_row_for_each_measure(evaluation):
    table = evaluation.table()
    assert table["measure"].tolist() == list(evaluation.metrics)
    assert list(table.columns) == ["measure", "value", "low", "high", "n"]


def test_it_is_repeatable(evaluation):
    before = (evaluation.folder / "metrics.json").read_text()
    assert evaluate(evaluation.run).metrics == evaluation.metrics
    assert (evaluation.folder / "metrics.json").read_text() == before


def test_validation_is_the_part_that_training_held_out(digits_run):
    train, validation = (evaluate(digits_run, split=split) for split in ("train", "validation"))
    assert not set(train.scored.ids) & set(validation.scored.ids)
    assert len(train.scored.ids) + len(validation.scored.ids) == 898
    assert {path.name for path in (digits_run.path / "evaluation").iterdir()} == {"train", "validation"}


def test_other_data_is_scored_into_a_folder_of_its_own(digits_run, tmp_path):
    folder = write_folder(tmp_path / "new", tuple("0123456789"))
    found = evaluate(digits_run, overrides=["data.source.name=folder", f"data.source.path={folder}"])
    assert found.metrics["accuracy"].n == 30
    assert found.folder.name.startswith("test-")
    assert found.folder.parent == digits_run.path / "evaluation"
    assert not digits_run.evaluation_dir("test").exists()
    assert found.folder.name in digits_run.report_path.read_text()


def test_data_of_other_classes_is_refused(digits_run, tmp_path):
    folder = write_folder(tmp_path / "new", ("0", "1", "cat"))
    with pytest.raises(UserError, match=r"it lacks '2', '3', '4', '5', '6' and it adds 'cat'"):
        evaluate(digits_run, overrides=["data.source.name=folder", f"data.source.path={folder}"])


def test_data_without_what_the_task_needs_is_refused(make_run, tmp_path):
    run = make_run(tmp_path / "run", ["task=segmentation"], tuple("0123456789"), per_pixel=True)
    with pytest.raises(UserError, match="this data has no mask, which the task segmentation needs"):
        evaluate(run)


def test_an_unknown_split_names_those_that_are_there(digits_run):
    with pytest.raises(UserError, match=r"no split 'dev'; this source has train.*test"):
        evaluate(digits_run, split="dev")


@pytest.mark.parametrize("override", ["model.name=lenet5", "data.image_size=[16,16]", "train.seed=5"])
def test_what_belongs_to_the_model_cannot_be_set(digits_run, override):
    with pytest.raises(UserError, match=r"here only data.source, .* can be set; the rest is part of the trained model"):
        evaluate(digits_run, overrides=[override])


def test_the_batch_size_changes_no_score(digits_run, evaluation):
    other = evaluate(digits_run, overrides=["data.batch_size=50"])
    assert other.metrics["accuracy"] == evaluation.metrics["accuracy"]
    assert other.folder.name == "test"


def test_a_run_that_is_none_or_damaged_is_said(digits_run, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        evaluate(tmp_path / "nothing")
    digits_run.model_path.write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"model.keras cannot be read as a Keras model"):
        evaluate(Run.open(digits_run.path))


def test_a_read_only_folder_is_said_and_nothing_is_lost(digits_run, monkeypatch):
    evaluate(digits_run)
    before = (digits_run.evaluation_dir("test") / "metrics.json").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.runs.sync", full)
    with pytest.raises(UserError, match="cannot be written"):
        evaluate(digits_run)
    assert (digits_run.evaluation_dir("test") / "metrics.json").read_bytes() == before


def test_masks_are_scored_by_image(make_run, tmp_path):
    classes = ("background", *"0123456789")
    overrides = [
        "task=segmentation",
        "data.source={name: scenes, size: [32, 32], train: 4, validation: 2, test: 6, digits: 2}",
        "data.image_size=[32,32]",
        "data.batch_size=4",
        "data.augment=[]",
        "model=unet",
    ]
    run = make_run(tmp_path / "run", overrides, classes, per_pixel=True)
    found = evaluate(run)
    assert list(found.metrics) == ["mean_iou", "pixel_accuracy"]
    assert found.metrics["mean_iou"].n == 6
    assert {path.name for path in found.folder.iterdir()} == FILES - {
        "calibration.csv", "calibration.png", "confusion.csv", "confusion.png",
    }  # fmt: skip
    rows = pd.read_csv(found.folder / "predictions.csv")
    assert len(rows) == 6
    total = rows["correct_pixels"].sum() / rows["valid_pixels"].sum()
    assert found.metrics["pixel_accuracy"].value == pytest.approx(total)
    per_class = pd.read_csv(found.folder / "per_class.csv")
    assert per_class["iou"].mean() == pytest.approx(found.metrics["mean_iou"].value)
    assert "background" in run.report_path.read_text()
