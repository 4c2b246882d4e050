"""Before a training: which learning rate it can bear, and what its schedule will do."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.config import Experiment
from pipeline.evaluation import figures
from pipeline.runs import write_atomically
from pipeline.training.rate_range import planned, range_test, suggest


@dataclass(frozen=True)
class Rates:
    """The range test, step by step, and the rate at which its loss falls fastest (None: nowhere)."""

    tested: pd.DataFrame
    suggested: float | None

    def summary(self) -> str:
        """Say what was found in one sentence."""
        last = self.tested.iloc[-1]
        if self.suggested is None:
            return "the loss never falls: try a lower --low, or look at the data (pipeline data)"
        return (
            f"the loss falls fastest at {self.suggested:.2g}, and was {last.smoothed:.3g} at {last.learning_rate:.2g}, "
            f"where the test ended; try train.optimizer.learning_rate={self.suggested:.2g}"
        )


def find_rates(
    experiment: Experiment, *, low: float = 1e-6, high: float = 1.0, steps: int = 100, picture: Path | None = None
) -> Rates:
    """Run a range test, and draw it beside the experiment's schedule where a picture is asked for."""
    tested = range_test(experiment, low=low, high=high, steps=steps)
    found = Rates(tested, suggest(tested))
    if picture:
        write_atomically(picture, figures.rates(tested, found.suggested, planned(experiment)))
    return found
