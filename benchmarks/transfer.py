"""Few real images of new classes: from scratch, with frozen features, and with gradual unfreezing.

    python -m benchmarks.transfer DATA FOLDER [--seeds 3]

DATA holds {train,test}/<class>/*.jpg of CIFAR-10. A ResNet-8 learns every second class; the other five are then learned
from 10, 50 and 200 images each, drawn anew for each seed, in equally many epochs by each of the three ways, and scored
on all test images of these classes. A new head on good features takes a higher rate than a network from scratch, so
these have one rate each. Everything is kept in FOLDER; what is there is not made again.
"""

import argparse
import itertools
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pipeline  # noqa: F401  sets TensorFlow's environment
from pipeline.config import Experiment
from pipeline.evaluation.statistics import mcnemar, wilson
from pipeline.ops.intervals import student

EPOCHS = {10: 60, 50: 40, 200: 20}  # by the number of images per class
RATES = {False: 3e-3, True: 3e-2}  # Adam's peak, by whether weights were learned before
UNUSED = 20  # images per class, whose score chooses nothing: the last epoch is kept


def main() -> None:
    """Train what is missing, then print accuracies and differences from scratch, with intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    data, folder = arguments.data.resolve(), arguments.folder
    names = sorted(path.name for path in (data / "train").iterdir())
    base = train_base(data, names[::2], folder / "base")
    rows = []
    for seed in range(arguments.seeds):
        for count in EPOCHS:
            few = folder / "data" / f"{count}-{seed}"
            link_few(data, names[1::2], few, count, seed)
            for way, transfer in ways(str(base), EPOCHS[count]).items():
                correct = train_and_answer(few, folder / "runs" / f"{way}-{count}-{seed}", transfer, seed, count)
                rows.append({"images": count, "way": way, "seed": seed, "correct": correct})
                print(f"{count} a class, {way}, seed {seed}: {correct.mean():.4f} of {len(correct)}", flush=True)
    comparisons = compare(pd.DataFrame(rows))
    tables = [tabulate(pd.DataFrame(rows)).round(4), comparisons.round(2)]
    if arguments.seeds > 1:
        tables.append(summarise(comparisons).round(2))
    print(*(table.to_string(index=False) for table in tables), sep="\n\n")


def ways(base: str, epochs: int) -> dict[str, dict[str, Any] | None]:
    """Return the value of `transfer` for each way to learn."""
    gradual = {"base": base, "head_epochs": epochs // 4, "every": epochs // 8, "factor": 0.1}
    return {"scratch": None, "frozen": {"base": base, "every": None}, "gradual": gradual}


def train_base(data: Path, names: list[str], path: Path) -> Path:
    """Train the network whose weights are passed on, on all images of its classes."""
    from pipeline.training.train import train

    source = f"data.source={{name: folder, path: {data}, classes: [{', '.join(names)}]}}"
    overrides = [source, "model=resnet8", "data.batch_size=64", "train.epochs=6"]
    return train(Experiment.load("cifar10_folder", overrides), path).path


def link_few(data: Path, names: list[str], folder: Path, count: int, seed: int) -> None:
    """Make a folder of links: `count` images of each class to train on, others to validate on, and all of test."""
    for name in names:
        images = sorted((data / "train" / name).iterdir())
        chosen = random.Random(f"{seed} {name}").sample(images, max(EPOCHS) + UNUSED)
        for split, some in (("train", chosen[:count]), ("val", chosen[-UNUSED:])):
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            for image in some:
                if not (place / image.name).exists():
                    os.symlink(image, place / image.name)
        (folder / "test").mkdir(exist_ok=True)
        if not (folder / "test" / name).exists():
            os.symlink(data / "test" / name, folder / "test" / name)


def train_and_answer(few: Path, path: Path, transfer: dict[str, Any] | None, seed: int, count: int) -> np.ndarray:
    """Train on few images and return which test images are then right, bool (N,)."""
    answers = path / "correct.npy"
    if answers.exists():
        return np.load(answers)
    from pipeline.data.opening import decode_split, open_source
    from pipeline.evaluation.scoring import keras_predictor, load_model, score, scoring_task
    from pipeline.training.train import train

    experiment = Experiment.parse(
        {
            "data": {
                "source": {"name": "folder", "path": str(few)},
                "batch_size": 25,
                "augment": [{"name": "pad_crop", "pixels": 4}, "flip"],
            },
            "model": "resnet8",
            "train": {
                "epochs": EPOCHS[count],
                "optimizer": {"name": "adam", "learning_rate": RATES[transfer is not None]},
                "schedule": {"name": "cosine", "warmup": 0.05},
                "keep": "last",
                "seed": seed,
            },
            "transfer": transfer,
        },
        "the benchmark",
    )
    run = train(experiment, path)
    task = scoring_task("classification", run.classes, {})
    split = open_source(experiment.data, seed).splits["test"]
    test = decode_split(experiment.data, split, task.fields, len(run.classes), "test")
    correct = score(keras_predictor(load_model(run), task), test, task, 250, worst=0).scores["correct"]
    np.save(answers, correct)
    return correct


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of every training with Wilson's interval."""
    found = [wilson(int(correct.sum()), len(correct)) for correct in rows["correct"]]
    return rows.drop(columns="correct").join(pd.DataFrame([vars(each) for each in found]))


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what each way gains over those before it, in points, on the same test images: McNemar's test."""
    table = []
    for (seed, images), group in rows.groupby(["seed", "images"]):
        for before, after in itertools.combinations(group.itertuples(), 2):
            change = mcnemar(before.correct, after.correct)
            points = [100 * value for value in (change.difference, change.low, change.high)]
            row = {"seed": seed, "images": images, "way": after.way, "over": before.way}
            table.append(
                row | dict(zip(("points", "from", "to"), points, strict=True)) | {"p": f"{change.p_value:.2g}"}
            )
    return pd.DataFrame(table)


def summarise(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return the mean gain over the seeds with Student's interval."""
    found = []
    for (images, way, over), group in comparisons.groupby(["images", "way", "over"], sort=False):
        points = student(group["points"])
        row = {"images": images, "way": way, "over": over}
        found.append(row | {"points": points.value, "from": points.low, "to": points.high})
    return pd.DataFrame(found)


if __name__ == "__main__":
    main()
