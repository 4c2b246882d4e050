"""The command line: exit codes, one-sentence errors, and the whole job from images to .tflite and back."""

import json
from pathlib import Path

import keras
import pandas as pd
import pytest
from PIL import Image

from pipeline.cli.app import config_name, split_overrides
from pipeline.terminal import print_table


def test_help_names_every_command(run_cli):
    code, out, _ = run_cli("--help")
    assert code == 0
    making, shipping = "train eval data lint inspect list doctor", "export verify bundle compress predict demo"
    studying = "compare crossval ablate tune rates pseudo"
    for command in f"{making} {shipping} {studying}".split():
        assert f" {command} " in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "digitz"], 2, "did you mean 'digits'?"),
        (["train", "digits", "train.optimizer.learning_rate=fast"], 2, "learning_rate cannot be 'fast'"),
        (["train", "model.name=resnet21"], 2, "did you mean 'resnet"),
        (["train", "digits", "train.epochs"], 2, "key=value"),
        (["list", "modles"], 2, "did you mean 'models'?"),
        (["eval", "no/such/run"], 1, "does not exist"),
        (["eval", "no/such/run", "--tta", "flip"], 1, "does not exist"),
        (["export", "no/such/run"], 1, "does not exist"),
        (["verify", "no/such/run"], 1, "no/such/run has no certificate.json"),
        (["bundle", "no/such/run"], 1, "does not exist"),
        (["compress", "no/such/run"], 1, "does not exist"),
        (["compress", "no/such/run", "--budget", "size<1furlong"], 2, "the unit 'furlong'"),
        (["predict", "no/such/run", "a.jpg"], 1, "no/such/run"),
        (["demo", "no/such/run"], 1, "does not exist"),
        (["inspect", "resnet21"], 2, "'resnet21' is no run, no .keras file and no model; did you mean 'resnet20'?"),
        (["compare", "no/such/run"], 1, "does not exist"),
        (["crossval", "digits", "--folds", "1"], 2, "data.folds.of cannot be 1"),
        (["ablate", "digits", "--seeds", "1"], 2, "1 seeds show no spread"),
        (["rates", "digits", "--low", "2"], 2, "0 < --low < --high"),
        (["pseudo", "no/such/run", "photos", "--out", "labels"], 1, "no/such/run does not exist"),
        (["tune", "digits"], 2, "the experiment has no section search"),
        (
            ["tune", "digits", "search.space={train.epochs: {low: 9, high: 3}}"],
            2,
            "low must be below high, not 9 and 3",
        ),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_wrong_use_is_one_sentence_and_an_exit_code(run_cli, arguments, code, message):
    found, out, err = run_cli(*arguments)
    assert found == code
    assert message in err
    assert out == ""
    assert "Traceback" not in err


def test_list_prints_every_kind_as_json(run_cli):
    for kind in ("sources", "augmentations", "tasks", "optimizers", "schedules", "recipes", "presets"):
        code, out, _ = run_cli("list", kind, "--json")
        assert code == 0
        rows = json.loads(out)
        assert rows, f"{kind} is empty"
        assert all(row["name"] and row["what"] for row in rows)


def test_list_prints_one_document_of_all_kinds(run_cli):
    code, out, _ = run_cli("list", "--json")
    assert code == 0
    assert {"sources", "models", "presets"} <= set(json.loads(out))


def test_json_keeps_what_is_small(capsys):
    print_table(pd.DataFrame({"p": [3e-12]}), as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"p": 3e-12}]


def test_a_run_is_called_as_its_folder(tmp_path: Path, monkeypatch):
    (tmp_path / "mine=1").mkdir()
    monkeypatch.chdir(tmp_path / "mine=1")
    Path("experiment.yaml").write_text("model: lenet5")
    assert config_name("experiment.yaml") == config_name(".") == "mine=1"
    path = str(tmp_path / "mine=1" / "experiment.yaml")
    assert split_overrides(path, None) == (path, [])


def test_doctor_says_what_is_here_and_what_training_would_choose(run_cli):
    code, out, _ = run_cli("doctor", "--json")
    assert code == 0
    values = {row["what"]: row["value"] for row in json.loads(out)}
    assert "CPU" in values["devices"]
    assert "steps per call" in values["training"]
    assert values["keras"] == keras.__version__


