"""Runs side by side on the same images: every measure with its interval, every difference with a paired test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.evaluation.scoring import load_scores, scoring_task
from pipeline.evaluation.statistics import compare, interval
from pipeline.runs import Run, differences, value_at
from pipeline.tasks.base import Scores, Task

LEVEL = 0.05


@dataclass(frozen=True)
class Compared:
    """What differs between runs: `scores`, a row per measure and run, and `settings`, a row per key.

    The columns of `scores` are measure, run, value, low, high, n, and against the first run difference,
    difference_low, difference_high, p_value, detectable, verdict ("better", "worse", "not shown"), and test.
    """

    scores: pd.DataFrame
    settings: pd.DataFrame

    def summary(self) -> str:
        """Say of each run what its difference in the first measure is, and what so many images can show."""
        rows = self.scores[self.scores["measure"] == self.scores["measure"].iloc[0]].iloc[1:]
        return "; ".join(
            f"{row.measure} of {row.run}: {row.verdict}, {100 * row.difference:+.2f} points (p = {row.p_value:.2g}, "
            f"{row.n} images show {100 * row.detectable:.2f} points four times in five)"
            for row in rows.itertuples()
        )

    def table(self) -> pd.DataFrame:
        """Return the scores for people: shares in per cent and their differences in points, losses as they are."""
        rows = self.scores

        def shown(form: str, *columns: str) -> list[str]:
            figures = rows[["measure", *columns]].itertuples(index=False)
            return [" to ".join(_figure(measure, value, form) for value in each) for measure, *each in figures]

        return pd.DataFrame(
            {
                "measure": rows["measure"],
                "run": rows["run"],
                "value": shown(".2f", "value"),
                "95 %": shown(".1f", "low", "high"),
                "points": shown("+.2f", "difference"),
                "paired 95 %": shown("+.2f", "difference_low", "difference_high"),
                "p": [f"{value:.2g}" if value == value else "" for value in rows["p_value"]],
                "verdict": rows["verdict"],
            }
        ).replace({" to ": ""})


def compare_runs(runs: Sequence[Run | Path | str], *, split: str = "test") -> Compared:
    """Compare two or more evaluated runs with the first of them, image by image; no model is loaded.

    P-values are Holm's (1979) over the runs that are compared with the first, measure by measure. `detectable` is the
    smallest true difference that so many images would show four times in five.

    Raises UserError when a run has no scores of the split, or the runs answered other images or other classes.
    """
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    if len(opened) < 2:
        raise UserError("give two runs or more to compare", usage=True)
    first = opened[0]
    task = scoring_task(first.experiment.task.name, first.classes, first.experiment.task.options)
    ids, reference = load_scores(first.evaluation_dir(split))
    every = [reference]
    for run in opened[1:]:
        _check_same_question(first, run)
        every.append(_in_order(run, split, ids, first))
    rows = [row for name in task.measures for row in _compare_on(name, task, opened, every)]
    return Compared(pd.DataFrame(rows), _settings(opened))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, so that any false one among them is as rare as promised (Holm 1979)."""
    order = np.argsort(p_values)
    adjusted = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    found = np.empty(len(p_values))
    found[order] = np.minimum(np.maximum.accumulate(adjusted), 1.0)
    return found.tolist()


def _compare_on(name: str, task: Task, runs: Sequence[Run], every: Sequence[Scores]) -> list[dict[str, Any]]:
    """Return a row for each run on one measure; the first has nothing to be compared with."""
    measure = task.measures[name]
    found = [compare(measure, every[0], scores) for scores in every[1:]]
    adjusted = holm([one.p_value for one in found])
    rows = []
    for position, (run, scores) in enumerate(zip(runs, every, strict=True)):
        own = interval(measure, scores)
        row = {"measure": name, "run": str(run.path), "value": own.value, "low": own.low, "high": own.high, "n": own.n}
        if position:
            one, p_value = found[position - 1], adjusted[position - 1]
            row |= {
                "difference": one.difference,
                "difference_low": one.low,
                "difference_high": one.high,
                "p_value": p_value,
                "detectable": one.detectable,
                "verdict": _verdict(one.difference, p_value, measure.higher_is_better),
                "test": one.test,
            }
        rows.append({"verdict": "", "test": "", **row})
    return rows


def _verdict(difference: float, p_value: float, higher_is_better: bool) -> str:
    if p_value >= LEVEL:
        return "not shown"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _check_same_question(first: Run, run: Run) -> None:
    if run.classes != first.classes or run.experiment.task.name != first.experiment.task.name:
        raise UserError(f"{run.path} and {first.path} do not answer the same question: their task or classes differ")


def _in_order(run: Run, split: str, ids: tuple[str, ...], first: Run) -> Scores:
    """Return a run's scores in the order of `ids`."""
    own, scores = load_scores(run.evaluation_dir(split))
    position = {name: index for index, name in enumerate(own)}
    if len(own) != len(ids) or set(position) != set(ids):
        differ = sorted(set(position) ^ set(ids))
        raise UserError(
            f"{run.path} and {first.path} were not scored on the same images: {len(own)} and {len(ids)}, "
            f"{len(differ)} of them not in common{f', such as {differ[0]}' if differ else ''}; "
            f"score both on the same {split} data"
        )
    order = np.array([position[name] for name in ids])
    return {name: values[order] for name, values in scores.items()}


def _settings(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what the experiments do not have in common: a row per key, a column per run."""
    values = [run.experiment.model_dump(mode="json") for run in runs]
    keys = dict.fromkeys(key for other in values[1:] for key in differences(values[0], other))
    return pd.DataFrame(
        [
            {"key": key, **{str(run.path): _shown(value_at(one, key)) for run, one in zip(runs, values, strict=True)}}
            for key in keys
        ],
        columns=["key", *(str(run.path) for run in runs)],
    )


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)


def _figure(measure: str, value: float, form: str) -> str:
    if value != value:  # the first run's difference from itself
        return ""
    return f"{value:.4g}" if measure.endswith("loss") else f"{100 * value:{form}}"
