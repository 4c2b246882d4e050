"""The range test finds where a loss falls fastest, and says what the schedule will do."""

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.training.rate_range import planned, range_test, smooth, suggest

TINY = ["data.image_size=[8, 8]", "model={name: simple_cnn, filters: [4], units: 8, padding: same}", "data.augment=[]"]


def table(losses: np.ndarray) -> pd.DataFrame:
    rates = np.geomspace(1e-6, 1, len(losses))
    return pd.DataFrame({"learning_rate": rates, "loss": losses, "smoothed": smooth(losses, len(losses))})


def test_the_steepest_fall_is_suggested():
    """A loss that falls around 1e-3 and explodes after 1e-1."""
    decades = np.linspace(-6, 0, 200)
    losses = 2 / (1 + np.exp(4 * (decades + 3))) + np.exp(8 * (decades + 0.8))
    noisy = losses + np.random.default_rng(0).normal(0, 0.03, 200)
    assert suggest(table(losses)) == pytest.approx(1e-3, rel=0.15)
    assert suggest(table(noisy)) == pytest.approx(1e-3, rel=1.5)


def test_a_loss_that_only_rises_has_no_suggestion():
    assert suggest(table(np.linspace(1, 5, 50))) is None


def test_smoothing_moves_no_slope():
    step = np.r_[np.ones(50), np.zeros(50)]
    found = smooth(step, 100)
    assert np.argmin(np.diff(found)) == 49
    np.testing.assert_allclose(found + found[::-1], 1)


def test_a_transfer_has_no_rate_of_its_own():
    with pytest.raises(UserError, match="leave transfer out with transfer=null"):
        range_test(Experiment.load("digits", [*TINY, "transfer.base=runs/a"]))


def test_it_trains_while_the_rate_rises_and_stops_where_that_is_hopeless():
    experiment = Experiment.load("digits", [*TINY, "train.optimizer=sgd"])
    found = range_test(experiment, low=1e-4, high=1e4, steps=40)
    rates = found["learning_rate"].to_numpy()
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10 ** (8 / 39), rtol=1e-6)
    assert rates[0] == pytest.approx(1e-4)
    assert len(found) < 40  # no network lives at 10,000
    assert np.isfinite(found["loss"]).all()
    assert found["smoothed"].min() < found["smoothed"].iloc[0]


@pytest.mark.parametrize("options", [{"low": 1.0, "high": 0.1}, {"low": 0.0}, {"steps": 3}], ids=str)
def test_a_range_that_does_not_rise_is_refused(options):
    with pytest.raises(UserError, match="a range test needs 0 < --low < --high and at least 10 --steps"):
        range_test(Experiment.load("digits", TINY), **options)


def test_the_plan_is_the_schedule():
    found = planned(Experiment.load("digits"), points=101)
    assert found["learning_rate"].max() == pytest.approx(2e-3)
    assert found["share"].iloc[[0, -1]].tolist() == [0, 1]
    assert found["learning_rate"].iloc[-1] < 1e-5
