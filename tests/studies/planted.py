"""Trials without training: a score that is known for every experiment, so that a search has something to find."""

import math
from pathlib import Path

import pytest

from pipeline.config import Experiment
from pipeline.ops.intervals import Interval
from pipeline.runs import Run
from pipeline.studies import tune

SEARCH = {
    "space": {
        "train.optimizer.learning_rate": {"low": "1e-4", "high": "1e-1", "log": True},
        "model.name": ["resnet8", "lenet5"],
    },
    "trials": 12,
}


def experiment(**search) -> Experiment:
    """Return digits with a search; keys given replace those of SEARCH."""
    plain = Experiment.load("digits", ["data.image_size=[32, 32]"]).model_dump(mode="json")
    return Experiment.parse(plain | {"search": SEARCH | search}, "my.yaml")


def value_of(found: Experiment) -> float:
    """Score an experiment: best is a learning rate of 0.01, and lenet5; more epochs help a little."""
    distance = math.log10(found.train.optimizer.options["learning_rate"]) + 2
    return 0.8 - distance**2 / 10 - 0.1 * (found.model.name != "lenet5") + found.train.epochs / 1000


def plant(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Let trials score `value_of`; return the list that will hold each training's folder and split."""
    done: list[tuple[str, str]] = []

    def train_and_score(found: Experiment, path: Path, split: str) -> Run:
        done.append((path.name, split))
        return Run.create(path, found)

    def metrics_of(run: Run, split: str) -> dict[str, Interval]:
        value = value_of(run.experiment)
        return {"accuracy": Interval(value, value - 0.1, value + 0.1, 90)}

    monkeypatch.setattr(tune, "train_and_score", train_and_score)
    monkeypatch.setattr(tune, "metrics_of", metrics_of)
    return done
