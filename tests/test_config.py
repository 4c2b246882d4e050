"""Experiments: what is accepted, what is refused and how, and that the resolved text is itself an experiment."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import FREE, Experiment, presets
from pipeline.errors import UserError

EXPECTED_PRESETS = {
    "digits",
    "scenes_segmentation",
    "cifar10",
    "cifar10_folder",
    "cifar10_20min",
    "cifar10_2h",
    "folder",
}


def test_presets_are_all_there():
    assert set(presets()) == EXPECTED_PRESETS


@pytest.mark.parametrize("name", sorted(EXPECTED_PRESETS))
def test_resolved_experiment_is_a_valid_input(name: str, tmp_path: Path):
    experiment = Experiment.load(name)
    path = tmp_path / "experiment.yaml"
    path.write_text(experiment.to_yaml())
    assert Experiment.load(path) == experiment
    assert Experiment.load(tmp_path) == experiment  # a run folder


@pytest.mark.parametrize("name", sorted(EXPECTED_PRESETS))
def test_presets_open_with_a_lab_note(name: str):
    assert presets()[name].read_text().startswith("# ")


def test_overrides_reach_sections_components_and_lists():
    experiment = Experiment.load(
        "digits",
        ["train.epochs=3", "model.name=resnet20", "data.augment=[flip]", "train.optimizer.learning_rate=0.5"],
    )
    assert experiment.train.epochs == 3
    assert experiment.model.name == "resnet20"
    assert [a.name for a in experiment.data.augment] == ["flip"]
    assert experiment.train.optimizer.options["learning_rate"] == 0.5


def test_a_new_name_drops_the_options_of_the_old_one():
    experiment = Experiment.load("digits", ["model={name: resnet20, width: 8}", "model.name=lenet5"])
    assert experiment.model.name == "lenet5"
    assert "width" not in experiment.model.options


def test_a_shorthand_name_takes_options():
    experiment = Experiment.load("digits", ["model=resnet20", "model.width=8"])
    assert experiment.model.options["width"] == 8


def test_defaults_are_written_out():
    assert Experiment.load("digits", ["model=resnet20"]).model_dump()["model"]["width"] == 16


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.optimizer.learning_rate=fast", r"train\.optimizer\.learning_rate cannot be 'fast': .*number"),
        ("train.epohcs=3", r"train\.epohcs is not a key; did you mean 'epochs'\?"),
        ("trian.epochs=3", r"trian is not a key; did you mean 'train'\?"),
        ("model.name=resnet21", r"model: there is no model 'resnet21'; did you mean 'resnet20'"),
        ("model.widht=3", r"model\.widht is not a key"),
        ("task.name=segmentaton", r"task: there is no task 'segmentaton'; did you mean 'segmentation'"),
        ("train.epochs=0", r"train\.epochs cannot be 0: it should be greater than 0"),
        ("train.xla=perhaps", r"train\.xla cannot be 'perhaps': it should be 'auto' or"),
        ("train.precision=float61", r"train\.precision cannot be 'float61': .*'float32'"),
        ("data.image_size=[3]", r"data\.image_size"),
        ("data.augment=[spin]", r"data\.augment\.0: there is no augmentation 'spin'"),
        ("export.variants=[int9]", r"export\.variants: there is no variant 'int9'; did you mean 'int\d"),
        ("data.source={path: x}", r"data\.source: give the name of a source"),
        ("data.validation=.nan", r"data\.validation"),
        ("train", r"'train' is not an override; write it as key=value"),
        ("train.epochs=[", r"the value of train\.epochs is not YAML"),
        ("train.epochs.more=1", r"train\.epochs has no keys|train\.epochs\.more cannot be set|not a key|cannot be"),
    ],
)
def test_wrong_values_are_named(override: str, message: str):
    with pytest.raises(UserError, match=message) as caught:
        Experiment.load("digits", [override])
    assert caught.value.usage
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: !!python/object/apply:os.system [ls]", "cannot be read as plain YAML"),
        ("model: resnet20\nmodel: lenet5", "'model' stands twice"),
        ("just words", "must hold the keys task, data, model"),
        ("model: resnet20", "data is missing"),
        ("a: [1", "line 1 cannot be read as plain YAML|line 2 cannot be read as plain YAML"),
    ],
)
def test_wrong_files_are_named(text: str, message: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        Experiment.load(path)
    assert "mine.yaml" in str(caught.value)


def test_a_merged_key_may_be_set_anew(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("x: &x {epochs: 3, seed: 1}\ntrain: {<<: *x, epochs: 5}\n")
    with pytest.raises(UserError, match=r"data is missing|x is not a key"):
        Experiment.load(path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.folds={of: 5, index: 0}", "data.pseudo={images: a, labels: b}"],
            "a teacher may have seen .* data.pseudo",
        ),
        (
            ["data.pseudo={images: a, labels: b}", "train.curriculum.easy_first.scores=c"],
            "no run has scored the pseudo-labelled images",
        ),
    ],
)
def test_what_cannot_go_together_is_named(overrides: list[str], message: str):
    with pytest.raises(UserError, match=message):
        Experiment.load("digits", overrides)


def test_other_images_than_the_run_s_own_are_not_cut_into_folds():
    own = Experiment.load("digits", ["data.folds={of: 5, index: 0}"])
    assert own.replace(["data.batch_size=8"], only=FREE).data.folds
    assert own.replace(["data.source={name: folder, path: new}"], only=FREE).data.folds is None


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (
            "{size: [16, 16], share: 0.3, shar: 1}",
            r"train\.curriculum\.sizes\.0\.shar is not a key; did you mean 'share'",
        ),
        ("{size: [16, 16]}", r"train\.curriculum\.sizes\.0\.share is missing"),
    ],
)
def test_keys_inside_lists_are_named(phase: str, message: str):
    with pytest.raises(UserError, match=message):
        Experiment.load("digits", [f"train.curriculum.sizes=[{phase}]"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["transfer.evry=2"], r"transfer\.evry is not a key; did you mean 'every'"),
        (["transfer.factor=2"], r"transfer\.factor cannot be 2: it should be less than or equal to 1"),
        (["transfer.every=2"], r"transfer: transfer\.base is .* one of them has to name weights to start from"),
        (
            ["model={name: 'applications:MobileNetV2', weights: imagenet}", "transfer.base=runs/a"],
            r"both have weights; set one of them",
        ),
        (
            ["transfer={base: runs/a, head_epochs: 3}", "train.epochs=3"],
            r"after 3 head_epochs none of 3 train\.epochs is left for the stages; lower head_epochs, or set every",
        ),
    ],
)
def test_wrong_transfers_are_named(overrides: list[str], message: str):
    with pytest.raises(UserError, match=message) as caught:
        Experiment.load("digits", overrides)
    assert caught.value.usage


def test_weights_to_start_from_are_a_base_or_those_of_the_model():
    own = ["model={name: 'applications:MobileNetV2', weights: imagenet}", "transfer={}"]
    assert Experiment.load("digits", own).transfer.base is None
    frozen = ["transfer={base: runs/a, every: null}", "train.epochs=1"]
    assert Experiment.load("digits", frozen).transfer.every is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compress.channel.ratio=0.6", r"compress\.channel is not a key; did you mean 'channels'"),
        ("compress.channels.ratio=1.2", r"compress\.channels\.ratio cannot be 1\.2: it should be less than 1"),
        ("compress.channels.ration=0.5", r"compress\.channels\.ration is not a key; did you mean 'ratio'"),
        ("compress.qat.bits=5", r"compress\.qat\.bits cannot be 5: it should be 4 or 8"),
        ("compress.sparsity=0.5", r"compress\.sparsity cannot be 0\.5: it should be a mapping of keys"),
        ("model.name=lenet5", r"task, model and data\.channels are those of the run"),
        ("compress={base: runs/a}", r"set at least one of equalise, channels, sparsity, clusters, qat"),
        ("compress={base: a, sparsity: {}, clusters: {}}", r"cannot both hold the same kernels"),
    ],
)
def test_wrong_compressions_are_named(override: str, message: str):
    with pytest.raises(UserError, match=message) as caught:
        Experiment.load("digits").compressed("runs/digits", "small", [override])
    assert caught.value.usage


def test_recipes_are_shipped_or_given(tmp_path: Path):
    experiment = Experiment.load("digits")
    assert experiment.compressed("runs/digits", "small").compress.qat.bits == 8
    assert "w4a8" in experiment.compressed("runs/digits", "tiny").export.variants
    mine = tmp_path / "mine.yaml"
    mine.write_text("equalise: true\n")
    assert experiment.compressed("runs/digits", mine).compress.equalise
    with pytest.raises(UserError, match="did you mean 'small'"):
        experiment.compressed("runs/digits", "smal")
    (tmp_path / "experiment.yaml").write_text(experiment.to_yaml())
    with pytest.raises(UserError, match="is not a compressed run"):
        experiment.compressed("runs/digits", tmp_path)


def test_missing_config_names_the_nearest_preset():
    with pytest.raises(UserError, match="did you mean 'digits'"):
        Experiment.load("digitz")


def test_experiment_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Experiment.load("digits").train.epochs = 3


def test_a_rejected_experiment_never_imports_tensorflow():
    code = (
        "import sys\n"
        "from pipeline import Experiment\n"
        "try:\n    Experiment.load('digits', ['model.name=resnet21'])\n"
        "except Exception as error:\n    print(error)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resnet20" in done.stdout
