"""What pseudo-labels are worth: few labelled images of CIFAR-10 alone, and with what a first training says of others.

    python -m benchmarks.semi_supervised DATA FOLDER [--per-class 100] [--unlabelled 20000] [--threshold 0.95]

DATA holds train/<class>/*.jpg and test/<class>/*.jpg. Of train, `--per-class` images keep their labels (a fifth of them
for validation) and others lose them. A ResNet-8 is trained on the labelled images; it labels the others, as
`pipeline pseudo` does; and two students learn from both, in as many steps, the second with a fifth of the weight on the
pseudo-labels. All answer the same test images. Everything is kept in FOLDER; what is there is not made again.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

import pipeline  # noqa: F401  sets TensorFlow's environment
from pipeline.config import Experiment

BATCH, STEPS = 64, 1920
WEIGHTS = {"student": 1.0, "weighted": 0.2}  # of a pseudo-labelled image in the loss, by the student's folder


def main() -> None:
    """Make what is missing, then print how right the pseudo-labels are, and the scores with their paired tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--unlabelled", type=int, default=20_000)
    parser.add_argument("--threshold", type=float, default=0.95)
    arguments = parser.parse_args()
    from pipeline.studies.compare import compare_runs
    from pipeline.studies.pseudo_label import pseudo_label
    from pipeline.studies.trials import train_and_score

    folder = arguments.folder
    require_same(arguments)
    truth = lay_out(arguments.data.resolve(), folder, arguments.per_class, arguments.unlabelled)
    alone = train_and_score(experiment(folder / "labelled", 8 * arguments.per_class), folder / "alone")
    labels = folder / "pseudo"
    if not labels.exists():
        print(pseudo_label(alone, folder / "unlabelled", labels, threshold=arguments.threshold).summary())
    given = pd.read_csv(labels / "labels.csv")
    right = np.mean([truth[image] == label for image, label in zip(given["image"], given["label"], strict=True)])
    print(pd.read_csv(labels / "thresholds.csv").to_string(index=False))
    print(f"{len(given)} pseudo-labels, of which {right:.4f} are right")
    student = Experiment.load(labels / "student.yaml")
    epochs = STEPS // ((8 * arguments.per_class + len(given)) // BATCH)
    learners = [
        train_and_score(student.replace([f"train.epochs={epochs}", f"data.pseudo.weight={weight}"]), folder / name)
        for name, weight in WEIGHTS.items()
    ]
    found = compare_runs([alone, *learners])
    print(found.table().to_string(index=False))
    print(found.summary())


def experiment(labelled: Path, images: int) -> Experiment:
    """Return the training on `images` labelled ones; all trainings take as many steps."""
    return Experiment.load(
        "cifar10_folder",
        [
            *("model=resnet8", f"data.source.path={labelled}", f"data.batch_size={BATCH}", "data.validation=0.2"),
            *("task.label_smoothing=0.0", "train.optimizer.learning_rate=0.1", "train.keep=last"),
            f"train.epochs={STEPS // (images // BATCH)}",
        ],
    )


def require_same(arguments: argparse.Namespace) -> None:
    """Note the options in FOLDER; exit if it was made with others."""
    options = {name: str(value) for name, value in vars(arguments).items() if name != "folder"}
    note = arguments.folder / "options.json"
    if note.exists() and json.loads(note.read_text()) != options:
        raise SystemExit(f"{arguments.folder} was made with other options ({note.read_text()}); name another folder")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(options))


def lay_out(data: Path, folder: Path, per_class: int, unlabelled: int) -> dict[str, str]:
    """Link DATA's images into labelled/ and unlabelled/; return the class of each unlabelled one."""
    truth: dict[str, str] = {}
    random = np.random.default_rng(0)
    classes = sorted(path.name for path in (data / "train").iterdir())
    for name in classes:
        files = sorted((data / "train" / name).iterdir())
        order = random.permutation(len(files))
        kept, lost = order[:per_class], order[per_class : per_class + unlabelled // len(classes)]
        for index in kept:
            link(files[index], folder / "labelled" / "train" / name / files[index].name)
        for index in lost:
            image = f"{name[:2]}{files[index].name}"
            link(files[index], folder / "unlabelled" / image)
            truth[image] = name
        for file in (data / "test" / name).iterdir():
            link(file, folder / "labelled" / "test" / name / file.name)
    return truth


def link(file: Path, place: Path) -> None:
    """Make a link at `place`, once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(file)


if __name__ == "__main__":
    main()
