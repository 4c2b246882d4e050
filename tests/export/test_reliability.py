"""Calibration before and after: equal to what the statistics say of each model alone, and paired between them."""

import numpy as np
import pandas as pd
import pytest

from pipeline.evaluation.statistics import compare, interval
from pipeline.export.agreement import Agreement, Answers
from pipeline.export.reliability import calibration_errors, reliability, write_reliability
from pipeline.registry import TASKS

TASK = TASKS.build("classification", ("a", "b", "c"), [1, 1, 1])
MEASURE = TASK.measures["calibration_error"]


def answers(sharpness: float) -> Answers:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 3)) * 2
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # right as often as softmax says
    p = np.exp(sharpness * logits)
    p = (p / p.sum(1, keepdims=True)).astype(np.float32)
    found = Answers()
    found.add(TASK, np.eye(3, dtype=np.float32)[truth], p, p)
    return found


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    return Agreement(answers(1.0), {"int8": answers(3.0), "same": answers(1.0)}, np.zeros(0), np.zeros(0))


def test_figures_are_those_of_the_statistics(agreement):
    table = calibration_errors(agreement, TASK).set_index("variant")
    assert list(table.index) == ["keras", "int8", "same"]
    for name, one in agreement.all.items():
        alone, row = interval(MEASURE, one.scores), table.loc[name]
        figures = row[["calibration_error", "calibration_error_low", "calibration_error_high"]]
        assert figures.tolist() == pytest.approx([alone.value, alone.low, alone.high])
        paired = compare(MEASURE, agreement.keras.scores, one.scores)
        assert row[["change", "change_low", "change_high"]].tolist() == pytest.approx(
            [paired.difference, paired.low, paired.high]
        )
    assert table.loc["int8", "change_low"] > 0.05  # three times too sure
    assert table.loc["int8", "confidence"] > table.loc["int8", "accuracy"] + 0.05
    assert table.loc["same", ["change", "change_low", "change_high"]].tolist() == [0, 0, 0]


def test_bins_hold_every_answer_of_every_model(agreement):
    bins = reliability(agreement, TASK)
    assert bins.groupby("variant")["count"].sum().to_dict() == {"keras": 300, "int8": 300, "same": 300}


def test_what_has_no_confidence_has_no_files_and_earlier_ones_go(agreement, tmp_path):
    write_reliability(tmp_path, agreement, TASK)
    assert {path.name for path in tmp_path.iterdir()} == {"calibration.csv", "calibration_error.csv"}
    write_reliability(tmp_path, agreement, TASKS.build("segmentation", ("a", "b"), None))
    assert not list(tmp_path.iterdir())


def test_an_export_tells_it(exported):
    table = pd.read_csv(exported.run.export_dir / "calibration_error.csv").set_index("variant")
    measures = pd.read_csv(exported.run.export_dir / "measures.csv").set_index("measure")
    assert list(table.index) == ["keras", *exported.results["variant"]]
    assert table["calibration_error"].tolist() == pytest.approx(measures.loc["calibration_error"].tolist())
    assert "Calibration before and after" in exported.report_path.read_text(encoding="utf-8")
