"""Figures: valid pictures of a readable size for two classes and for a hundred, for hostile names and short runs."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation import figures
from pipeline.evaluation.figures.canvas import shorten, wrap

THEMES = [figures.LIGHT, figures.DARK]
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "step": [10, 20, 30],
        "learning_rate": [0.1, 0.05, 0.0],
        "loss": [2.0, 1.0, 0.5],
        "val_loss": [2.1, 1.2, 0.9],
        "accuracy": [0.3, 0.6, 0.8],
        "val_accuracy": [0.2, 0.5, 0.7],
    }
)


def opened(png):
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB"))


def matrix(names):
    counts = np.random.default_rng(0).integers(0, 3, (len(names), len(names))) + 40 * np.eye(len(names), dtype=int)
    return pd.DataFrame(counts, pd.Index(names, name="truth"), names)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("kinds", [1, 2, 10, 100])
def test_a_confusion_matrix_of_any_size(kinds, theme):
    picture = opened(figures.confusion(matrix([f"class {i}" for i in range(kinds)]), theme))
    assert 300 < picture.shape[0] < 2200
    assert 300 < picture.shape[1] < 2200
    assert tuple(picture[0, 0]) == tuple(int(theme.paper[i : i + 2], 16) for i in (1, 3, 5))


def test_names_that_look_like_formulas_or_cannot_be_drawn_do_no_harm():
    assert opened(figures.confusion(matrix(["$x$", "$_{", "猫\n犬", "x" * 300]))).size


def test_curves_have_one_picture_per_quantity():
    drawn = figures.curves(HISTORY)
    assert list(drawn) == ["loss", "accuracy", "learning_rate"]
    for png in [*drawn.values(), *figures.curves(HISTORY.iloc[:1], figures.DARK).values()]:
        assert len(np.unique(opened(png).reshape(-1, 3), axis=0)) > 5


def test_a_calibration_diagram_of_one_bin():
    table = pd.DataFrame(
        {"from": [0.9], "to": [1.0], "confidence": [0.97], "accuracy": [1.0], "accuracy_low": [0.9],
         "accuracy_high": [1.0], "count": [30]}
    )  # fmt: skip
    assert opened(figures.calibration(table)).size


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("models", [2, 9])
def test_calibrations_stand_beside_each_other_and_differ_without_colour(models, theme):
    names = ["keras", *(f"variant {i}" for i in range(models - 1))]
    errors = pd.DataFrame(
        {"variant": names, "calibration_error": 0.05, "calibration_error_low": 0.03, "calibration_error_high": 0.08}
    )
    one = {"from": [0.4, 0.9], "to": [0.5, 1.0], "accuracy": [0.5, 0.99], "accuracy_low": [0.3, 0.97]}
    one |= {"accuracy_high": [0.7, 1.0], "count": [3, 90]}
    bins = pd.concat([pd.DataFrame(one | {"confidence": [0.45, 0.95], "variant": name}) for name in names])
    picture = opened(figures.reliability(bins, errors, theme))
    assert 400 < min(picture.shape[:2]) < max(picture.shape[:2]) < 1500
    moved = bins.assign(confidence=bins["confidence"].where(bins["variant"] != names[-1], 0.7))
    assert (opened(figures.reliability(moved, errors, theme)).mean(axis=-1) != picture.mean(axis=-1)).sum() > 200


@pytest.mark.parametrize("count", [1, 7, 24])
@pytest.mark.parametrize("shape", [(8, 8, 3), (20, 62, 3), (30, 10, 3)])
def test_mistakes_of_any_shape_and_count(count, shape):
    legend = {"road": (1, 2, 3), "sky": (4, 5, 6)} if shape[1] > 50 else {}
    picture = opened(figures.mistakes([(np.zeros(shape, np.uint8), "cat (3%) → dog (97%)")] * count, legend))
    assert max(picture.shape) < 5000


def test_variants_are_drawn_with_a_missing_latency():
    results = pd.DataFrame(
        {"variant": ["float32", "int8"], "score": [0.98, 0.97], "low": [0.97, 0.96], "high": [0.99, 0.98],
         "bytes": [400_000, 100_000], "latency_ms_p50": [0.1, np.nan]}
    )  # fmt: skip
    assert opened(figures.variants(results)).size


def test_noise_inside_the_files_is_drawn_where_layers_have_none_of_their_own():
    layers = pd.DataFrame(
        {"variant": ["float32"] * 3 + ["int8"] * 3, "layer": list("abc") * 2, "sqnr_db": [120, None, 90, 40, None, 20]}
    )
    assert min(opened(figures.parity(layers)).shape[:2]) > 300


@pytest.mark.parametrize("theme", THEMES)
def test_the_front_of_a_search_is_drawn_even_where_all_scores_are_equal(theme):
    points = pd.DataFrame(
        {
            "variant": ["base float32", "50% of the channels at 32×32, int8", "25% of the channels at 32×32, int8"],
            "bytes": [1e6, 8e4, 3e4],
            "latency_ms_p50": [0.1, 0.05, 0.02],
            "score": [1.0, 1.0, 1.0],
            "on_front": [False, False, True],
            "chosen": [False, False, True],
        }
    )
    assert min(opened(figures.front(points, theme)).shape[:2]) > 300


def test_labels_are_cut_and_wrapped():
    assert shorten("a\nb") == "a b"
    assert len(shorten("x" * 50, 18)) == 18
    assert all(len(line) <= 10 for line in wrap("a rather long caption of words", 10, 2).splitlines())


@pytest.mark.parametrize("suggested", [None, 1e-3])
def test_rates_are_drawn_with_and_without_a_suggestion(suggested):
    tested = pd.DataFrame({"learning_rate": np.geomspace(1e-6, 1, 30), "loss": 2.0, "smoothed": 2.0})
    planned = pd.DataFrame({"share": [0.0, 1.0], "learning_rate": [0.1, 0.0]})
    drawn = {theme: opened(figures.rates(tested, suggested, planned, theme)) for theme in THEMES}
    assert drawn[figures.LIGHT].shape[1] > 1000
    assert drawn[figures.LIGHT].mean() > drawn[figures.DARK].mean() + 100
