"""Cross-validation: how good an experiment is where no images can be spared for a test of their own."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from pipeline.config import Experiment
from pipeline.evaluation.scoring import load_scores, scoring_task
from pipeline.evaluation.statistics import interval
from pipeline.ops.intervals import student
from pipeline.runs import Run, write_atomically
from pipeline.studies.trials import metrics_of, train_and_score
from pipeline.tasks.base import join

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossValidation:
    """A run per fold in `folder`, with their scores as CSV.

    `folds` has a row per fold and measure: fold, run, measure, value, low, high, n. `summary` has a row per measure:
    mean, mean_low, mean_high over the folds (another training on other images), and pooled, low, high, n over all
    images, each answered by the one model that had not seen it (these models, other images).
    """

    folder: Path
    folds: pd.DataFrame
    summary: pd.DataFrame


def cross_validate(experiment: Experiment, folder: Path | str, *, of: int = 5) -> CrossValidation:
    """Train and score an experiment once for each of `of` parts of its training images, which is held out then.

    Every fold is a run like any other, so that a study that was interrupted goes on where it stopped. The source's own
    test split is not touched. The interval over the folds is Student's with Nadeau and Bengio's (2003) correction,
    since two folds share most of their training images.

    Raises UserError as training does.
    """
    folder = Path(folder)
    runs = []
    for index in range(of):
        fold = experiment.replace([f"data.folds={{of: {of}, index: {index}}}"])
        log.info("fold %d of %d", index + 1, of)
        runs.append(train_and_score(fold, folder / f"fold{index + 1}"))
    found = CrossValidation(folder, _tabulate(runs), _summarise(runs))
    write_atomically(folder / "folds.csv", found.folds.to_csv(index=False))
    write_atomically(folder / "summary.csv", found.summary.to_csv(index=False))
    return found


def _tabulate(runs: list[Run]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"fold": index, "run": str(run.path), "measure": name, **asdict(found)}
            for index, run in enumerate(runs, 1)
            for name, found in metrics_of(run).items()
        ]
    )


def _summarise(runs: list[Run]) -> pd.DataFrame:
    own = runs[0].experiment.task
    task = scoring_task(own.name, runs[0].classes, own.options)
    metrics = [metrics_of(run) for run in runs]
    pooled = join([load_scores(run.evaluation_dir("test"))[1] for run in runs])
    tested, trained = len(next(iter(pooled.values()))), sum(run.facts["images"]["train"] for run in runs)
    rows = []
    for name, measure in task.measures.items():
        mean = student([one[name].value for one in metrics], overlap=tested / trained)
        every = interval(measure, pooled)
        rows.append(
            {
                "measure": name,
                **{"mean": mean.value, "mean_low": mean.low, "mean_high": mean.high, "folds": mean.n},
                **{"pooled": every.value, "low": every.low, "high": every.high, "n": every.n},
            }
        )
    return pd.DataFrame(rows)
