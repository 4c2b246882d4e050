"""Pseudo-labels: what a trained run says of unlabelled images, where it is sure, for a student to learn from.

Lee, Pseudo-Label (ICML 2013 workshop); that the student starts anew, and that no class may crowd out the others, is
Noisy Student's (arXiv 1911.04252). How right the labels are is measured on the run's validation images.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import Experiment
from pipeline.data.audit import find_copies
from pipeline.data.files import list_images, unlabelled_files
from pipeline.data.headers import EXTENSIONS
from pipeline.data.input import Prepared
from pipeline.data.opening import decode_split, open_source
from pipeline.data.pseudo import ABOUT, require_files
from pipeline.errors import UserError
from pipeline.evaluation.scoring import Predict, keras_predictor, load_model, score, scoring_task
from pipeline.ops.intervals import wilson
from pipeline.runs import Run, write_atomically
from pipeline.tasks.base import Scores

log = logging.getLogger(__name__)

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SKEW = 2.0  # times more pseudo-labels for each labelled image than the median class has: what is above is left out


@dataclass(frozen=True)
class PseudoLabels:
    """A folder of `labels.csv`, `thresholds.csv`, `about.json`, and `student.yaml`, the experiment that learns from it.

    `thresholds` has a row per threshold: threshold, the validation images above it, their mean confidence, and the
    share of them that is right (precision, low, high), and the unlabelled images above it. `counts` has a row per
    class: labelled training images, and pseudo-labels that were kept.
    """

    folder: Path
    about: dict
    thresholds: pd.DataFrame
    counts: pd.DataFrame

    def summary(self) -> str:
        """Say how many images were kept, how right such labels are, and what was left out."""
        told = self.about
        shown = "no validation image is that sure, so that nothing says how many are right"
        if told["n"]:
            interval = f"[{told['low']:.1%}, {told['high']:.1%}]"
            shown = f"of {told['n']} validation images that sure {told['precision']:.1%} are right {interval}"
        return (
            f"{told['kept']} of {told['images']} images labelled at a confidence of {told['threshold']:.6g} or more; "
            f"{shown}; left out: {told['unsure']} below it, {told['copies']} copies of labelled images, "
            f"{told['crowding']} of classes that crowd out others"
        )


def pseudo_label(
    run: Run | Path | str,
    images: Path | str,
    out: Path | str,
    *,
    threshold: float = 0.95,
    precision: float | None = None,
    force: bool = False,
) -> PseudoLabels:
    """Label the images of a folder with a trained run, where it is sure enough, and write them for a student.

    Images that are nearly one of the run's own, of any split, are left out: a copy of a test or validation image would
    make its score a lie. Validation has chosen the run's epoch, so that its precision is a little optimistic; it holds
    for images of the same kind.

    Args:
        threshold: the least confidence, above 0 and at most 1.
        precision: instead of it, the share of right labels that is wanted: the threshold is then the lowest one that
            has it on the validation images.

    Raises UserError for a run that does not classify, a folder without images, a threshold or precision that is none,
    where nothing is left, and where `out` exists, unless `force`.
    """
    run, images, out = run if isinstance(run, Run) else Run.open(run), Path(images).expanduser(), Path(out)
    experiment = run.experiment
    wanted, name = (threshold, "--threshold") if precision is None else (precision, "--precision")
    if not 0 < wanted <= 1:
        raise UserError(f"{name} {wanted} is no share; give one above 0 and at most 1", usage=True)
    if experiment.task.name != "classification":
        raise UserError(f"{run.path} is a run of {experiment.task.name}; pseudo-labels need one of classification")
    if out.exists() and not force:
        raise UserError(f"{out} exists; give another --out, or --force to write it anew")
    source = open_source(experiment.data, experiment.train.seed)
    require_files(source)
    unlabelled = _open_images(experiment, images)
    known = {
        name: decode_split(experiment.data, split, ("label",), len(run.classes), name)
        for name, split in source.splits.items()
    }
    task = scoring_task(experiment.task.name, run.classes, experiment.task.options)
    predict, size = keras_predictor(load_model(run), task), experiment.data.batch_size
    checked = score(predict, known["validation"], task, size, worst=0).scores
    if precision is not None:
        threshold = _threshold_for(precision, checked)
    ids, probabilities = _answers(predict, unlabelled, size)
    table = tabulate(checked, probabilities, threshold)
    labels = source.split("train").labels
    kept, left_out = _choose(ids, probabilities, threshold, labels, find_copies(unlabelled, known))
    at = table[table["threshold"] == threshold].iloc[0]
    about = {"teacher": str(run.path), "folder": str(images), "threshold": threshold, "n": int(at["validation"])}
    if about["n"]:
        about |= {key: float(at[key]) for key in ("precision", "low", "high")}
    about |= {"images": len(ids), "kept": len(kept), **left_out}
    counts = _count(run.classes, labels, probabilities[kept])
    found = PseudoLabels(out, about, table, counts)
    _write(found, run, [ids[index] for index in kept], probabilities[kept])
    return found


def tabulate(checked: Scores, probabilities: np.ndarray, threshold: float) -> pd.DataFrame:
    """Return, for common thresholds and the one given, how right and how many the answers above it are."""
    sure, unlabelled = checked["probabilities"].max(axis=1), probabilities.max(axis=1)
    rows = []
    for level in sorted({*LEVELS, threshold}):
        above = sure >= level
        right = wilson(int(checked["correct"][above].sum()), int(above.sum()))
        mean = float(sure[above].mean()) if above.any() else float("nan")
        interval = {"precision": right.value, "low": right.low, "high": right.high}
        row = {"threshold": level, "validation": right.n, "confidence": mean, **interval}
        rows.append({**row, "unlabelled": int((unlabelled >= level).sum())})
    return pd.DataFrame(rows)


def _threshold_for(precision: float, checked: Scores) -> float:
    """Return the lowest confidence from which on so large a share of the validation answers is right."""
    sure = checked["probabilities"].max(axis=1)
    order = np.argsort(-sure, kind="stable")
    shares = np.cumsum(checked["correct"][order]) / np.arange(1, len(order) + 1)
    ends = np.append(np.diff(sure[order]) < 0, True)  # equally sure answers are above a threshold together
    enough = np.flatnonzero(ends & (shares >= precision))
    if not len(enough):
        raise UserError(
            f"at no confidence are {precision:.1%} of the {len(order)} validation answers right, at most "
            f"{shares[ends].max():.1%}; give a lower --precision, or a better run"
        )
    return float(sure[order][enough[-1]])


def _open_images(experiment: Experiment, folder: Path) -> Prepared:
    if not folder.is_dir():
        raise UserError(f"the folder {folder} {'is a file' if folder.exists() else 'does not exist'}; give IMAGES")
    names, _ = list_images(folder, "", EXTENSIONS)
    if not names:
        raise UserError(f"{folder} holds no images; give a folder of unlabelled ones")
    return decode_split(experiment.data, unlabelled_files(folder, names), (), 0, "the unlabelled images")


def _answers(predict: Predict, images: Prepared, batch_size: int) -> tuple[list[str], np.ndarray]:
    """Return the ids and the probabilities (N, K) of all images."""
    ids, answers = [], []
    for batch in images.evaluation(batch_size, lambda sample: ()):
        real = batch["weight"].numpy() > 0
        ids += [one.decode() for one in batch["id"].numpy()[real]]
        answers.append(predict(batch["image"])[real])
    return ids, np.concatenate(answers)


def _choose(
    ids: Sequence[str], probabilities: np.ndarray, threshold: float, labels: np.ndarray, copies: dict[str, str]
) -> tuple[np.ndarray, dict[str, int]]:
    """Return the indices that are kept, ascending, and how many were left out for each reason."""
    sure, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    is_copy = np.array([one in copies for one in ids])
    above = np.flatnonzero((sure >= threshold) & ~is_copy)
    if not len(above):
        raise UserError(
            f"no image is labelled at a confidence of {threshold:.6g}: the surest that is no copy has "
            f"{sure[~is_copy].max(initial=0.0):.6g}; give a lower --threshold"
        )
    kept = even_out(answers[above], sure[above], np.bincount(labels, minlength=probabilities.shape[1]))
    copied = int(is_copy.sum())
    left_out = {"unsure": len(ids) - copied - len(above), "copies": copied, "crowding": len(above) - len(kept)}
    return above[kept], left_out


def even_out(answers: np.ndarray, sure: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return the indices of answers, ascending, of which no class has too many: its surest are kept.

    Args:
        answers: int (N,), the classes.
        sure: float (N,), the confidences.
        labelled: int (K,), how many images of each class have a true label: at most SKEW times the median class's
            pseudo-labels per labelled image are kept; classes without any do not count for the median.
    """
    ratios = np.bincount(answers, minlength=len(labelled)) / np.maximum(labelled, 1)
    most = np.ceil(SKEW * np.median(ratios[ratios > 0]) * labelled).astype(int)
    order = np.argsort(-sure, kind="stable")
    kept = [order[answers[order] == label][:limit] for label, limit in enumerate(most)]
    return np.sort(np.concatenate(kept))


