"""What a curriculum is worth at equal epochs: small images first, and easy images first, against neither.

    python -m benchmarks.curriculum DATA FOLDER [--per-class 500] [--epochs 8]

DATA holds train/<class>/*.jpg and test/<class>/*.jpg, of which ResNet-8 learns `--per-class` training images. Four
trainings of one seed: plain; at 16, then 24, then 32 pixels; from the images that the plain run found easiest to all;
and, to tell easy from few, from as many images in random order. The seconds are of the processor, all cores together,
for training alone, since others may use the machine. Everything is kept in FOLDER; what is there is not made again.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import pipeline  # noqa: F401  sets TensorFlow's environment
from benchmarks.semi_supervised import lay_out, require_same
from pipeline.config import Experiment

GROWING = "train.curriculum.sizes=[{size: [16, 16], share: 0.3}, {size: [24, 24], share: 0.3}]"


def main() -> None:
    """Make what is missing, then print what each training cost, and the scores with their paired tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    from pipeline.evaluation.evaluate import evaluate
    from pipeline.studies.compare import compare_runs
    from pipeline.studies.trials import train_and_score
    from pipeline.training.train import train

    folder = arguments.folder
    require_same(arguments)
    lay_out(arguments.data.resolve(), folder, arguments.per_class, 0)
    scores = folder / "plain" / "evaluation" / "train" / "scores.npz"
    sides = {
        "plain": [],
        "growing": [GROWING],
        "easy": [f"train.curriculum.easy_first.scores={scores}"],
        "random": [f"train.curriculum.easy_first.scores={folder / 'random.npz'}"],
    }
    runs = []
    for name, overrides in sides.items():
        experiment = plain(folder / "labelled", arguments.epochs).replace(overrides)
        before = time.process_time()
        train(experiment, folder / name)
        print(f"{name}: {time.process_time() - before:.0f} seconds of processor", flush=True)
        runs.append(train_and_score(experiment, folder / name))
        if name == "plain" and not scores.exists():
            evaluate(runs[0], split="train")
            with np.load(scores) as stored:
                shuffled = np.random.default_rng(0).permutation(stored["log_loss"])
                np.savez(folder / "random.npz", id=stored["id"], log_loss=shuffled)
    found = compare_runs(runs)
    print(found.table().to_string(index=False))
    print(found.summary())


def plain(labelled: Path, epochs: int) -> Experiment:
    """Return the training without a curriculum."""
    return Experiment.load(
        "cifar10_folder",
        [
            *("model=resnet8", f"data.source.path={labelled}", "data.batch_size=64", "task.label_smoothing=0.0"),
            *("train.optimizer.learning_rate=0.1", "train.keep=last", f"train.epochs={epochs}"),
        ],
    )


if __name__ == "__main__":
    main()
