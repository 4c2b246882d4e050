"""Test-time augmentation: averages by hand, and scores that stand beside the plain ones."""

import json

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.scoring import keras_predictor, load_model, scoring_task
from pipeline.evaluation.views import average_views

RNG = np.random.default_rng(0)
LABELS = scoring_task("classification", ("a", "b"), {})
MASKS = scoring_task("segmentation", ("a", "b"), {})


def test_flip_averages_an_image_and_its_mirror_image():
    predict = average_views(lambda images: images[:, 0, :2, 0], "flip", LABELS)
    image = np.float32([[[[1], [2], [5], [8]]]])
    np.testing.assert_array_equal(predict(image), [[4.5, 3.5]])


def test_flipped_masks_are_flipped_back():
    image = RNG.random((2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(average_views(lambda images: images, "flip", MASKS)(image), image)
    # A predictor that looks to its left only: averaged it looks to both sides.
    left = average_views(lambda images: np.roll(images, 1, axis=2), "flip", MASKS)(image)
    np.testing.assert_allclose(left, (np.roll(image, 1, axis=2) + np.roll(image, -1, axis=2)) / 2)


def test_crops_are_the_corners_and_the_centre():
    seen = []

    def predict(images):
        seen.append(images)
        return images.mean(axis=(1, 2))

    image = np.zeros((1, 16, 16, 2), np.float32)
    image[0, 0, 0], image[0, 15, 15] = (1, 0), (0, 1)
    image[0, 1:15, 1:15] = 0.5
    answers = average_views(predict, "crops", LABELS)(image)
    assert [one.shape for one in seen] == [image.shape] * 5
    first, last, centre = seen[0], seen[4], seen[2]
    assert (first[0, 0, 0].tolist(), last[0, 15, 15].tolist()) == ([1, 0], [0, 1])
    np.testing.assert_allclose(centre, 0.5)
    np.testing.assert_allclose(answers, np.mean([one.mean(axis=(1, 2)) for one in seen], axis=0))


@pytest.mark.parametrize(
    ("views", "task", "message"),
    [
        ("rotate", LABELS, "there is no test-time augmentation 'rotate'; it can be flip or crops"),
        ("crops", MASKS, "answers for mask cannot be averaged over crops; use flip"),
    ],
)
def test_views_that_cannot_be_averaged_are_refused(views, task, message):
    with pytest.raises(UserError, match=message):
        average_views(lambda images: images, views, task)


def test_its_score_stands_in_a_folder_of_its_own(digits_run):
    found = evaluate(digits_run, tta="flip")
    assert found.folder == digits_run.evaluation_dir("test-tta")
    assert not digits_run.evaluation_dir("test").exists()
    assert json.loads((found.folder / "about.json").read_text())["tta"] == "flip"
    assert "answers averaged over flip" in digits_run.report_path.read_text()
    # An answer, worked out with the model itself.
    task = scoring_task("classification", digits_run.classes, {})
    predict = keras_predictor(load_model(digits_run), task)
    worst = found.scored.worst[0]
    plain, mirrored = predict(worst.image[None]), predict(worst.image[None, :, ::-1])
    np.testing.assert_allclose(worst.prediction[None], (plain + mirrored) / 2, atol=1e-6)
    assert np.abs(plain - mirrored).max() > 1e-3
