"""Studies of several trainings: folds that test every image once, and ingredients left out one at a time."""

import json

import numpy as np
import pandas as pd
import pytest

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation.scoring import load_scores, scoring_task
from pipeline.runs import Run
from pipeline.studies import trials
from pipeline.studies.ablate import _tabulate, ablate, ingredients
from pipeline.studies.cross_validate import cross_validate

TINY = (
    "train.epochs=2",
    "data.image_size=[8, 8]",
    "model={name: simple_cnn, filters: [8], units: 16, padding: same}",
    "data.augment=[]",
    "train.schedule.warmup=0",
)


@pytest.fixture
def count_trainings(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Count the trainings that a study has asked for and that were not there already."""
    trained, train = [], trials.train

    def counted(experiment, path):
        if not Run(path).finished:
            trained.append(path)
        return train(experiment, path)

    monkeypatch.setattr(trials, "train", counted)
    return trained


@pytest.mark.slow
def test_every_training_image_is_tested_once(tmp_path, count_trainings):
    found = cross_validate(Experiment.load("digits", TINY), tmp_path, of=2)
    assert len(count_trainings) == 2
    ids = [load_scores(Run(tmp_path / f"fold{fold}").evaluation_dir("test"))[0] for fold in (1, 2)]
    assert not set(ids[0]) & set(ids[1])
    assert len(ids[0]) + len(ids[1]) == 898  # scikit-learn's training half
    folds = found.folds.query("measure == 'accuracy'")
    row = found.summary.set_index("measure").loc["accuracy"]
    assert row["mean"] == pytest.approx(folds["value"].mean())
    assert row["pooled"] == pytest.approx((folds["value"] * folds["n"]).sum() / 898)
    trained = sum(Run(tmp_path / f"fold{fold}").facts["images"]["train"] for fold in (1, 2))
    half = 12.7062 * np.sqrt(folds["value"].var() * (1 / 2 + 898 / trained))  # Student's with one degree of freedom
    assert row["mean_high"] - row["mean"] == pytest.approx(half, rel=1e-4)
    assert pd.read_csv(tmp_path / "summary.csv")["n"].tolist() == [898] * len(found.summary)
    cross_validate(Experiment.load("digits", TINY), tmp_path, of=2)
    assert len(count_trainings) == 2, "a finished fold was trained again"


@pytest.mark.slow
def test_ingredients_are_left_out_one_at_a_time(tmp_path, count_trainings):
    experiment = Experiment.load("digits", [*TINY, "train.epochs=4"])
    found = ablate(experiment, tmp_path, seeds=2, only=["schedule"], split="validation")
    assert [path.relative_to(tmp_path).as_posix() for path in count_trainings] == [
        f"without-{what}/seed{seed}" for what in ("nothing", "schedule") for seed in (0, 1)
    ]
    whole, without = found.table.itertuples()
    by_seed = found.scores.pivot(index="seed", columns="without", values="value")
    assert whole.mean == pytest.approx(by_seed["nothing"].mean())
    assert without.difference == pytest.approx((by_seed["schedule"] - by_seed["nothing"]).mean())
    assert without.override == "train.schedule=constant"
    assert Run(tmp_path / "without-schedule" / "seed1").experiment.train.schedule.name == "constant"
    assert json.loads(pd.read_csv(tmp_path / "ablation.csv").to_json(orient="records"))[1]["n"] == 2


def test_seeds_that_agree_to_the_image_prove_nothing():
    rows = [("nothing", 0, 0.9), ("nothing", 1, 0.92), ("schedule", 0, 0.89), ("schedule", 1, 0.91)]
    scores = pd.DataFrame(rows, columns=["without", "seed", "value"])
    found = _tabulate(scores, {"schedule": ""}, scoring_task("classification", ("a", "b"), {})).set_index("without")
    assert (found.loc["schedule", "p_value"], found.loc["schedule", "verdict"]) == (1.0, "not shown")


def test_only_what_is_there_is_an_ingredient():
    found = ingredients(Experiment.load("digits"))
    assert set(found) == {
        "rotation", "zoom", "translation", "dropout", "batch_norm", "optimizer.weight_decay", "schedule",
        "schedule.warmup",
    }  # fmt: skip
    plain = Experiment.load("digits").replace([found["rotation"]])
    assert [one.name for one in plain.data.augment] == ["zoom", "translation"]
    twice = Experiment.load("digits", ["data.augment=[flip, flip]", "task.label_smoothing=0.1"])
    assert {"flip 1", "flip 2", "label_smoothing"} < set(ingredients(twice))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            [
                *("train.ema=0.9", "train.clip_norm=1.0", "task.focal_gamma=2", "task.class_weights=balanced"),
                *("train.lookahead.every=5", "train.sharpness=0.05", "train.plateau.epochs=3"),
                *("data.pseudo={images: more, labels: a.csv}", "train.curriculum.sizes=[{size: [16, 16], share: 0.5}]"),
            ],
            {"pseudo", "curriculum.sizes", "lookahead", "sharpness", "plateau", "ema", "focal_gamma"},
        ),
        (
            [
                *("model=cct_tiny", "transfer.base=runs/a", "train.distill.teacher=runs/b"),
                "train.curriculum.easy_first.scores=scores.npz",
            ],
            {"transfer", "distill", "curriculum.easy_first", "stochastic_depth"},
        ),
    ],
)
def test_every_override_leaves_out_what_it_says(overrides, expected):
    everything = Experiment.load("cifar10_folder", overrides)
    found = ingredients(everything)
    assert expected < set(found)
    for override in found.values():
        assert len(ingredients(everything.replace([override]))) < len(found), override


def test_wrong_requests_are_refused(tmp_path):
    experiment = Experiment.load("digits", TINY)
    with pytest.raises(UserError, match="1 seeds show no spread"):
        ablate(experiment, tmp_path, seeds=1)
    with pytest.raises(UserError, match="'rotation' is not an ingredient of this experiment; it has: "):
        ablate(experiment, tmp_path, only=["rotation"])
    with pytest.raises(UserError, match=r"index is counted from 0 to 4"):
        Experiment.load("digits", ["data.folds={of: 5, index: 5}"])
