"""The images whose answer flipped, each with what the Keras model and what the file looked at."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.evaluation.pictures import base64_pngs
from pipeline.evaluation.scoring import Predict
from pipeline.explain.occlusion import occlusion, runs
from pipeline.explain.overlay import overlay
from pipeline.export.agreement import MOST_FLIPS, Answers, Flip
from pipeline.tasks.base import Task

Captioned = tuple[np.ndarray, str]
SECONDS = 2.0  # that all heat maps of an export may take, about


def affordable(milliseconds: float) -> int:
    """Return for how many images there is time to hide every part, at so long a run; the Keras model takes as long."""
    return min(MOST_FLIPS, int(1000 * SECONDS / (2 * runs() * milliseconds)))


def cards(answers: Answers, task: Task, variant: str, sides: Mapping[str, Predict], heated: int) -> dict[str, Any]:
    """Return what flips.json holds: how many answers flipped, and the first images, some of them with heat maps.

    Args:
        answers: the variant's.
        sides: the Keras model and the file as predictors, in this order, by the names that captions give them.
        heated: how many images get heat maps.
    """
    shown = [
        (_seen(flip, task, variant), _heats(flip, task, sides) if number < heated else [])
        for number, flip in enumerate(answers.flips)
    ]
    pngs = iter(base64_pngs([picture for one, heats in shown for picture, _ in (one, *heats)]))
    found = [
        {"id": flip.id, "caption": caption, "png": next(pngs)}
        | {"heats": [{"caption": words, "png": next(pngs)} for _, words in heats]}
        for flip, ((_, caption), heats) in zip(answers.flips, shown, strict=True)
    ]
    of = len(next(iter(answers.scores.values())))
    return {"variant": variant, "count": answers.flipped, "of": of, "cards": found}


def _seen(flip: Flip, task: Task, variant: str) -> Captioned:
    picture, caption = task.show(flip.image, flip.y, flip.before)
    label = int(flip.after.argmax())
    return picture, f"{caption}; {variant}: {task.classes[label]} ({flip.after[label]:.0%})"


def _heats(flip: Flip, task: Task, sides: Mapping[str, Predict]) -> list[Captioned]:
    """Draw for each side what speaks for its own answer, on one scale of colours."""
    labels = [int(side.argmax()) for side in (flip.before, flip.after)]
    maps = [occlusion(predict, flip.image, label) for predict, label in zip(sides.values(), labels, strict=True)]
    most = max(float(heat.max()) for heat in maps)
    return [
        (
            overlay(flip.image, heat, most),
            f"{name}: {task.classes[label]}, up to {100 * max(heat.max(), 0):.0f} points",
        )
        for name, label, heat in zip(sides, labels, maps, strict=True)
    ]
