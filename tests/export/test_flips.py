"""Heat maps of flipped answers: each side's own answer, on one scale, as many as there is time for."""

import base64
import io

import numpy as np
from PIL import Image

from pipeline.export.agreement import MOST_FLIPS, Answers
from pipeline.export.flips import affordable, cards
from pipeline.registry import TASKS

TASK = TASKS.build("classification", ("cat", "dog"), [1, 1])
SHAPE = (16, 16, 3)


def side(corner: np.ndarray, label: int):
    """Return a predictor that is the surer of `label` the brighter this corner (8 × 8 pixels) is."""

    def predict(images: np.ndarray) -> np.ndarray:
        share = images[:, corner[0] : corner[0] + 8, corner[1] : corner[1] + 8].mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - share, share] if label else [share, 1 - share], axis=1).astype(np.float32)

    return predict


def flipped(count: int) -> Answers:
    answers = Answers()
    images = np.zeros((count, *SHAPE), np.uint8)
    images[:, :8, :8], images[:, 8:, 8:] = 250, 200
    before, after = (np.tile(one, (count, 1)).astype(np.float32) for one in ([0.9, 0.1], [0.2, 0.8]))
    y = np.tile([0.0, 1.0], (count, 1)).astype(np.float32)
    answers.add(TASK, y, after, before)
    answers.add_flips(images, {"y": y, "id": np.array([f"{i}".encode() for i in range(count)])}, after, before)
    return answers


def brightness(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"), float)


def test_each_side_shows_what_speaks_for_its_own_answer():
    sides = {"keras": side((0, 0), 0), "int8": side((8, 8), 1)}
    found = cards(flipped(3), TASK, "int8", sides, heated=2)
    assert (found["count"], found["of"]) == (3, 3)
    assert [len(card["heats"]) for card in found["cards"]] == [2, 2, 0]
    keras, file = found["cards"][0]["heats"]
    assert keras["caption"].startswith("keras: cat, up to ")
    assert file["caption"].startswith("int8: dog, up to ")
    for heat, hot, cold in ((keras, (2, 2), (13, 13)), (file, (13, 13), (2, 2))):
        assert brightness(heat["png"])[hot] > brightness(heat["png"])[cold] + 60
    # One scale: the upper corner is the brighter one, so more is lost there.
    assert brightness(keras["png"])[2, 2] > brightness(file["png"])[13, 13] + 10


def test_slow_files_get_fewer_heat_maps():
    assert affordable(0.1) == MOST_FLIPS
    assert affordable(5.0) == 2  # 82 runs of 5 ms, and the Keras model as long: 0.82 s for each image
    assert affordable(100.0) == 0
