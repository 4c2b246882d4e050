"""What rounding changed is counted as it is: by hand on a few answers, and on a real export."""

import json

import numpy as np
import pandas as pd

from pipeline.export.agreement import MOST_FLIPS, Agreement, Answers
from pipeline.export.changes import measures, per_class_change, shown_variant, write_changes
from pipeline.export.latency import Latency
from pipeline.registry import TASKS

TASK = TASKS.build("classification", ("cat", "dog"), [1, 1])


def agreement(truth: list[int], before: list[float], after: list[float]) -> Agreement:
    """Return answers of the Keras model and of an int8 file, each a probability of "dog"."""
    y = np.eye(2, dtype=np.float32)[truth]
    images = np.zeros((len(y), 4, 4, 3), np.uint8)
    rest = {"y": y, "id": np.array([f"image {i}".encode() for i in range(len(y))])}
    keras, file = Answers(), Answers()
    expected, outputs = (np.stack([1 - np.array(p), p], axis=1).astype(np.float32) for p in (before, after))
    keras.add(TASK, y, expected, expected)
    file.add(TASK, y, outputs, expected)
    file.add_flips(images, rest, outputs, expected)
    return Agreement(keras, {"int8": file}, images, rest["id"].astype(str))


def test_flips_and_classes_by_hand(tmp_path, float_file):
    found = agreement([0, 0, 1, 1], [0.1, 0.2, 0.9, 0.8], [0.1, 0.7, 0.9, 0.9])
    assert found.files["int8"].flipped == 1
    [flip] = found.files["int8"].flips
    assert flip.id == "image 1"
    change = per_class_change(found, TASK, "int8").set_index("class")
    assert change["change"].to_dict() == {"cat": -0.5, "dog": 0.0}
    assert list(change.index) == ["cat", "dog"]  # the largest change first
    table = measures(found, TASK).set_index("measure")
    assert table.loc["accuracy", ["keras", "int8"]].tolist() == [1.0, 0.75]
    assert "calibration_error" in table.index
    (tmp_path / "int8.tflite").write_bytes(float_file)
    too_slow = Latency(p10=1e4, p50=1e4, p90=1e4, memory_mb=1, threads=1, rounds=(1e4,))  # for any heat map
    write_changes(tmp_path, found, TASK, lambda images: images, {"int8": too_slow})
    flips = json.loads((tmp_path / "flips.json").read_text())
    assert (flips["variant"], flips["count"], flips["of"]) == ("int8", 1, 4)
    assert "int8: dog (70%)" in flips["cards"][0]["caption"]
    assert flips["cards"][0]["heats"] == []


def test_all_flips_are_counted_and_some_are_kept():
    many = 3 * MOST_FLIPS
    found = agreement([0] * many, [0.1] * many, [0.9] * many).files["int8"]
    assert (found.flipped, len(found.flips)) == (many, MOST_FLIPS)


def test_the_file_that_rounds_most_is_shown():
    assert shown_variant(["float32", "uint8", "int8"]) == "int8"
    assert shown_variant(["float32", "float16"]) == "float16"
    assert shown_variant(["float32", "weight_int4"]) == "float32"


def test_an_export_tells_them(exported):
    table = pd.read_csv(exported.run.export_dir / "measures.csv").set_index("measure")
    results = exported.results.set_index("variant")
    assert table.loc["accuracy", list(results.index)].tolist() == results["score"].tolist()
    page = exported.report_path.read_text(encoding="utf-8")
    assert "What the files changed" in page
    assert "Answers that flipped" in page
