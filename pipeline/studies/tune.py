"""Search: the settings that score best on validation, within limits of size and latency, each trial a run."""

import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.budget import Budget
from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation import figures
from pipeline.export.latency import measure
from pipeline.export.variants import build_variants, describe_model
from pipeline.ops.intervals import Interval
from pipeline.registry import MODELS, suggest
from pipeline.runs import Run, differences, write_atomically
from pipeline.sections import COSTS, Search
from pipeline.studies.proposals import propose
from pipeline.studies.space import apply, settings_of
from pipeline.studies.trials import metrics_of, train_and_score
from pipeline.tasks.base import Task
from pipeline.training.loop import Stopped
from pipeline.training.setup import open_task

log = logging.getLogger(__name__)

_RECORD = "trial.json"  # written last: where it stands, the trial is over
_PATIENCE = 600  # seconds that a worker waits for the chief
_NOTHING = {1: 0.0, -1: -10.0}  # what cannot win scores before any other has: no answer right, or a loss of 10


@dataclass(frozen=True)
class Trial:
    """What came of one proposal: "ok", "infeasible" or "failed"; bytes and milliseconds where they matter."""

    id: str
    values: dict[str, Any]
    status: str
    score: float | None = None
    low: float | None = None
    high: float | None = None
    size: int | None = None
    latency: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Tuning:
    """A run per trial in `folder`, which also holds best.yaml, trials.csv and trials.png.

    `table` has a row per trial, best first: id, a column per key, score, low, high (on validation), size in bytes,
    latency in milliseconds, status, reason. `measure` is what scores are of: the objective, or where that is size or
    latency, what must be reached. `best` is the winner's run; `test` its score on the test split, which no choice has
    seen (None where the source has none).
    """

    folder: Path
    objective: str
    measure: str
    table: pd.DataFrame
    best: Run
    test: Interval | None

    def shown(self) -> pd.DataFrame:
        """Return the table for a terminal: keys by their last word where it is the only one, no empty columns."""
        last = [key.rpartition(".")[2] for key in self.table.columns]
        names = {key: end for key, end in zip(self.table.columns, last, strict=True) if last.count(end) == 1}
        return self.table.replace("", None).dropna(axis=1, how="all").rename(columns=names)

    def summary(self) -> str:
        """Say what the winner scores on validation and on test, and which of the two to believe."""
        first = self.table.iloc[0]
        shown = {"size": "{:,.0f} B, ", "latency": "{:.3g} ms, "}
        cost = shown[self.objective].format(first[self.objective]) if self.objective in COSTS else ""
        text = f"best: trial {first.id}, {cost}{self.measure} {first.score:.4f} on validation"
        if self.test is None:
            return f"{text}, which is optimistic, since it chose; there is no test split to score it on"
        low, high = self.test.low, self.test.high
        return f"{text}, which is optimistic, since it chose; on test {self.test.value:.4f} [{low:.4f}, {high:.4f}]"


def tune(experiment: Experiment, folder: Path | str) -> Tuning | None:
    """Search the experiment's `search.space`, and score the best trial once on the test split.

    The same call goes on after an interruption: finished trials are read, an interrupted one continues exactly. In
    parallel (see `propose`) only the chief returns what was found; workers return None.

    Raises UserError for a space that cannot be, an unknown objective, a folder with another search, no feasible trial.
    """
    folder, search = Path(folder), settings_of(experiment)
    source, task = open_task(experiment)
    objective = search.objective or task.monitor
    if objective not in (*task.measures, *COSTS):
        known = suggest(objective, (*task.measures, *COSTS))
        raise UserError(f"search.objective: the task has no {objective!r}; {known}", usage=True)
    _claim(folder, experiment)
    trials = _Trials(folder / "trials", experiment, search, task, objective)
    propose(search, folder / "oracle", experiment.train.epochs, trials.run)
    if _is_worker():
        return None
    done = trials.ranked()
    if not done or done[0].status != "ok":
        raise UserError(f"no trial can win: {'; '.join(dict.fromkeys(one.reason for one in done))}")
    table = _tabulate(done, [*search.space, *(["train.epochs"] if search.method == "hyperband" else [])])
    best = apply(experiment, done[0].values)
    measure = trials.measure
    about = f"# Trial {done[0].id} of {len(done)}: {measure} {done[0].score:.4f} on validation, where it was chosen.\n"
    write_atomically(folder / "best.yaml", about + best.to_yaml())
    write_atomically(folder / "trials.csv", table.to_csv(index=False))
    logarithmic = [key for key, values in search.space.items() if getattr(values, "log", False)]
    column = objective if objective in COSTS else "score"
    write_atomically(folder / "trials.png", figures.parallel_coordinates(table, objective, logarithmic, column=column))
    path, test = trials.path(done[0].id), None
    if "test" in source.splits:
        test = metrics_of(train_and_score(best, path, "test"), "test")[measure]
    return Tuning(folder, objective, measure, table, Run(path), test)


