"""Answers beside the Keras model's: any name of an image, and no number that is none."""

import numpy as np

from pipeline.export.agreement import Answers, compare_on
from pipeline.registry import TASKS

TASK = TASKS.build("classification", tuple("abcde"), [1] * 5)


def test_images_may_have_names_in_any_script(float_file, images, expected, tmp_path):
    (tmp_path / "float32.tflite").write_bytes(float_file)
    names = ["vögel/ä.png", "鸟.png", "plain.png"]
    rest = {"y": np.eye(5, dtype=np.float32)[:3], "id": np.array([name.encode() for name in names], object)}
    files = {"float32": tmp_path / "float32.tflite"}
    found = compare_on([(images[:3], rest)], TASK, lambda batch: expected[: len(batch)], files)
    assert found.ids.tolist() == names
    assert found.ids.dtype.kind == "U"  # golden.npz may hold no Python objects


def test_a_difference_that_is_no_number_stays(expected):
    answers, y = Answers(), np.eye(5, dtype=np.float32)[:2]
    spoilt = expected[:2].copy()
    spoilt[0, 0] = np.nan
    answers.add(TASK, y, spoilt, expected[:2])
    answers.add(TASK, y, expected[:2], expected[:2])
    assert np.isnan(answers.max_abs_difference)
