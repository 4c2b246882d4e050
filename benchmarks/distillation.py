"""A small student with and without a teacher: equal epochs, equal first weights, the same test images, three seeds.

Usage: python -m benchmarks.distillation FOLDER [--config digits] [--epochs 10] [--weight 1.0] [key=value ...]

Overrides are of both the teacher's and the student's experiment, as in data.source.path=DATA. The teacher is the
config's own run; the student is a simple_cnn of three convolutions with 4, 8 and 16 channels.
"""

import argparse
from pathlib import Path

from pipeline import Experiment, Run
from pipeline.evaluation.evaluate import Evaluation, evaluate
from pipeline.evaluation.scoring import scoring_task
from pipeline.evaluation.statistics import compare
from pipeline.training.train import train

STUDENT = "model={name: simple_cnn, filters: [4, 8, 16], units: 32, padding: same, batch_norm: true}"
SEEDS = (0, 1, 2)


def main() -> None:
    """Train the teacher, and each student twice; print every accuracy, and the paired test of each two."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distillation", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="digits")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_intermixed_args()
    teacher = train(Experiment.load(asked.config, asked.overrides), asked.folder / "teacher")
    _tell("teacher", evaluate(teacher))
    distill = f"train.distill={{teacher: {teacher.path}, weight: {asked.weight}}}"
    for seed in SEEDS:
        own = [*asked.overrides, STUDENT, f"train.epochs={asked.epochs}", f"train.seed={seed}"]
        found = []
        for name, settings in (("alone", own), ("taught", [*own, distill])):
            run = train(Experiment.load(asked.config, settings), asked.folder / f"{name}{seed}")
            found.append(evaluate(run))
            _tell(f"seed {seed}, {name}", found[-1])
        _compare(run, *found)


def _tell(name: str, evaluation: Evaluation) -> None:
    accuracy = evaluation.metrics["accuracy"]
    print(f"{name}: {accuracy.value:.4f} [{accuracy.low:.4f}, {accuracy.high:.4f}], n = {accuracy.n:,}")


def _compare(run: Run, alone: Evaluation, taught: Evaluation) -> None:
    task = scoring_task(run.experiment.task.name, run.classes, run.experiment.task.options)
    change = compare(task.measures["accuracy"], alone.scored.scores, taught.scored.scores)
    points = [f"{100 * value:+.2f}" for value in (change.difference, change.low, change.high)]
    print(f"  taught against alone: {points[0]} points [{points[1]}, {points[2]}], p = {change.p_value:.2g}")


if __name__ == "__main__":
    main()
