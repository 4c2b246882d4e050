"""The run folder: created once, resumed only by the same experiment, written whole or not at all."""

import errno
from pathlib import Path

import pytest

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.runs import FORMAT, Run, beside, write_atomically


@pytest.fixture
def experiment() -> Experiment:
    return Experiment.load("digits")


def test_create_writes_the_resolved_experiment_and_the_environment(tmp_path: Path, experiment: Experiment):
    run = Run.create(tmp_path / "a" / "run", experiment)
    assert run.experiment == experiment
    assert run.facts["format"] == FORMAT
    assert run.facts["packages"]["keras"].startswith("3.")
    assert not run.finished


def test_interrupted_run_is_reopened_by_the_same_experiment_only(tmp_path: Path, experiment: Experiment):
    run = Run.create(tmp_path / "run", experiment)
    run.note(classes=["a"])
    assert Run.create(run.path, experiment).classes == ("a",)
    other = experiment.replace(["train.seed=7"])
    with pytest.raises(UserError, match=r"another experiment \(train\.seed: 0 there, 7 here\).*--force"):
        Run.create(run.path, other)
    assert Run.create(run.path, other, force=True).experiment == other


def test_force_never_deletes_a_folder_that_is_not_a_run(tmp_path: Path, experiment: Experiment):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(UserError, match="is not a run"):
        Run.create(tmp_path, experiment, force=True)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"


def test_a_folder_with_an_experiment_of_the_users_own_is_not_a_run(tmp_path: Path, experiment: Experiment):
    (tmp_path / "experiment.yaml").write_text(experiment.to_yaml())
    with pytest.raises(UserError, match="exists and is not a run"):
        Run.create(tmp_path, experiment, force=True)
    assert (tmp_path / "experiment.yaml").exists()
    with pytest.raises(UserError, match=r"is not a run \(it has no environment.json\)"):
        Run.open(tmp_path)


def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path, b"picture")


def test_open_says_why_a_folder_is_no_run(tmp_path: Path, experiment: Experiment):
    with pytest.raises(UserError, match="does not exist; make one with: pipeline train"):
        Run.open(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"is not a run \(it has no experiment.yaml\)"):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "run", experiment)
    with pytest.raises(UserError, match="has not finished training"):
        Run.open(run.path)


def test_a_newer_format_is_refused(tmp_path: Path, experiment: Experiment):
    run = Run.create(tmp_path / "run", experiment)
    run.note(format=FORMAT + 1)
    for reopen in (lambda: Run.open(run.path), lambda: Run.create(run.path, experiment)):
        with pytest.raises(UserError, match=f"run format {FORMAT + 1}, this pipeline reads format {FORMAT}"):
            reopen()


def test_write_keeps_the_earlier_file_when_writing_fails(tmp_path: Path):
    path = tmp_path / "file.txt"
    write_atomically(path, "first")

    def full_disk(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"file.txt cannot be written \(no space left on device\)"):
        write_atomically(path, full_disk)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_write_leaves_nothing_behind_on_any_error(tmp_path: Path):
    def broken(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file.txt", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_beside_a_run_is_named_after_it(tmp_path, monkeypatch):
    assert beside(Path("runs/a.b"), "small") == Path("runs/a.b-small")
    monkeypatch.chdir(tmp_path)
    assert beside(Path("."), "small") == tmp_path.parent / f"{tmp_path.name}-small"
