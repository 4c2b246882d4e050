"""Pseudo-labels: who is kept, who is left out and why, and what is said of how right they are."""

import json
import zlib
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.runs import Run, write_atomically
from pipeline.studies.pseudo_label import even_out, pseudo_label
from pipeline.training.setup import open_task


def picture(path: Path, level: int) -> None:
    """Write noise about a grey level; the planted model takes what is brighter than 127.5 for an owl."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32("/".join(path.parts[-3:]).encode())).integers(-20, 21, (16, 16, 3))
    Image.fromarray((level + noise).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Make a finished run whose model is sure of an image by its distance from middle grey."""
    folder = tmp_path_factory.mktemp("pseudo")
    for split, many in (("train", 8), ("test", 2)):
        for index in range(many):
            picture(folder / "labelled" / split / "bat" / f"{index}.png", 40 + index)
            picture(folder / "labelled" / split / "owl" / f"{index}.png", 200 + index)
    # By confidence the answers are right (0.89), right (0.88), wrong (0.70) and right (0.63).
    picture(folder / "labelled" / "validation" / "bat" / "0.png", 60)
    picture(folder / "labelled" / "validation" / "bat" / "1.png", 110)
    picture(folder / "labelled" / "validation" / "owl" / "0.png", 190)
    picture(folder / "labelled" / "validation" / "owl" / "1.png", 100)
    overrides = [f"data.source.path={folder / 'labelled'}", "data.image_size=[16, 16]", "data.augment=[]"]
    found = Run.create(folder / "run", Experiment.load("folder", overrides))
    found.note(classes=["bat", "owl"])
    image = keras.Input((16, 16, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 127.5, -1)(image))
    dense = keras.layers.Dense(2)
    model = keras.Model(image, dense(mean))
    dense.set_weights([np.array([[-2.0, 2.0]] * 3) / 3, np.zeros(2)])
    write_atomically(found.model_path, model.save)
    return found


@pytest.fixture
def images(tmp_path) -> Path:
    """Make unlabelled images: three sure bats, two sure owls and one unsure."""
    for index, level in enumerate((20, 25, 30, 220, 225, 130)):
        picture(tmp_path / "more" / "new" / f"{index}.png", level)
    return tmp_path / "more"


def test_the_sure_are_kept_and_copies_left_out(run, images, tmp_path, caplog):
    copied = Image.open(run.path.parent / "labelled" / "test" / "owl" / "1.png")
    copied.save(images / "again.bmp")
    copied.point(lambda level: level + 4).save(images / "brighter.png")
    found = pseudo_label(run, images, tmp_path / "out", threshold=0.8)
    labels = pd.read_csv(tmp_path / "out" / "labels.csv").set_index("image")["label"]
    assert labels.to_dict() == {f"new/{i}.png": "bat" if i < 3 else "owl" for i in range(5)}
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert {key: about[key] for key in ("images", "kept", "unsure", "copies", "crowding", "n", "precision")} == {
        **{"images": 8, "kept": 5, "unsure": 1, "copies": 2, "crowding": 0, "n": 2, "precision": 1.0}
    }
    assert about["low"] == pytest.approx(0.342, abs=1e-3)  # Wilson, 2 of 2
    assert found.counts["pseudo-labelled"].tolist() == [3, 2]
    at = found.thresholds.set_index("threshold")
    assert at.loc[0.5, ["validation", "precision", "unlabelled"]].tolist() == [4, 0.75, 8]
    with pytest.raises(UserError, match="exists; give another --out, or --force"):
        pseudo_label(run, images, tmp_path / "out")


def test_the_student_learns_from_them(run, images, tmp_path):
    pseudo_label(run, images, tmp_path / "out", threshold=0.8)
    student = Experiment.load(tmp_path / "out" / "student.yaml", ["data.pseudo.soft=true"])
    source, _ = open_task(student)
    assert source.splits["train"].count == 16 + 5
    assert student.replace(["data.pseudo=null"]) == run.experiment


def test_the_threshold_is_the_lowest_that_is_right_enough(run, images, tmp_path):
    found = pseudo_label(run, images, tmp_path / "out", precision=0.75)
    assert (found.about["n"], found.about["precision"]) == (4, 0.75)
    found = pseudo_label(run, images, tmp_path / "out", precision=0.9, force=True)
    assert (found.about["n"], found.about["precision"]) == (2, 1.0)
    assert "2 validation images that sure 100.0% are right [34.2%, 100.0%]" in found.summary()
    found = pseudo_label(run, images, tmp_path / "out", threshold=0.95, force=True)
    assert "no validation image is that sure" in found.summary()
    assert "precision" not in json.loads((tmp_path / "out" / "about.json").read_text())


def test_no_class_crowds_out_the_others():
    answers = np.array([0] * 12 + [1] * 2 + [2] * 3)
    sure = np.linspace(0.9, 0.99, len(answers))
    # Ratios to the labelled images are 12, 1 and 3 to 1: at most twice 3 for each labelled image are kept.
    kept = even_out(answers, sure, np.array([1, 2, 1]))
    assert kept.tolist() == [*range(6, 12), 12, 13, 14, 15, 16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "--threshold 0.0 is no share"),
        ({"threshold": 1.5}, "--threshold 1.5 is no share"),
        ({"precision": -1.0}, "--precision -1.0 is no share"),
        ({"threshold": 1.0}, "no image is labelled at a confidence of 1: the surest that is no copy has 0.96"),
    ],
)
def test_what_cannot_be_is_one_sentence(run, images, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        pseudo_label(run, images, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_wrong_run_and_an_empty_folder_are_one_sentence(run, images, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no images"):
        pseudo_label(run, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match=r"nowhere does not exist; give IMAGES"):
        pseudo_label(run, tmp_path / "nowhere", tmp_path / "out")
    pixels = Run.create(tmp_path / "pixels", Experiment.load("scenes_segmentation"))
    pixels.model_path.touch()
    with pytest.raises(UserError, match=r"is a run of segmentation; pseudo-labels need one of classification"):
        pseudo_label(pixels, images, tmp_path / "out")


def test_the_command_prints_how_right_they_are(run, images, tmp_path, run_cli):
    out = tmp_path / "out"
    code, *printed = run_cli("pseudo", run.path, images, "--precision=0.9", f"--out={out}")
    assert code == 0
    printed = " ".join("".join(printed).split())
    assert "5 of 6 images labelled at a confidence of 0.8" in printed
    assert f"pipeline train {out}/student.yaml --run {run.path}-student" in printed
