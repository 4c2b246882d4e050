"""One training of a study: made once, scored once, and found again when the study goes on."""

import json
from pathlib import Path

from pipeline.config import Experiment
from pipeline.evaluation.evaluate import METRICS, evaluate
from pipeline.ops.intervals import Interval
from pipeline.runs import Run
from pipeline.training.train import train


def train_and_score(experiment: Experiment, path: Path, split: str = "test") -> Run:
    """Train and score an experiment into a run folder; what is there already is not done again."""
    run = train(experiment, path)
    if not (run.evaluation_dir(split) / METRICS).exists():
        evaluate(run, split=split)
    return run


def metrics_of(run: Run, split: str = "test") -> dict[str, Interval]:
    """Read the measures of a scored run by name, the monitored one first."""
    text = (run.evaluation_dir(split) / METRICS).read_text(encoding="utf-8")
    return {name: Interval(**values) for name, values in json.loads(text).items()}
