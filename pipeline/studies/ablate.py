"""Ablation: what each ingredient of an experiment is worth, by leaving one out at a time, over several seeds."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import ttest_1samp

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation.scoring import scoring_task
from pipeline.ops.intervals import student
from pipeline.runs import value_at, write_atomically
from pipeline.studies.compare import LEVEL, holm
from pipeline.studies.trials import metrics_of, train_and_score
from pipeline.tasks.base import Task

log = logging.getLogger(__name__)

WHOLE = "nothing"
_ALIKE = 1e-9  # differences that are as near to each other are one
# What is left out, by the key that holds it, and the value that leaves it out.
_OFF: dict[str, Any] = {
    "data.pseudo": None,
    "transfer": None,
    "task.label_smoothing": 0.0,
    "task.class_weights": None,
    "task.focal_gamma": 0.0,
    "task.dice": 0.0,
    "model.dropout": 0.0,
    "model.stochastic_depth": 0.0,
    "model.batch_norm": False,
    "train.optimizer.momentum": 0.0,
    "train.optimizer.nesterov": False,
    "train.optimizer.weight_decay": 0.0,
    "train.schedule": "constant",
    "train.schedule.warmup": 0.0,
    "train.plateau": None,
    "train.curriculum.sizes": [],
    "train.curriculum.easy_first": None,
    "train.distill": None,
    "train.ema": None,
    "train.lookahead": None,
    "train.sharpness": None,
    "train.clip_norm": None,
}


@dataclass(frozen=True)
class Ablation:
    """A run per ingredient and seed in `folder`, with their scores as CSV.

    `scores` has a row per run: without, seed, run, value. `table` has a row per ingredient: without, override, mean and
    its low and high over the seeds, and, paired by seed, what leaving it out changes: difference, difference_low,
    difference_high, p_value (Holm's over the ingredients), and the verdict on the ingredient: "helps", "hurts" or
    "not shown".
    """

    folder: Path
    measure: str
    scores: pd.DataFrame
    table: pd.DataFrame


def ingredients(experiment: Experiment) -> dict[str, str]:
    """Map what can be left out of an experiment to the override that leaves it out: only what is there."""
    values = experiment.model_dump(mode="json")
    found = {}
    names = [one["name"] for one in values["data"]["augment"]]
    for position, name in enumerate(names):
        rest = [one for index, one in enumerate(values["data"]["augment"]) if index != position]
        title = name if names.count(name) == 1 else f"{name} {names[: position + 1].count(name)}"
        found[title] = f"data.augment={yaml.safe_dump(rest, default_flow_style=True, width=10_000).strip()}"
    for key, off in _OFF.items():
        own = value_at(values, key)
        if own is not None and off not in (own, _name(own)):
            found[key.partition(".")[2] or key] = f"{key}={yaml.safe_dump(off).partition(chr(10))[0]}"
    return found


def ablate(
    experiment: Experiment, folder: Path | str, *, seeds: int = 3, only: Sequence[str] = (), split: str = "test"
) -> Ablation:
    """Train an experiment whole, and without each of its ingredients in turn, once for each seed, and score them all.

    Every training is a run like any other, so that a study that was interrupted goes on where it stopped.

    Args:
        seeds: how many trainings of each; the first has the experiment's own seed. Differences are paired by seed,
            with Student's interval: it says what another training would give, on the same images.
        only: names of ingredients, as `ingredients` gives them; none means all.
        split: whose images are scored; take "validation" where the answer will change the experiment.

    Raises UserError for fewer than two seeds, for an unknown ingredient, and as training does.
    """
    folder = Path(folder)
    if seeds < 2:
        raise UserError(f"{seeds} seeds show no spread; give --seeds 2 or more", usage=True)
    chosen = _choose(ingredients(experiment), only)
    rows = []
    for without, override in {WHOLE: None, **chosen}.items():
        for seed in range(experiment.train.seed, experiment.train.seed + seeds):
            overrides = [*([override] if override else []), f"train.seed={seed}"]
            path = folder / f"without-{without.replace(' ', '-')}" / f"seed{seed}"
            log.info("without %s, seed %d", without, seed)
            run = train_and_score(experiment.replace(overrides), path, split)
            value = next(iter(metrics_of(run, split).values())).value
            rows.append({"without": without, "seed": seed, "run": str(path), "value": value})
    task = scoring_task(experiment.task.name, run.classes, experiment.task.options)
    scores = pd.DataFrame(rows)
    found = Ablation(folder, task.monitor, scores, _tabulate(scores, chosen, task))
    write_atomically(folder / "scores.csv", found.scores.to_csv(index=False))
    write_atomically(folder / "ablation.csv", found.table.to_csv(index=False))
    return found


def _choose(found: dict[str, str], only: Sequence[str]) -> dict[str, str]:
    unknown = [name for name in only if name not in found]
    if unknown or not found:
        what = f"{unknown[0]!r} is not an ingredient of" if unknown else "there is nothing to leave out of"
        raise UserError(f"{what} this experiment; it has: {', '.join(found) or 'none'}", usage=True)
    return {name: found[name] for name in only or found}


def _tabulate(scores: pd.DataFrame, overrides: dict[str, str], task: Task) -> pd.DataFrame:
    by_seed = scores.pivot(index="seed", columns="without", values="value")
    rows = []
    for name in (WHOLE, *overrides):
        mean = student(by_seed[name])
        row = {"without": name, "override": overrides.get(name, ""), "mean": mean.value, "n": mean.n}
        row |= {"low": mean.low, "high": mean.high}
        if name != WHOLE:
            differences = by_seed[name] - by_seed[WHOLE]
            change = student(differences)
            # Seeds that differ by the same number of images say nothing of how far others would be apart.
            p_value = float(ttest_1samp(differences, 0.0).pvalue) if np.ptp(differences) > _ALIKE else 1.0
            row |= {"difference": change.value, "difference_low": change.low, "difference_high": change.high}
            row |= {"p_value": p_value}
        rows.append(row)
    table = pd.DataFrame(rows)
    table.loc[1:, "p_value"] = holm(table["p_value"].iloc[1:].tolist())
    sign = 1 if task.measures[task.monitor].higher_is_better else -1
    table["verdict"] = [
        "" if row.without == WHOLE else _verdict(sign * row.difference, row.p_value) for row in table.itertuples()
    ]
    return table


def _verdict(gained: float, p_value: float) -> str:
    if p_value >= LEVEL:
        return "not shown"
    return "hurts" if gained > 0 else "helps"


def _name(value: Any) -> Any:
    return value.get("name", value) if isinstance(value, dict) else value
