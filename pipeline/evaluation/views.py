"""Test-time augmentation: one answer from several views of the image, averaged after decoding.

It costs a prediction for each view, and the exported file does not do it: its score says what more views would give,
not what the phone will.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.evaluation.scoring import Predict
from pipeline.tasks.base import Task

_CROP = 7 / 8  # of each side: 224 of 256 pixels, as in Krizhevsky et al., NeurIPS 2012
_CORNERS = ((0.0, 0.0), (0.0, 1.0), (0.5, 0.5), (1.0, 0.0), (1.0, 1.0))


def average_views(predict: Predict, views: str, task: Task) -> Predict:
    """Return a predictor that averages the decoded answers to several `views` of each image.

    `flip` takes the image and its mirror image, whose masks are mirrored back; `crops` takes four corners and the
    centre, 7/8 of each side, enlarged to the old size. Raises UserError for views that the task's answers cannot be
    averaged over.
    """
    if views not in _VIEWS:
        raise UserError(f"there is no test-time augmentation {views!r}; it can be {' or '.join(_VIEWS)}.", usage=True)
    if task.fields not in (("label",), ("mask",)) or (views == "crops" and task.fields == ("mask",)):
        wanted = "use flip" if task.fields == ("mask",) else "leave --tta out"
        raise UserError(f"answers for {' and '.join(task.fields)} cannot be averaged over {views}; {wanted}.")
    return _VIEWS[views](predict)


def _flip(predict: Predict) -> Predict:
    def average(images: np.ndarray) -> np.ndarray:
        mirrored = predict(images[:, :, ::-1])
        # Answers for pixels, (B, H, W, K), lie mirrored, too.
        return (predict(images) + (mirrored[:, :, ::-1] if mirrored.ndim == 4 else mirrored)) / 2

    return average


def _crops(predict: Predict) -> Predict:
    def average(images: np.ndarray) -> np.ndarray:
        size = images.shape[1:3]
        height, width = (max(1, round(_CROP * side)) for side in size)
        answers = []
        for down, across in _CORNERS:
            top, left = round(down * (size[0] - height)), round(across * (size[1] - width))
            crop = images[:, top : top + height, left : left + width]
            answers.append(predict(tf.image.resize(crop, size).numpy()))
        return np.mean(answers, axis=0)

    return average


_VIEWS: dict[str, Callable[[Predict], Predict]] = {"flip": _flip, "crops": _crops}
