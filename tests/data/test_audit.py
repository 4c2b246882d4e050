"""The data doctor finds planted copies, leaks, conflicts and rare classes, and nothing in clean data."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import Experiment
from pipeline.evaluation.preview import examine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make 12 different pictures of each of two classes in train, 4 in validation and 4 in test."""
    rng = np.random.default_rng(0)
    for split, many in (("train", 12), ("validation", 4), ("test", 4)):
        for kind in ("ant", "bee"):
            (tmp_path / split / kind).mkdir(parents=True)
            for i in range(many):
                pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / kind / f"{i}.png")
    return tmp_path


def found(folder: Path) -> dict[tuple[str, str], int]:
    experiment = Experiment.load("folder", [f"data.source.path={folder}", "data.image_size=[16, 16]"])
    return {(row.finding, row.where): row.images for row in examine(experiment).itertuples()}


def test_clean_data_has_no_finding(folder):
    assert found(folder) == {}


def test_copies_leaks_and_conflicts_are_counted(folder):
    shutil.copy(folder / "train" / "ant" / "0.png", folder / "train" / "ant" / "copy.png")
    Image.open(folder / "train" / "ant" / "1.png").save(folder / "test" / "ant" / "other format.bmp")
    shutil.copy(folder / "train" / "bee" / "2.png", folder / "train" / "ant" / "mislabelled.png")
    assert found(folder) == {
        ("duplicate", "train"): 2,
        ("leak", "train and test"): 1,
        ("conflict", "such as ant and bee"): 2,
    }


def test_examples_are_the_pictures_that_the_finding_is_about(folder):
    for name in ("copy", "again"):
        shutil.copy(folder / "train" / "ant" / "0.png", folder / "train" / "ant" / f"{name}.png")
    shutil.copy(folder / "train" / "ant" / "0.png", folder / "test" / "bee" / "leaked.png")
    experiment = Experiment.load("folder", [f"data.source.path={folder}", "data.image_size=[16, 16]"])
    examples = {row.finding: row.examples for row in examine(experiment).itertuples()}
    assert examples["leak"] == examples["conflict"] == "train/ant/0.png = test/bee/leaked.png"


def test_near_copies_are_told_apart_from_copies(folder):
    rng = np.random.default_rng(1)
    pictures = [Image.fromarray(rng.integers(0, 240, (6, 6, 3), np.uint8)).resize((64, 64)) for _ in range(2)]
    again = [one.resize((50, 50)).point(lambda level: level + 6) for one in pictures]
    for path, picture in {
        "train/bee/first": pictures[0],
        "train/bee/the same": pictures[0],
        "train/bee/near": again[0],
        "test/bee/near": again[0],
        "train/bee/second": pictures[1],
        "validation/bee/near": again[1],
    }.items():
        picture.save(folder / f"{path}.png")
    assert found(folder) == {
        ("duplicate", "train"): 1,
        ("near duplicate", "train"): 1,
        ("leak", "train and test"): 1,  # the two near copies, which equal each other
        ("near leak", "train and validation"): 1,
        ("near leak", "train and test"): 1,
    }


def test_a_near_copy_with_another_label_is_a_conflict(folder):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 240, (6, 6, 3), np.uint8)).resize((64, 64))
    picture.save(folder / "train" / "bee" / "first.png")
    picture.resize((50, 50)).save(folder / "train" / "ant" / "mislabelled.png")
    assert found(folder) == {("near duplicate", "train"): 1, ("near conflict", "such as ant and bee"): 2}


def test_a_rare_class_is_named(folder):
    for path in list((folder / "train" / "bee").iterdir())[1:]:
        path.unlink()
    assert found(folder) == {("rare", "bee"): 1}


def test_masks_have_no_labels_to_conflict():
    settings = ["data.source.train=12", "data.source.test=4", "data.image_size=[32, 32]"]
    assert examine(Experiment.load("scenes_segmentation", settings)).empty
