"""How hard each training image is: the loss that a trained run has on it (transfer scoring, arXiv 1904.03626)."""

import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.data.batches import Pacing, Streamed
from pipeline.data.input import Prepared
from pipeline.errors import UserError
from pipeline.sections.training import EasyFirst

_BATCH = 256


def pace(images: Prepared, easy_first: EasyFirst, steps: int) -> Pacing:
    """Return how a training of so many steps comes to the hard images, from what a run scored on all of them.

    Raises UserError for scores that cannot be read or lack an image, and for images that are read in a fixed order.
    """
    if isinstance(images.reader, Streamed):
        raise UserError("train.curriculum.easy_first needs images that are read in any order; raise data.cache_mb")
    losses = _read(Path(easy_first.scores).expanduser())
    ids = [one.decode() for batch in images.evaluation(_BATCH, _nothing) for one in _real_ids(batch)]
    missing = next((one for one in ids if one not in losses), None)
    if missing is not None:
        raise UserError(
            f"{easy_first.scores} does not know the training image {missing!r}; score a run on these very images: "
            "pipeline eval RUN --split train"
        )
    ranking = np.argsort([losses[one] for one in ids], kind="stable")
    start = max(1, round(easy_first.start * len(ids)))
    return Pacing(tf.constant(ranking, tf.int64), start, max(1, round(easy_first.until * steps)))


def _read(path: Path) -> dict[str, float]:
    try:
        with np.load(path) as stored:
            return dict(zip(stored["id"].tolist(), stored["log_loss"].tolist(), strict=True))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; write it with: pipeline eval RUN --split train") from None
    except (KeyError, OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile):
        raise UserError(f"{path} holds no log loss of each image; take scores.npz of a classification run") from None


def _nothing(batch: dict[str, tf.Tensor]) -> tuple[()]:
    return ()


def _real_ids(batch: dict[str, tf.Tensor]) -> np.ndarray:
    return batch["id"].numpy()[batch["weight"].numpy() > 0]
