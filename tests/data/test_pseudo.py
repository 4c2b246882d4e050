"""Pseudo-labels join the training split, with their weight, hard or soft, and no other split."""

import json
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config import Experiment
from pipeline.data.opening import decode_split
from pipeline.data.pseudo import provenance
from pipeline.data.source import Source
from pipeline.errors import UserError
from pipeline.training.setup import open_task

ROWS = [("a.png", "bee", [0.25, 0.75]), ("sub/b.png", "ant", [0.625, 0.375])]


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32("/".join(path.parts[-2:]).encode())
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


@pytest.fixture
def experiment(tmp_path):
    """Return an experiment with 6 labelled training images, 2 test images, and a table of two pseudo-labels."""
    for split, many in (("train", 4), ("test", 1)):
        for kind in ("ant", "bee"):
            for index in range(many):
                picture(tmp_path / "labelled" / split / kind / f"{index}.png")
    for image, *_ in ROWS:
        picture(tmp_path / "more" / image)
    write(tmp_path, ROWS)
    return Experiment.load(
        "folder",
        [
            *(f"data.source.path={tmp_path / 'labelled'}", "data.image_size=[8, 8]", "data.validation=0.25"),
            f"data.pseudo={{images: {tmp_path / 'more'}, labels: {tmp_path / 'labels.csv'}}}",
        ],
    )


def write(folder, rows):
    table = pd.DataFrame(rows, columns=["image", "label", "probabilities"])
    table["probabilities"] = [json.dumps(one) for one in table["probabilities"]]
    table.to_csv(folder / "labels.csv", index=False)


def samples(source: Source, experiment: Experiment) -> dict[str, dict]:
    train = decode_split(experiment.data, source.splits["train"], ("label",), 2, "train")
    whole = next(iter(train.evaluation(train.count, lambda batch: (batch["label"], batch.get("weight", ())))))
    label, weight = whole["y"]
    names = [one.decode() for one in whole["id"].numpy()]
    weights = [None] * len(names) if isinstance(weight, tuple) else weight.numpy()
    return {name: {"label": a, "weight": b} for name, a, b in zip(names, label.numpy().tolist(), weights, strict=True)}


def test_a_source_without_training_images_is_refused(experiment):
    alone = experiment.replace(
        ["data.source.path=" + experiment.data.source.options["path"] + "/train", "data.source.test=1"]
    )
    for one in (alone, alone.replace(["data.pseudo=null"])):
        with pytest.raises(UserError, match="there is no split 'train'; this source has test"):
            open_task(one)


def test_an_image_named_twice_is_refused(tmp_path, experiment):
    write(tmp_path, [*ROWS, ROWS[0]])
    with pytest.raises(UserError, match=r"labels\.csv names an image twice"):
        open_task(experiment)


def test_they_join_train_and_only_train(experiment):
    source, _ = open_task(experiment)
    assert {name: split.count for name, split in source.splits.items()} == {"train": 8, "validation": 2, "test": 2}
    assert source.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 0]
    found = samples(source, experiment)
    assert found["pseudo/a.png"] == {"label": 1, "weight": None}
    assert found["pseudo/sub/b.png"] == {"label": 0, "weight": None}


def test_weights_have_a_mean_of_one(experiment):
    source, _ = open_task(experiment.replace(["data.pseudo.weight=0.5"]))
    found = samples(source, experiment)
    # Six images of weight 1 and two of 0.5 weigh 7/8 each on average.
    assert found["pseudo/a.png"]["weight"] == pytest.approx(0.5 / 0.875)
    assert sorted(one["weight"] for one in found.values())[2:] == pytest.approx([1 / 0.875] * 6)


@pytest.mark.parametrize("augment", ["[]", "[mixup]"])
def test_soft_labels_reach_the_batches(experiment, augment):
    experiment = experiment.replace(["data.pseudo.soft=true", "data.pseudo.weight=0.5", f"data.augment={augment}"])
    source, task = open_task(experiment)
    found = samples(source, experiment)
    assert found["pseudo/a.png"]["label"] == [0.25, 0.75]
    assert found["pseudo/sub/b.png"]["label"] == [0.625, 0.375]
    train = decode_split(experiment.data, source.splits["train"], task.fields, 2, "train")
    names = [(one.name, one.options) for one in experiment.data.augment]
    [(_, y, weight)] = train.training(
        batch_size=8, augment=names, seed=0, start_step=0, total_steps=1, encode=task.encode
    )
    np.testing.assert_allclose(y.numpy().sum(axis=1), 1, rtol=1e-5)
    if augment == "[]":
        total = (y * weight[:, None]).numpy().sum(axis=0)
        np.testing.assert_allclose(total, np.array([3 + 0.4375, 3 + 0.5625]) / 0.875, rtol=1e-5)


def test_a_run_says_where_its_labels_came_from(experiment, tmp_path):
    (tmp_path / "about.json").write_text('{"teacher": "runs/first"}')
    noted = provenance(experiment.data.pseudo)
    assert noted["teacher"] == "runs/first"
    assert len(noted["sha256"]) == 64


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a.png", "cow", [0.5, 0.5])], "has the class 'cow', which the labelled images do not have"),
        ([("a.png", "ant", [0.25, 0.75])], "of other classes, or in another order"),
        ([("../labelled/test/ant/0.png", "ant", [1.0, 0.0])], "lies outside data.pseudo.images"),
        ([], "has no rows"),
    ],
)
def test_a_wrong_table_is_one_sentence(experiment, tmp_path, rows, message):
    write(tmp_path, rows)
    with pytest.raises(UserError, match=message):
        open_task(experiment.replace(["data.pseudo.soft=true"]))


def test_a_missing_table_and_a_source_without_files_are_one_sentence(experiment):
    with pytest.raises(UserError, match=r"nowhere.csv does not exist; make it with: pipeline pseudo"):
        open_task(experiment.replace(["data.pseudo.labels=nowhere.csv"]))
    digits = Experiment.load("digits", ["data.pseudo={images: more, labels: labels.csv}"])
    with pytest.raises(UserError, match="needs images that are files"):
        open_task(digits)
