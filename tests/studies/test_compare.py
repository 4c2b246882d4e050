"""Runs are compared on the same images, whatever order they were scored in, or not at all."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation.scoring import Scored, save_scores, scoring_task
from pipeline.runs import Run
from pipeline.studies.compare import compare_runs, holm

CLASSES = ("0", "1", "2", "3", "4", "5")
COUNT = 400


def make(path: Path, right: np.ndarray, order: np.ndarray | None = None, overrides: tuple[str, ...] = ()) -> Run:
    """Make a run that answers `right` of its images, scored in the given order."""
    run = Run.create(path, Experiment.load("digits", overrides))
    run.note(classes=list(CLASSES))
    run.model_path.write_bytes(b"a model that nobody loads")
    truth = np.arange(len(right)) % len(CLASSES)
    answers = np.where(right, truth, (truth + 1) % len(CLASSES))
    probabilities = np.full((len(right), len(CLASSES)), 0.02)
    probabilities[np.arange(len(right)), answers] = 0.9
    ids = tuple(f"image{index}.png" for index in range(len(right)))
    order = np.arange(len(right)) if order is None else order
    scores = scoring_task("classification", CLASSES, {}).score(np.eye(len(CLASSES))[truth], probabilities)
    shuffled = {name: values[order] for name, values in scores.items()}
    save_scores(run.evaluation_dir("test"), Scored(shuffled, tuple(ids[i] for i in order), ()))
    return run


def answers(wrong: int, start: int = 0) -> np.ndarray:
    right = np.ones(COUNT, bool)
    right[start : start + wrong] = False
    return right


def test_two_runs_are_paired_image_by_image_in_any_order(tmp_path):
    first = make(tmp_path / "a", answers(40))
    order = np.random.default_rng(0).permutation(COUNT)
    second = make(tmp_path / "b", answers(20), order, ("train.epochs=7", "model=resnet8"))
    found = compare_runs([first, second])
    row = found.scores.query("measure == 'accuracy' and run == @second.path.__str__()").iloc[0]
    assert (row["value"], row["difference"]) == (pytest.approx(0.95), pytest.approx(0.05))
    # 20 answers were won and none lost: McNemar's exact p is 2 / 2**20.
    assert row["p_value"] == pytest.approx(2 / 2**20)
    assert row["verdict"] == "better"
    worse = found.scores.query("measure == 'log_loss'").iloc[1]
    assert worse["difference"] < 0
    assert worse["verdict"] == "better"  # a smaller loss
    shown = found.table().set_index(["measure", "run"])
    assert shown.loc[("accuracy", str(second.path)), "points"] == "+5.00"
    assert (
        shown.loc[("log_loss", str(first.path)), "value"]
        == f"{found.scores.query('measure == @worse.measure').iloc[0]['value']:.4g}"
    )
    assert (shown.loc[(slice(None), str(first.path)), ["points", "paired 95 %"]] == "").all(axis=None)
    keys = found.settings.set_index("key")
    assert keys.loc["train.epochs", str(second.path)] == "7"
    assert {"model.name", "train.epochs"} <= set(keys.index)
    assert not {"data.source.name", "train.seed"} & set(keys.index)


def test_equal_runs_show_no_difference(tmp_path):
    found = compare_runs([make(tmp_path / "a", answers(40)), make(tmp_path / "b", answers(40))])
    assert set(found.scores["verdict"]) == {"", "not shown"}
    assert found.settings.empty
    assert found.table().loc[1, "points"] == "+0.00"
    assert "b: not shown, +0.00 points (p = 1, 400 images show" in found.summary()


def test_p_values_count_the_comparisons(tmp_path):
    """11 of 400 answers won is p = 0.001 alone, and as many again in each of three runs."""
    runs = [make(tmp_path / "first", answers(40)), *(make(tmp_path / str(i), answers(29)) for i in range(3))]
    alone = compare_runs(runs[:2]).scores.query("measure == 'accuracy'")["p_value"].iloc[1]
    among = compare_runs(runs).scores.query("measure == 'accuracy'")["p_value"].iloc[1]
    assert alone == pytest.approx(2 / 2**11)
    assert among == pytest.approx(3 * alone)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_cannot_be_compared_is_refused(tmp_path):
    first = make(tmp_path / "a", answers(40))
    with pytest.raises(UserError, match="give two runs or more"):
        compare_runs([first])
    with pytest.raises(UserError, match=r"400, 10 of them not in common, such as image390.png; score both"):
        compare_runs([first, make(tmp_path / "b", answers(4)[:390])])
    unscored = make(tmp_path / "c", answers(4))
    (unscored.evaluation_dir("test") / "scores.npz").unlink()
    with pytest.raises(UserError, match=r"has no scores.npz; write it with: pipeline eval .*c --split test"):
        compare_runs([first, unscored])
    (unscored.evaluation_dir("test") / "scores.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"scores.npz cannot be read"):
        compare_runs([first, unscored])
    other = make(tmp_path / "d", answers(4))
    other.note(classes=[*CLASSES[:-1], "six"])
    with pytest.raises(UserError, match="do not answer the same question"):
        compare_runs([first, other])
