"""A search finds what was planted, goes on where it stopped, and never lets a trial beyond the limits win."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import planted
import pytest

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation.scoring import scoring_task
from pipeline.runs import Run
from pipeline.studies import tune as module
from pipeline.studies.space import apply, settings_of
from pipeline.studies.tune import tune
from pipeline.training.loop import Stopped

ROOT = Path(__file__).parents[2]
RATE = "train.optimizer.learning_rate"


@pytest.mark.parametrize(("method", "count"), [("random", 12), ("bayesian", 9)])
def test_what_was_planted_is_found(tmp_path, monkeypatch, method, count):
    done = planted.plant(monkeypatch)
    found = tune(planted.experiment(method=method, trials=count), tmp_path / "search")
    table = pd.read_csv(tmp_path / "search" / "trials.csv", dtype={"id": str})
    assert len(table) == count
    assert table["score"].is_monotonic_decreasing
    assert table["model.name"].iloc[0] == "lenet5"
    assert table[RATE].iloc[0] == pytest.approx(0.01, rel=0.7)
    assert table[RATE].between(1e-4, 1e-1).all()
    assert table[RATE].median() < 0.03, "half of a logarithmic range lies below its geometric mean, not its middle"
    best = Experiment.load(tmp_path / "search" / "best.yaml")
    assert planted.value_of(best) == pytest.approx(table["score"].iloc[0])
    assert best.search is None
    assert best == found.best.experiment
    assert [split for _, split in done] == ["validation"] * count + ["test"]
    assert done[-1][0] == table["id"].iloc[0]
    assert "optimistic" in found.summary()
    assert list(found.shown()) == ["id", "learning_rate", "name", "score", "low", "high", "status"]
    assert (tmp_path / "search" / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_hyperband_gives_more_epochs_to_the_better(tmp_path, monkeypatch):
    planted.plant(monkeypatch)
    search = planted.experiment(method="hyperband", trials=100).replace(["train.epochs=9"])
    table = tune(search, tmp_path / "search").table
    assert set(table["train.epochs"]) == {1, 3, 9}
    first = table[table["train.epochs"] == 1].sort_values("score", ascending=False)
    second = table[table["train.epochs"] == 3]
    assert first[RATE].iloc[0] in second[RATE].tolist()
    assert first[RATE].iloc[-1] not in second[RATE].tolist()


@pytest.mark.parametrize(
    ("method", "killed"),
    [
        ("random", KeyboardInterrupt),
        ("hyperband", Stopped),
        pytest.param("bayesian", KeyboardInterrupt, marks=pytest.mark.slow),  # it fits often
    ],
)
def test_a_search_goes_on_where_it_stopped(tmp_path, monkeypatch, method, killed):
    done = planted.plant(monkeypatch)
    experiment = planted.experiment(method=method, trials=9).replace(["train.epochs=9"])
    whole = tune(experiment, tmp_path / "whole")
    train, begun = module.train_and_score, []

    def die_at_the_eighth(found, path, split):
        begun.append(path.name)
        if len(begun) == 8:
            Run.create(path, found)
            raise killed("stopped")
        return train(found, path, split)

    monkeypatch.setattr(module, "train_and_score", die_at_the_eighth)
    with pytest.raises(killed):
        tune(experiment, tmp_path / "cut")
    done.clear()
    again = tune(experiment, tmp_path / "cut")
    assert [name for name, _ in done] == ["007", "008", again.table["id"].iloc[0]]
    pd.testing.assert_frame_equal(again.table, whole.table)
    tune(planted.experiment(method=method, trials=11).replace(["train.epochs=9"]), tmp_path / "cut")
    assert [name for name, split in done if split == "validation"] == ["007", "008", "009", "010"]


def test_a_trial_beyond_the_limits_is_not_trained_and_never_wins(tmp_path, monkeypatch):
    done = planted.plant(monkeypatch)
    sizes = {"lenet5": 90_000, "resnet8": 40_000}
    monkeypatch.setattr(module, "weigh", lambda experiment, task: (sizes[experiment.model.name], 0.2))
    table = tune(planted.experiment(under="size<60kB, latency<1ms"), tmp_path / "search").table
    assert table["status"].iloc[0] == "ok"
    groups = dict(list(table.groupby("status")))
    assert set(groups["ok"]["model.name"]) == {"resnet8"}
    assert set(groups["infeasible"]["model.name"]) == {"lenet5"}
    assert not {name for name, _ in done} & set(groups["infeasible"]["id"])
    assert "90,000 B and 0.2 ms are not within size < 60,000 B" in groups["infeasible"]["reason"].iloc[0]
    with pytest.raises(UserError, match=r"no trial can win: .*40,000 B and 0.2 ms"):
        tune(planted.experiment(under="latency<0.1ms"), tmp_path / "none")


@pytest.mark.parametrize("objective", ["size", "latency"])
def test_the_smallest_that_is_good_enough_wins(tmp_path, monkeypatch, objective):
    planted.plant(monkeypatch)
    costs = {"lenet5": (90_000, 0.3), "resnet8": (40_000, 0.2)}
    monkeypatch.setattr(module, "weigh", lambda experiment, task: costs[experiment.model.name])
    found = tune(planted.experiment(objective=objective, at_least=0.6), tmp_path / "search")
    table = found.table
    assert table["model.name"].iloc[0] == "resnet8"  # lenet5 scores higher
    good = table["status"] == "ok"
    assert set(table.loc[good, "model.name"]) == {"lenet5", "resnet8"}
    assert table.loc[good, objective].is_monotonic_increasing
    assert good.equals(table["score"] >= 0.6)
    assert 0 < good.sum() < len(table)
    assert table.loc[~good, "reason"].str.contains("does not reach 0.6").all()
    cost = {"size": "40,000 B", "latency": "0.2 ms"}[objective]
    assert found.summary().startswith(f"best: trial {table['id'].iloc[0]}, {cost}, accuracy 0.")
    assert (tmp_path / "search" / "trials.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"no trial can win: .*does not reach 0.99"):
        tune(planted.experiment(objective=objective, at_least=0.99, trials=2), tmp_path / "none")


def test_a_training_that_fails_is_passed_over(tmp_path, monkeypatch):
    planted.plant(monkeypatch)
    train = module.train_and_score

    def diverge(found, path, split):
        if found.train.optimizer.options["learning_rate"] > 0.003:
            raise UserError("the loss is not finite")
        return train(found, path, split)

    monkeypatch.setattr(module, "train_and_score", diverge)
    table = tune(planted.experiment(), tmp_path / "search").table
    assert (table["status"] == "failed").equals(table[RATE] > 0.003)
    assert table["status"].iloc[0] == "ok"


def test_values_that_cannot_go_together_are_passed_over(tmp_path):
    base = Experiment.load("digits", ["transfer={base: runs/a, head_epochs: 1}"])
    search = planted.experiment(method="random", trials=1).search
    trials = module._Trials(tmp_path, base, search, scoring_task("classification", ("a", "b"), {}), "accuracy")
    found = trials._try("1", {"transfer.head_epochs": 7, "train.epochs": 6})
    assert found.status == "failed"
    assert "none of 6 train.epochs is left" in found.reason


def test_a_defect_ends_the_search(tmp_path, monkeypatch):
    planted.plant(monkeypatch)
    monkeypatch.setattr(module, "metrics_of", lambda *_: {}["accuracy"])
    with pytest.raises(KeyError, match="accuracy"):
        tune(planted.experiment(), tmp_path / "search")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"space": {"train.epoch": [1, 2]}}, r"search.space: train.epoch is not a key; did you mean 'epochs'"),
        ({"space": {"train.epochs": [3, "many"]}}, r"search.space: train.epochs cannot be 'many'"),
        ({"space": {"train.epochs": {"low": 1.5, "high": 3}}}, r"search.space: train.epochs cannot be 1.5"),
        ({"space": {"train.epochs": {"low": 1.0, "high": 3.0}}}, r"search.space: train.epochs cannot be 2.236"),
        ({"space": {"train.epochs": {"low": 3, "high": 3}}}, r"my.yaml: search.space: train.epochs: low must be below"),
        (
            {"space": {"train.epochs": {"low": 1, "hihg": 3}}},
            r"train.epochs.high: give a list of values, or",
        ),
        ({"space": {"train.epochs": {"low": 1, "high": 3, "step": 5}}}, r"train.epochs: step 5 leads beyond high"),
        ({"space": {"data.validation": {"low": 0, "high": 0.5, "log": True}}}, r"log needs low above 0"),
        ({"space": {"train.epochs": [3]}}, r"train.epochs has 1 values"),
        ({"space": {}}, r"my.yaml: search.space: give keys of the experiment"),
        ({"space": {"model.name": ["lenet5", "resnet21"]}}, r"no model 'resnet21'; did you mean 'resnet20'"),
        ({"space": {"model.name": ["lenet5", "simple_cnn"], "model.units": [8, 16]}}, r"model.units is not a key"),
        ({"space": {"train.seed": [1, 2]}}, r"train.seed is the same for all trials"),
        ({"space": {"data.source.name": ["digits", "scenes"]}}, r"data.source.name is the same for all"),
        ({"method": "hyperband", "space": {"train.epochs": [1, 2]}}, r"hyperband chooses train.epochs itself"),
        ({"method": "gird"}, r"search.method cannot be 'gird': it should be 'random', 'bayesian' or 'hyperband'"),
        ({"under": "size<1furlong"}, r"search.under: the budget's size has the unit 'furlong'"),
        ({"under": "drop<1pp"}, r"search.under: only size and latency can be limited"),
        ({"objective": "size"}, r"search: the smallest size alone is a useless model; give at_least"),
        ({"at_least": 0.9}, r"search: at_least is for an objective of size or latency"),
    ],
)
def test_a_space_that_cannot_be_is_one_sentence(search, message):
    with pytest.raises(UserError, match=message):
        settings_of(planted.experiment(**search))


def test_wrong_requests_are_refused(tmp_path, monkeypatch):
    planted.plant(monkeypatch)
    with pytest.raises(UserError, match=r"search.objective: the task has no 'acuracy'; did you mean 'accuracy'"):
        tune(planted.experiment(objective="acuracy"), tmp_path / "search")
    tune(planted.experiment(trials=2), tmp_path / "search")
    with pytest.raises(UserError, match=r"is another search \(its search.seed differs\); give another --out"):
        tune(planted.experiment(trials=2, seed=1), tmp_path / "search")
    with pytest.raises(UserError, match="exists and is not a search"):
        tune(planted.experiment(), tmp_path)


def test_a_name_is_set_before_its_options():
    values = {"model.width": 4, "train.optimizer.learning_rate": 0.1, "model.name": "resnet8", "train.optimizer": "sgd"}
    found = apply(Experiment.load("digits"), values)
    assert (found.model.name, found.model.options["width"]) == ("resnet8", 4)
    assert (found.train.optimizer.name, found.train.optimizer.options["learning_rate"]) == ("sgd", 0.1)


@pytest.mark.slow
def test_a_chief_and_a_worker_that_was_there_first_share_one_search(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).parent / "tune_main.py"), str(tmp_path / "search")]
    with contextlib.ExitStack() as stack:
        outputs, processes = [], []
        for name, head_start in (("worker0", 10), ("chief", 0)):
            variables = os.environ | shared | {"KERASTUNER_TUNER_ID": name}
            process = stack.enter_context(subprocess.Popen(command, env=variables, stderr=subprocess.PIPE))
            stack.callback(process.kill)
            processes.append(process)
            time.sleep(head_start)
        outputs = [process.communicate(timeout=240)[1].decode() for process in processes]
    assert "worker 6 tried" in outputs[0], outputs[0]
    assert "chief 1 tried" in outputs[1], outputs[1]  # the best, on test
    assert len(pd.read_csv(tmp_path / "search" / "trials.csv")) == 6


def test_a_worker_says_that_no_chief_has_begun(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    monkeypatch.setattr(module, "_PATIENCE", 0)
    with pytest.raises(UserError, match=r"no .*search\.yaml after 0 s: start the chief"):
        tune(planted.experiment(trials=1), tmp_path / "search")
    assert not (tmp_path / "search").exists()


@pytest.mark.slow
def test_real_trials_on_digits(tmp_path):
    plain = Experiment.load(
        "digits",
        [
            "train.epochs=1",
            "data.image_size=[8, 8]",
            "data.augment=[]",
            "model={name: simple_cnn, filters: [8], units: 8, padding: same}",
        ],
    ).model_dump(mode="json")
    search = {"space": {"model.units": [8, 64], RATE: [1e-5, 1e-2]}, "trials": 3, "under": "size<20kB"}
    found = tune(Experiment.parse(plain | {"search": search}, "my.yaml"), tmp_path / "search")
    table = found.table.set_index("id")
    assert len(table) == 3
    # 64 pixels of 8 channels meet each unit: 8 units have 4 kB of weights, 64 have 33 kB.
    assert ((table["size"] > 20_000) == (table["model.units"] == 64)).all()
    assert (table["status"] == "infeasible").equals(table["model.units"] == 64)
    assert table["latency"].between(0, 10).all()
    assert found.best.finished
    assert (found.best.evaluation_dir("test") / "metrics.json").exists()
    assert found.test.low < found.test.value < found.test.high
