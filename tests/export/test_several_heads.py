"""Several labels per image, from a table to certified files: real digits, and whether each has a closed loop."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline import evaluate, export, predict, train
from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.export.interpreter import LiteModel
from pipeline.export.metadata import Facts
from pipeline.export.verify import verify

LOOPS = (0, 6, 8, 9)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> pd.DataFrame:
    """Write 600 digits, the last 200 for test, beside a table of both labels."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    rows = pd.DataFrame({"digit": digits.target[:600], "path": [f"{index}.png" for index in range(600)]})
    rows["loop"] = np.where(rows["digit"].isin(LOOPS), "yes", "no")
    rows["split"] = ["train"] * 400 + ["test"] * 200
    for name, image in zip(rows["path"], digits.images, strict=False):
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(folder / name)
    rows.to_csv(folder / "table.csv", index=False)
    rows.attrs["folder"] = folder
    return rows


def experiment(rows: pd.DataFrame, **options) -> Experiment:
    source = {"name": "table", "path": str(rows.attrs["folder"] / "table.csv"), "label_column": ["digit", "loop"]}
    return Experiment.parse(
        {
            "task": {"name": "multi_output_classification", **options},
            "data": {"source": source, "image_size": [16, 16], "channels": 1, "batch_size": 32},
            "model": {"name": "simple_cnn", "filters": [8, 16], "units": 32, "batch_norm": True},
            "train": {"epochs": 3, "optimizer": {"name": "adamw", "learning_rate": 0.01}},
            "export": {"variants": ["float32", "int8"], "margin": 5},
        },
        "test",
    )


@pytest.fixture(scope="module")
def exported(rows, tmp_path_factory):
    return export(train(experiment(rows), tmp_path_factory.mktemp("runs") / "both"))


def test_each_head_has_measures_with_intervals(exported, rows):
    found = evaluate(exported.run)
    loop, every = found.metrics["loop_accuracy"], found.metrics["exact_match"]
    assert loop.n == every.n == 200
    assert loop.low < loop.value < loop.high
    assert loop.value > 0.75  # more than six of ten have none
    assert every.value <= min(loop.value, found.metrics["digit_accuracy"].value)
    answers = pd.read_csv(found.folder / "predictions.csv")
    assert set(answers["loop_truth"]) == {"loop=yes", "loop=no"}
    assert (answers["digit_truth"] == "digit=" + rows["digit"][400:].astype(str).to_numpy()).all()


def test_files_carry_the_heads_and_pass_every_gate_again(exported):
    facts = Facts.read((exported.run.export_dir / "int8.tflite").read_bytes())
    assert facts.labels == (*(f"digit={d}" for d in range(10)), "loop=no", "loop=yes")
    assert set(exported.results["measure"]) == {"exact_match"}
    assert (exported.results["verdict"] != "worse").all()
    measures = pd.read_csv(exported.run.export_dir / "measures.csv").set_index("measure")
    assert {"exact_match", "digit_accuracy", "loop_accuracy", "loop_log_loss"} <= set(measures.index)
    assert all(check.holds for check in verify(exported.run.export_dir))


def test_answers_are_a_distribution_for_each_head(exported):
    for variant, tolerance in (("float32", 1e-5), ("int8", 0.05)):
        model = LiteModel.open(exported.run.export_dir / f"{variant}.tflite")
        found = model.predict(np.load(exported.run.export_dir / "golden.npz")["images"])
        np.testing.assert_allclose(found[:, :10].sum(-1), 1, atol=tolerance)
        np.testing.assert_allclose(found[:, 10:].sum(-1), 1, atol=tolerance)


def test_a_prediction_is_the_best_label_of_each_head(exported, rows):
    picture = rows.attrs["folder"] / "500.png"
    [keras_answer], [file_answer] = (
        predict(model, [picture]) for model in (exported.run, exported.run.export_dir / "float32.tflite")
    )
    assert [label.partition("=")[0] for label in file_answer.labels] == ["digit", "loop"]
    assert file_answer.labels == keras_answer.labels
    np.testing.assert_allclose(file_answer.probabilities, keras_answer.probabilities, atol=1e-5)


def test_what_needs_one_label_is_refused(rows, exported, tmp_path):
    with pytest.raises(UserError, match="mixup mixes whole labels and cannot mix labels; leave it out"):
        train(experiment(rows).replace(["data.augment=[mixup]"]), tmp_path / "run")
    with pytest.raises(UserError, match="classification needs label, but the source table gives only labels"):
        train(experiment(rows).replace(["task.name=classification"]), tmp_path / "other")
    with pytest.raises(UserError, match="labels cannot be averaged over flip"):
        evaluate(exported.run, tta="flip")
    assert json.loads((exported.run.export_dir / "certificate.json").read_text())["measure"] == "exact_match"