class _Trials:
    """Run what is proposed, once, and keep what came of it."""

    def __init__(self, folder: Path, experiment: Experiment, search: Search, task: Task, objective: str) -> None:
        self._folder, self._experiment, self._task, self._objective = folder, experiment, task, objective
        self._budget = Budget.parse(search.under) if search.under else None
        self._at_least = search.at_least
        self.measure = task.monitor if objective in COSTS else objective
        self._sign = 1 if task.measures[self.measure].higher_is_better else -1

    def path(self, name: str) -> Path:
        return self._folder / name

    def run(self, name: str, values: dict[str, Any]) -> float:
        """Return what a proposal is worth, higher is better; one that cannot win is as bad as the worst so far."""
        known = self._read()
        found = next((one for one in known if one.values == values), None)
        if found is None:
            log.info("trial %s: %s", name, ", ".join(f"{key}={value}" for key, value in values.items()))
            found = self._try(name, values)
            write_atomically(self.path(name) / _RECORD, json.dumps(asdict(found), indent=2) + "\n")
            log.info(
                "trial %s: %s%s",
                name,
                found.status,
                f", {self.measure} {found.score:.4f}" if found.status == "ok" else "",
            )
        worth = self._worth(found)
        if worth is not None:
            return worth
        # Of those before it, so that a search that is continued learns the same.
        before = [self._worth(one) for one in known if one.id < found.id]
        return min([worth for worth in before if worth is not None], default=self._nothing(found))

    def _worth(self, trial: Trial) -> float | None:
        """Return what the search maximises; None for a trial that cannot win."""
        if trial.status != "ok":
            return None
        return -float(getattr(trial, self._objective)) if self._objective in COSTS else self._sign * trial.score

    def _nothing(self, trial: Trial) -> float:
        """Return what is worse than a trial that cannot win could have been, where none has won before it."""
        if self._objective in COSTS:
            return -10.0 * (getattr(trial, self._objective) or 1.0)
        return _NOTHING[self._sign]

    def ranked(self) -> list[Trial]:
        """Return all trials that are over, best first; those that cannot win come last."""

        def place(trial: Trial) -> tuple:
            worth = self._worth(trial)
            score = self._sign * (trial.score or 0.0)
            return worth is None, -(worth or 0.0), trial.score is None, trial.size is None, -score, trial.id

        return sorted(self._read(), key=place)

    def _read(self) -> list[Trial]:
        paths = sorted(self._folder.glob(f"*/{_RECORD}"))
        return [Trial(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]

    def _try(self, name: str, values: dict[str, Any]) -> Trial:
        cost: dict[str, Any] = {}
        try:
            experiment = apply(self._experiment, values)
            if self._budget or self._objective in COSTS:
                size, latency = weigh(experiment, self._task)
                cost = {"size": size, "latency": latency}
                if self._budget and not self._budget.allows(size=size, latency=latency):
                    reason = f"{size:,} B and {latency:.3g} ms are not within {self._budget}"
                    return Trial(name, values, "infeasible", **cost, reason=reason)
            run = train_and_score(experiment, self.path(name), "validation")
        except Stopped:
            raise
        except UserError as error:
            return Trial(name, values, "failed", **cost, reason=str(error))
        found = metrics_of(run, "validation")[self.measure]
        scored = {"score": found.value, "low": found.low, "high": found.high, **cost}
        if self._at_least is not None and self._sign * found.value < self._sign * self._at_least:
            reason = f"{self.measure} {found.value:.4f} does not reach {self._at_least:g}"
            return Trial(name, values, "infeasible", **scored, reason=reason)
        return Trial(name, values, "ok", **scored)


def weigh(experiment: Experiment, task: Task) -> tuple[int, float]:
    """Return bytes and median milliseconds on one thread of an experiment's int8 file, of float32 if it has no int8.

    Neither depends on the weights, so that it is known before any training.
    """
    shape = (*experiment.data.image_size, experiment.data.channels)
    model = MODELS.build(experiment.model.name, shape, len(task.classes), **experiment.model.options)
    task.check(model)
    variant = "int8" if "int8" in experiment.export.variants else "float32"
    noise = np.random.default_rng(0).uniform(0, 255, (4, *shape)).astype(np.float32)
    facts = describe_model(experiment.model.name, model, task.classes)
    [(_, content)] = build_variants(model, [variant], task.decode, noise, facts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{variant}.tflite"
        path.write_bytes(content)
        return len(content), measure(path).p50


def _claim(folder: Path, experiment: Experiment) -> None:
    """Note in the folder whose search it is; raise UserError where it is another's. More trials are the same search."""
    path = folder / "search.yaml"
    if _is_worker():
        _await(path)
    if path.exists():
        old, new = (one.model_dump(mode="json") for one in (Experiment.load(path), experiment))
        changed = [key for key in differences(old, new) if key != "search.trials"]
        if changed:
            raise UserError(f"{folder} is another search (its {changed[0]} differs); give another --out")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and is not a search; give another --out")
    if not _is_worker():
        write_atomically(path, experiment.to_yaml())


def _await(path: Path) -> None:
    """Wait for what the chief writes first: a worker's own files would make the folder look like someone else's."""
    until = time.monotonic() + _PATIENCE
    while not path.exists():
        if time.monotonic() > until:
            raise UserError(f"no {path} after {_PATIENCE} s: start the chief, with the same --out on a shared disk")
        time.sleep(0.2)


def _is_worker() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" not in os.environ.get("KERASTUNER_TUNER_ID", "")


def _tabulate(trials: Sequence[Trial], keys: Sequence[str]) -> pd.DataFrame:
    rows = []
    for one in trials:
        row = asdict(one)
        rows.append({"id": one.id, **{key: row["values"][key] for key in keys}, **{k: row[k] for k in list(row)[2:]}})
    table = pd.DataFrame(rows)
    order = ["id", *keys, "score", "low", "high", "size", "latency", "status", "reason"]
    return table[order]
