"""What a learning-rate range test is summed up as, and its picture."""

import pandas as pd
import pytest

from pipeline.config import Experiment
from pipeline.studies.rates import Rates, find_rates


@pytest.mark.parametrize(
    ("suggested", "said"), [(None, "the loss never falls: try a lower --low"), (0.02, "learning_rate=0.02")]
)
def test_the_summary_names_the_rate_or_that_there_is_none(suggested, said):
    tested = pd.DataFrame({"learning_rate": [1e-3, 1e-1], "loss": [1.0, 1.0], "smoothed": [2.0, 0.5]})
    assert said in Rates(tested, suggested).summary()


def test_rates_are_found_and_drawn(tmp_path):
    settings = ["data.image_size=[8, 8]", "data.augment=[]", "model={name: simple_cnn, filters: [8], units: 16}"]
    experiment = Experiment.load("digits", settings)
    found = find_rates(experiment, low=1e-4, high=1.0, steps=30, picture=tmp_path / "rates.png")
    assert found.tested["learning_rate"].is_monotonic_increasing
    assert 1e-4 < found.suggested < 1
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
