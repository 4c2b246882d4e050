"""Score a finished run on one split and write everything there is to know about it beside the run."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from pipeline.config import FREE, Experiment
from pipeline.data.input import Prepared
from pipeline.data.opening import decode_split, open_source
from pipeline.data.source import Source
from pipeline.errors import UserError
from pipeline.evaluation import figures
from pipeline.evaluation.pictures import base64_pngs
from pipeline.evaluation.preview import write_preview
from pipeline.evaluation.report import write_report
from pipeline.evaluation.scoring import Mistake, Scored, keras_predictor, load_model, save_scores, score, scoring_task
from pipeline.evaluation.statistics import Interval
from pipeline.evaluation.views import average_views
from pipeline.runs import Run, write_atomically
from pipeline.tasks.base import Task

log = logging.getLogger(__name__)

METRICS = "metrics.json"


@dataclass(frozen=True)
class Evaluation:
    """The scores of a run on one split; `folder` holds them as files."""

    run: Run
    split: str
    folder: Path
    metrics: dict[str, Interval]
    tables: dict[str, pd.DataFrame]
    scored: Scored

    @property
    def report_path(self) -> Path:
        """Return the page that shows all of it."""
        return self.run.report_path

    def table(self) -> pd.DataFrame:
        """Return one row per measure: value, 95 % interval, n."""
        return pd.DataFrame([{"measure": name, **asdict(found)} for name, found in self.metrics.items()])


def evaluate(
    run: Run | Path | str, *, split: str = "test", overrides: Sequence[str] = (), tta: str | None = None
) -> Evaluation:
    """Score a run's model on a split, and write `evaluation/<split>/` and the report.

    Overrides such as `data.source.path=...` score it on other data, which must have the same classes; what is written
    then goes to a folder of its own, so that the run's own scores stay. So does what is scored with test-time
    augmentation, `tta` of `flip` or `crops` (pipeline.evaluation.views): to `evaluation/<split>-tta/`.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    own = run.experiment
    experiment = own.replace(overrides, only=FREE)
    is_own = experiment.data.source == own.data.source
    source = _source(run, experiment, split, is_own)
    task = scoring_task(experiment.task.name, run.classes, experiment.task.options)
    prepared = _prepare(experiment, source, split, task)
    predict = keras_predictor(load_model(run), task)
    if tta is not None:
        predict = average_views(predict, tta, task)
    scored = score(predict, prepared, task, experiment.data.batch_size)
    name = split if is_own else f"{split}-{_slug(experiment.data.source.options)}"
    evaluation = Evaluation(
        run=run,
        split=split,
        folder=run.evaluation_dir(name if tta is None else f"{name}-tta"),
        metrics=scored.intervals(task),
        tables=task.tables(scored.scores),
        scored=scored,
    )
    if is_own and "train" in source.splits:
        write_preview(run, source)
    source_options = experiment.data.source.model_dump(mode="json")
    _write(evaluation, task, {"source": source_options, "corrupt": prepared.corrupt, "tta": tta})
    write_report(run)
    return evaluation


def _source(run: Run, experiment: Experiment, split: str, is_own: bool) -> Source:
    # A run validates on a part of its train split, which is then no longer train; of other data train is all of it.
    source = open_source(experiment.data, experiment.train.seed, validated=is_own or split == "validation")
    source.split(split)
    if source.classes != run.classes:
        missing = [name for name in run.classes if name not in source.classes]
        extra = [name for name in source.classes if name not in run.classes]
        parts = [("it lacks", missing), ("it adds", extra)]
        differ = [f"{kind} {', '.join(map(repr, names[:5]))}" for kind, names in parts if names]
        raise UserError(
            f"the classes of this data are not those of {run.path}: {' and '.join(differ) or 'their order differs'}; "
            "give data with the same classes, in the same order."
        )
    return source


def _prepare(experiment: Experiment, source: Source, split: str, task: Task) -> Prepared:
    missing = [field for field in task.fields if field not in source.fields]
    if missing:
        raise UserError(f"this data has no {' and no '.join(missing)}, which the task {experiment.task.name} needs.")
    return decode_split(experiment.data, source.splits[split], task.fields, len(source.classes), split)


def _slug(options: dict) -> str:
    """Name other data after its options, fit for a folder name."""
    text = "-".join(str(value) for value in options.values() if value is not None)
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[-60:] or "other"


def _write(evaluation: Evaluation, task: Task, about: dict) -> None:
    """Write figures, tables, answers and pictures, the figures last: where they are, the rest is."""
    folder, scored = evaluation.folder, evaluation.scored
    rows = task.rows(scored.scores)
    rows.insert(0, "id", scored.ids)
    write_atomically(folder / "predictions.csv", rows.to_csv(index=False))
    save_scores(folder, scored)
    for name, table in evaluation.tables.items():
        write_atomically(folder / f"{name}.csv", table.to_csv(index=table.index.name is not None))
        if name in _PICTURES:
            write_atomically(folder / f"{name}.png", _PICTURES[name](table))
    _write_mistakes(folder, task, scored.worst)
    about |= {
        "split": evaluation.split,
        "legend": task.legend,
        "lower_is_better": [name for name, measure in task.measures.items() if not measure.higher_is_better],
    }
    write_atomically(folder / "about.json", json.dumps(about, indent=2, default=str) + "\n")
    metrics = {name: asdict(found) for name, found in evaluation.metrics.items()}
    write_atomically(folder / METRICS, json.dumps(metrics, indent=2) + "\n")


_PICTURES = {"confusion": figures.confusion, "calibration": figures.calibration}


def _write_mistakes(folder: Path, task: Task, worst: Sequence[Mistake]) -> None:
    """Write the pictures as one grid for people, and one by one for the report."""
    shown = [task.show(one.image, one.y, one.prediction) for one in worst]
    if shown:
        write_atomically(folder / "mistakes.png", figures.mistakes(shown, task.legend))
    else:
        (folder / "mistakes.png").unlink(missing_ok=True)  # an earlier evaluation's
    pngs = base64_pngs([picture for picture, _ in shown])
    cards = [
        {"id": one.id, "caption": caption, "png": png}
        for one, (_, caption), png in zip(worst, shown, pngs, strict=True)
    ]
    write_atomically(folder / "mistakes.json", json.dumps(cards, indent=1) + "\n")
