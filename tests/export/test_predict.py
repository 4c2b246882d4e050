import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline import predict
from pipeline.export.predict import Prediction, _top, to_table


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Three real digits of the test half as PNG files of another size."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for index in (900, 1000, 1700):
        pixels = (load_digits().images[index] * 255 / 16).astype(np.uint8)
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).resize((40, 30)).save(paths[-1])
    return paths


def test_run_and_files_give_equal_answers(exported, pictures):
    wanted = predict(exported.run.path, pictures)
    assert [prediction.image for prediction in wanted] == pictures
    for prediction in wanted:
        assert len(prediction.labels) == len(prediction.probabilities) == 3
        assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)
    found = predict(exported.run.export_dir / "float32.tflite", pictures)
    assert [prediction.labels for prediction in found] == [prediction.labels for prediction in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    for variant, row in exported.results.set_index("variant").iterrows():
        answers = predict(exported.run.export_dir / f"{variant}.tflite", pictures)
        for one, other in zip(answers, wanted, strict=True):
            theirs = dict(zip(other.labels, other.probabilities, strict=True))
            for label, probability in zip(one.labels, one.probabilities, strict=True):
                if label in theirs:
                    assert abs(probability - theirs[label]) < 2 * row["max_abs_difference"] + 0.01


def test_segmentation_gives_shares_of_the_pixels(tmp_path):
    output = np.zeros((2, 4, 3), np.float32)
    output[0, :, 2] = output[1, :3, 1] = output[1, 3, 0] = 1
    found = _top(tmp_path, output, ("sky", "road", "car"))
    assert found == Prediction(tmp_path, ("car", "road", "sky"), (0.5, 0.375, 0.125))


def test_table_has_one_row_per_image(tmp_path):
    table = to_table([Prediction(tmp_path / "a.png", ("cat", "dog"), (0.75, 0.25))])
    assert table.to_dict("records") == [
        {"image": str(tmp_path / "a.png"), "label": "cat", "probability": 0.75, "then": "dog 0.250"}
    ]


def test_file_without_its_companions_is_one_sentence(variant_files, pictures, user_error):
    with user_error("int8.tflite", "no labels.txt beside it"):
        predict(variant_files["int8"], pictures)


def test_labels_of_another_model_are_noticed(exported, tmp_path, pictures, user_error):
    for name in ("float32.tflite", "preprocess.json"):
        (tmp_path / name).write_bytes((exported.run.export_dir / name).read_bytes())
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with user_error("10 classes", "labels.txt", "2"):
        predict(tmp_path / "float32.tflite", pictures)
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij"))
    (tmp_path / "preprocess.json").write_text("{}")
    with user_error("preprocess.json", "image_size"):
        predict(tmp_path / "float32.tflite", pictures)


def test_labels_end_at_line_feeds_only(exported, tmp_path, pictures):
    for name in ("float32.tflite", "preprocess.json"):
        (tmp_path / name).write_bytes((exported.run.export_dir / name).read_bytes())
    (tmp_path / "labels.txt").write_text("".join(f"{digit}\u2028\x0b\n" for digit in range(10)), encoding="utf-8")
    [found] = predict(tmp_path / "float32.tflite", pictures[:1])
    [wanted] = predict(exported.run.path, pictures[:1])
    assert found.labels[0] == f"{wanted.labels[0]}\u2028\x0b"


def test_wrong_model_and_wrong_images_are_one_sentence(exported, tmp_path, pictures, user_error):
    with user_error("does not exist"):
        predict(tmp_path / "none", pictures)
    with user_error("0.png", "neither a run folder nor a .tflite file"):
        predict(pictures[0], pictures)
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    with user_error("text.jpg"):
        predict(exported.run.path, [pictures[0], text])
    with user_error("gone.png"):
        predict(exported.run.path, [tmp_path / "gone.png"])


def test_command_line_prints_json(exported, pictures):
    file = exported.run.export_dir / "uint8.tflite"
    command = [sys.executable, "-m", "pipeline", "predict", str(file), *map(str, pictures), "--json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    answers = predict(file, pictures)
    assert [row["labels"][0] for row in rows] == [answer.labels[0] for answer in answers]
    assert [row["image"] for row in rows] == [str(path) for path in pictures]
