"""A compressed run is a run like any other, made stage by stage, and resumable between them."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import keras
import pandas as pd
import pytest
from seeding import set_seed

from pipeline import Run, UserError, evaluate, export, train
from pipeline.config import Experiment, recipes
from pipeline.evaluation.scoring import load_model
from pipeline.export.compress.comparison import describe
from pipeline.export.compress.finetune import Finetuning
from pipeline.export.compress.run import compress_run
from pipeline.export.compress.sparsity import sparsity_of
from pipeline.export.export import Export

FILES = "export.variants=[float32, int8]"
SHORT = {
    "small": ["compress.channels.epochs=1", "compress.channels.multiple=1", "compress.qat.epochs=1"],
    "tiny": ["compress.channels.epochs=1", "compress.channels.multiple=1", "compress.qat.epochs=1"],
    "qat": ["compress.qat.epochs=1"],
    "zip": ["compress.sparsity.epochs=1", "compress.qat.epochs=1"],
    "repair": [],
    None: [],
}


@pytest.fixture(scope="module")
def base(digits_run) -> Run:
    return digits_run


def planned(base: Run, recipe: str | None, *overrides: str) -> Experiment:
    """Return what the recipe makes of the base, with the shortest training that is one."""
    return base.experiment.compressed(base.path, recipe, [FILES, *SHORT[recipe], *overrides])


@pytest.fixture(scope="module")
def exported(base, tmp_path_factory) -> Callable[[str], Export]:
    """Return a function of a recipe that makes its run of the base, once, and exports it: what is made is only read."""
    folder = tmp_path_factory.mktemp("recipes")
    return functools.cache(lambda recipe: export(compress_run(planned(base, recipe), folder / recipe)))


@pytest.mark.parametrize("recipe", [name for name in SHORT if name])
def test_every_recipe_makes_a_run_that_is_evaluated_and_exported(base, recipe, exported):
    result = exported(recipe)
    run = result.run
    assert evaluate(run).metrics["accuracy"].value > 0.3
    files = ["float32", "int8", *(["w4a8"] if recipe == "tiny" else [])]
    assert list(result.results["variant"]) == files
    assert list(result.compression["variant"]) == ["base float32", "base int8", *files]
    assert (result.compression["times_faster_p10"] <= result.compression["times_faster_p90"]).all()
    assert describe(result.compression).startswith("compressed: ")
    assert pd.read_csv(run.export_dir / "compression.csv")["times_smaller"].iloc[0] == 1
    assert "Made from" in run.report_path.read_text(encoding="utf-8")
    assert Experiment.load(run.experiment_path).compress.base == str(base.path)
    assert not (run.path / "stages").exists()
    if recipe in ("small", "tiny"):
        assert load_model(run).count_params() < 0.6 * load_model(base).count_params()
    if recipe == "zip":
        assert max(sparsity_of(load_model(run)).values()) == pytest.approx(0.8, abs=0.01)
        int8 = result.compression.set_index("variant").loc["int8"]
        assert int8["zipped"] < 0.7 * int8["bytes"]


def test_all_recipes_were_tried():
    assert set(recipes()) == set(SHORT) - {None}
    assert len(recipes()) == 5


def test_what_quantisation_aware_training_promised_is_in_the_file(exported):
    results = exported("qat").results.set_index("variant")
    # Ranges were trained, so that the file and the Keras model of the run give the same answers.
    assert abs(results.loc["int8", "difference"]) <= 1.0
    assert results.loc["int8", "mean_abs_difference"] < 0.01


def test_clusters_and_flags_compose(base, tmp_path):
    overrides = ["compress.equalise=true", "compress.clusters={count: 8, epochs: 0}", "compress.qat={epochs: 1}"]
    run = compress_run(planned(base, None, *overrides), tmp_path / "clusters")
    history = pd.read_csv(run.history_path)
    assert list(history["stage"]) == ["qat"]
    assert list(history["epoch"]) == [1]


def test_a_pattern_needs_no_target_and_no_quotes(base, tmp_path):
    experiment = planned(base, None, "compress.sparsity={pattern: 2:4, epochs: 0}")
    assert experiment.compress.sparsity.pattern == "2:4"
    assert max(sparsity_of(load_model(compress_run(experiment, tmp_path / "half"))).values()) == 0.5
    usual = compress_run(planned(base, None, "compress.sparsity={epochs: 0}"), tmp_path / "usual")
    assert max(sparsity_of(load_model(usual)).values()) == pytest.approx(0.8, abs=1e-3)


def test_an_interrupted_compression_goes_on_with_the_next_stage(base, tmp_path, monkeypatch):
    experiment = planned(base, "small", "compress.channels.rounds=1")
    call, trained = Finetuning.__call__, []

    def fragile(self, model, *, folder: Path, **options):
        trained.append(folder.name)
        if len(trained) == 2:
            raise UserError("stopped")
        return call(self, model, folder=folder, **options)

    monkeypatch.setattr(Finetuning, "__call__", fragile)
    with pytest.raises(UserError, match="stopped"):
        compress_run(experiment, tmp_path / "out")
    assert not Run(tmp_path / "out").finished
    run = compress_run(experiment, tmp_path / "out")
    assert trained == ["01-channels_1_of_1", "02-qat", "02-qat"]
    assert list(pd.read_csv(run.history_path)["stage"]) == ["channels_1_of_1", "qat"]
    compress_run(experiment, tmp_path / "out")  # finished: nothing is done again
    assert len(trained) == 3


def test_a_compressed_run_says_where_it_came_from_and_is_compressed_again(base, exported, tmp_path):
    first = exported("repair").run
    facts = json.loads(first.environment_path.read_text())
    assert facts["base"]["path"] == str(base.path)
    assert len(facts["base"]["model_sha256"]) == 64
    half = "compress.channels={ratio: 0.5, multiple: 1, epochs: 1, importance: taylor, scope: global}"
    second = first.experiment.compressed(first.path, None, [half])
    assert compress_run(second, tmp_path / "second").finished
    again = base.experiment.compressed(base.path, first.path)  # its stages, as a recipe
    assert again.compress == first.experiment.compress


def test_another_teacher_can_be_named(base, tmp_path):
    set_seed(0)
    keras.models.clone_model(load_model(base)).save(tmp_path / "untrained.keras")
    overrides = ["compress.qat={epochs: 1}", f"compress.distill={{teacher: {tmp_path / 'untrained.keras'}}}"]
    run = compress_run(planned(base, None, *overrides), tmp_path / "taught")
    assert pd.read_csv(run.history_path)["val_teacher_accuracy"].item() < 0.4  # the base has some 95 %
    assert json.loads(run.environment_path.read_text())["teacher"]["path"].endswith("untrained.keras")
    with pytest.raises(UserError, match=r"there is no teacher at .*gone\.keras"):
        compress_run(planned(base, "small", f"compress.distill.teacher={tmp_path / 'gone.keras'}"), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_teacher_that_changed_since_the_interruption_is_refused_unless_forced(base, tmp_path, monkeypatch):
    model, file = load_model(base), tmp_path / "teacher.keras"
    model.save(file)
    experiment = planned(base, None, "compress.qat={epochs: 1}", f"compress.distill={{teacher: {file}}}")
    monkeypatch.setattr(Finetuning, "__call__", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        compress_run(experiment, tmp_path / "out")
    monkeypatch.undo()
    model.set_weights([2 * each for each in model.get_weights()])
    model.save(file)
    with pytest.raises(UserError, match=r"the teacher .*teacher\.keras is not the file that .*out began with"):
        compress_run(experiment, tmp_path / "out")
    assert compress_run(experiment, tmp_path / "out", force=True).finished


def test_wrong_requests_are_named(base, exported, tmp_path):
    with pytest.raises(UserError, match=r"is the run to compress; give another folder as --out"):
        compress_run(planned(base, "repair"), base.path)
    with pytest.raises(UserError, match=r"this experiment is of a compressed run; use it with: pipeline compress"):
        train(planned(base, "repair"), tmp_path / "no")
    with pytest.raises(UserError, match="does not exist"):
        compress_run(base.experiment.compressed(tmp_path / "gone", "repair"), tmp_path / "no")
    quantised = exported("qat").run
    with pytest.raises(UserError, match=r"is quantised already; compress a float one, the run that it was made from: "):
        compress_run(base.experiment.compressed(quantised.path, "repair"), tmp_path / "no")