def test_inspect_prints_layers_and_draws_what_they_see(run_cli, tmp_path: Path):
    code, out, err = run_cli("inspect", "lenet5", "--json", "--show", tmp_path / "seen.png")
    assert code == 0
    rows = {row["layer"]: row for row in json.loads(out)}
    assert (rows["conv1_conv"]["field"], rows["conv2_conv"]["field"]) == ([5, 5], [6 + 4 * 2, 6 + 4 * 2])
    assert rows["logits"]["parameters"] == 850
    assert "conv2_conv sees 14 pixels, effectively" in err
    assert (tmp_path / "seen.png").is_file()
    code, out, _ = run_cli("inspect", "lenet5", "--effective")
    assert code == 0
    assert "28×28×6" in out
    assert "uses" in out


@pytest.fixture
def color_folder(tmp_path: Path) -> Path:
    """Write class folders that a tiny network can learn: red, green and blue pictures."""
    colors = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    for split, count in (("train", 12), ("test", 5)):
        for name, color in colors.items():
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (20 + index, 24), color).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_persons_own_folder_from_images_to_tflite_and_back(run_cli, color_folder: Path, tmp_path: Path):
    run, photos = tmp_path / "mine", color_folder
    settings = [
        f"data.source.path={photos}", "data.image_size=[16, 16]", "data.batch_size=8", "data.augment=[]",
        "model={name: simple_cnn, padding: same}", "train.epochs=8", "export.variants=[float32, int8]",
    ]  # fmt: skip
    assert run_cli("data", "folder", *settings, "--show", tmp_path / "augmented.png")[0] == 0
    with Image.open(tmp_path / "augmented.png") as picture:
        assert picture.width > 100

    code, _, err = run_cli("train", "folder", *settings, "--run", run)
    assert code == 0, err
    assert (run / "model.keras").is_file()
    before = (run / "model.keras").read_bytes()
    code, _, err = run_cli("train", "folder", *settings, "--run", run)
    assert code == 0
    assert "--force" in err
    assert (run / "model.keras").read_bytes() == before, "a finished run was trained again"
    assert run_cli("train", "folder", *settings, "train.seed=1", "--run", run)[0] == 1

    code, out, err = run_cli("eval", run, "--json")
    assert code == 0, err
    rows = {row["measure"]: row for row in json.loads(out)}
    assert rows["accuracy"]["value"] == 1.0
    assert rows["accuracy"]["n"] == 15
    assert rows["accuracy"]["low"] == pytest.approx(0.796, abs=1e-3)  # Wilson's, 15 of 15

    code, out, err = run_cli("export", run, "--json")
    assert code == 0, err
    assert [row["variant"] for row in json.loads(out)] == ["float32", "int8"]
    results = pd.read_csv(run / "export" / "results.csv")
    assert list(results["score"]) == [1.0, 1.0]
    page = (run / "report.html").read_text()
    assert "int8" in page
    assert "data:image/png" in page

    code, out, err = run_cli("bundle", run)
    assert code == 0, err
    code, out, err = run_cli("verify", tmp_path / "mine.zip")
    assert code == 0, err
    assert "is what its certificate says: 13 checks" in err
    labels = run / "export" / "labels.txt"
    original = labels.read_text()
    labels.write_text("\n".join(reversed(original.splitlines())) + "\n")
    code, out, err = run_cli("verify", run)
    assert code == 1
    assert "labels.txt was changed" in err
    labels.write_text(original)

    picture = photos / "test" / "green" / "0.png"
    for model in (run, run / "export" / "float32.tflite", run / "export" / "int8.tflite"):
        code, out, err = run_cli("predict", model, picture, "--json")
        assert code == 0, err
        assert json.loads(out)[0]["labels"][0] == "green"

    code, _, err = run_cli("predict", run, photos / "nothing.png")
    assert code == 1
    assert "nothing.png" in err
    code, _, err = run_cli("eval", run, "--split", "validate")
    assert code == 1
    assert "validation" in err

    # A compressed run is a run like any other: scored, exported, and asked.
    smaller = tmp_path / "smaller"
    short = ["compress.channels={epochs: 1, multiple: 1}", "compress.qat.epochs=1"]
    code, out, err = run_cli(
        "compress", run, *short, "--channels", "0.5", "--qat", "--distill", "--out", smaller, "--json"
    )
    assert code == 0, err
    rows = json.loads(out)
    assert [row["variant"] for row in rows] == ["base float32", "base int8", "float32", "int8"]
    assert rows[-1]["times_smaller"] > 4
    assert run_cli("predict", smaller / "export" / "int8.tflite", picture, "--json")[0] == 0

    code, out, err = run_cli("compare", run, smaller, "--json")
    assert code == 0, err
    assert {row["measure"] for row in json.loads(out)} >= {"accuracy", "log_loss"}
    assert "accuracy of" in err