def _count(classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    given = np.bincount(probabilities.argmax(axis=1), minlength=len(classes))
    missing = [name for name, count in zip(classes, given, strict=True) if not count]
    if missing:
        log.warning("no image was labelled %s: the student sees only what is labelled of it", " or ".join(missing))
    labelled = np.bincount(labels, minlength=len(classes))
    return pd.DataFrame({"class": classes, "labelled": labelled, "pseudo-labelled": given})


def _write(found: PseudoLabels, run: Run, ids: Sequence[str], probabilities: np.ndarray) -> None:
    """Write the folder, the student's experiment last: where it is, the rest is."""
    names = np.array(run.classes, dtype=object)[probabilities.argmax(axis=1)]
    told = [json.dumps([round(float(p), 6) for p in row]) for row in probabilities]
    sure = probabilities.max(axis=1).round(6)
    rows = pd.DataFrame({"image": ids, "label": names, "confidence": sure, "probabilities": told})
    folder = found.folder
    write_atomically(folder / "labels.csv", rows.to_csv(index=False))
    write_atomically(folder / "thresholds.csv", found.thresholds.to_csv(index=False))
    write_atomically(folder / ABOUT, json.dumps(found.about, indent=2) + "\n")
    values = run.experiment.model_dump(mode="json") | {"compress": None, "search": None}
    values["data"]["pseudo"] = {"images": found.about["folder"], "labels": str(folder / "labels.csv")}
    write_atomically(folder / "student.yaml", Experiment.parse(values, "student.yaml").to_yaml())
