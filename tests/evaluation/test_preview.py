"""The look at an experiment's images: counts that add up, and a picture for every task."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import Experiment
from pipeline.evaluation.preview import preview


def test_counts_add_up_to_the_1797_digits():
    table = preview(Experiment.load("digits")).set_index("class")
    assert list(table.columns) == ["train", "validation", "test"]
    assert table.loc["all images"].sum() == 1797
    assert table.loc["all images", "test"] == 899
    assert (table.loc["0":"9"].sum() == table.loc["all images"]).all()
    assert (table.loc["unreadable"] == 0).all()


@pytest.mark.parametrize(
    ("preset", "settings", "width"),
    [
        ("digits", [], 8 * 100),
        # image, truth and truth again side by side, with gaps
        ("scenes_segmentation", ["data.source.train=40", "data.image_size=[32, 32]"], 2 * ((3 * 32 + 2) * 3 + 4)),
    ],
)
def test_picture_shows_augmented_images(preset: str, settings: list[str], width: int, tmp_path: Path):
    path = tmp_path / "grid.png"
    preview(Experiment.load(preset, settings), picture=path)
    with Image.open(path) as picture:
        assert picture.width == width
        assert np.asarray(picture).std() > 20
