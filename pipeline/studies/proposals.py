"""KerasTuner's search algorithms, which propose what is tried next; every trial is a run of ours."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner import errors

from pipeline.sections import Range, Search

Values = dict[str, Any]
_SCORE = "score"


def propose(search: Search, folder: Path, most_epochs: int, run: Callable[[str, Values], float]) -> None:
    """Let the search's method propose values, and tell it what each is worth, until it has had its trials.

    One process always begins anew with the same seed, and so proposes the same again: `run` answers at once what it
    knows. With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT set, a chief proposes what several
    workers run; it keeps its state in `folder`.

    Args:
        most_epochs: of Hyperband's last rounds (arXiv 1603.06560); it adds train.epochs to the values.
        run: from a name and values to a score, higher is better.
    """
    parallel = "KERASTUNER_ORACLE_IP" in os.environ
    with _plain():
        tuner = _Tuner(run, search.space, _oracle(search, most_epochs), folder, overwrite=not parallel)
        tuner.search()


class _Tuner(keras_tuner.Tuner):
    """Hand each proposal on."""

    def __init__(
        self,
        run: Callable[[str, Values], float],
        space: Mapping[str, Range | list[Any]],
        oracle: keras_tuner.Oracle,
        folder: Path,
        *,
        overwrite: bool,
    ) -> None:
        self._run, self._space = run, space
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name, overwrite=overwrite)

    def run_trial(self, trial: Any) -> dict[str, float]:
        """Run one proposal; whatever it raises ends the search, which KerasTuner would go on with otherwise."""
        proposed = trial.hyperparameters.values
        values = {key: _value(self._space[key], proposed[key]) for key in self._space}
        if "tuner/epochs" in proposed:
            values["train.epochs"] = int(proposed["tuner/epochs"])
        try:
            score = self._run(f"{int(trial.trial_id):03d}", values)
        except Exception as error:
            raise errors.FatalError(str(error)) from error
        return {_SCORE: score}


def _oracle(search: Search, most_epochs: int) -> keras_tuner.Oracle:
    options = {
        "objective": keras_tuner.Objective(_SCORE, "max"),
        "hyperparameters": _hyperparameters(search.space),
        "seed": search.seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if search.method == "hyperband":
        oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=most_epochs, **options)
        oracle.max_trials = search.trials
    elif search.method == "bayesian":
        oracle = keras_tuner.oracles.BayesianOptimizationOracle(max_trials=search.trials, **options)
    else:
        oracle = keras_tuner.oracles.RandomSearchOracle(max_trials=search.trials, **options)
    oracle.verbose = 0
    return oracle


def _hyperparameters(space: Mapping[str, Range | list[Any]]) -> keras_tuner.HyperParameters:
    found = keras_tuner.HyperParameters()
    for key, values in space.items():
        if isinstance(values, list):
            found.Choice(key, list(range(len(values))), ordered=False)  # positions: the values may be anything
            continue
        declare = found.Int if values.whole else found.Float
        sampling = "log" if values.log else "linear"
        declare(
            key,
            values.low,
            values.high,
            step=values.step or (1 if values.whole and not values.log else None),
            sampling=sampling,
        )
    return found


def _value(values: Range | list[Any], proposed: Any) -> Any:
    if isinstance(values, list):
        return values[int(proposed)]
    return int(proposed) if values.whole else float(f"{proposed:.6g}")


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """Keep KerasTuner's remarks off stdout, raise what ended the search, and pass over what its fits warn of."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(currentThread|getName)\(\) is deprecated")
        warnings.filterwarnings("ignore", module=r"sklearn\.gaussian_process")  # a flat score has no best kernel
        try:
            yield
        except errors.FatalError as error:
            raise error.__cause__ or error from None
