"""Train a given model further on a run's data: the bridge between the stages and the training loop."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.export.compress.constraints import constrained, enforce
from pipeline.export.compress.graph import Graph
from pipeline.export.compress.rebuild import rebuild
from pipeline.export.compress.sparsity import KeepZeros, SparsitySchedule
from pipeline.runs import Run
from pipeline.training.distill import Lesson, distill
from pipeline.training.loop import Loop
from pipeline.training.runtime import choose
from pipeline.training.setup import build_loop, open_task, prepare_splits

_SLOWER = 0.1  # a trained model is near where it should be
_CHANGES = 100  # of a growing sparsity, during a training


class Finetuning:
    """The data and the task of an experiment, read once, to train any number of models on.

    finetune = Finetuning(run.experiment)
    small = prune_iteratively(model, 0.5, 3, finetune)
    small = finetune(small, epochs=5, teacher=model)
    """

    def __init__(self, experiment: Experiment) -> None:
        """Open the source and decode its training and validation split; float32, whatever the experiment says."""
        self.experiment = _changed(experiment, precision="float32", tensorboard=False, curriculum=None)
        data = experiment.data
        self.runtime = choose(self.experiment.train, batch_size=data.batch_size, image_size=data.image_size)
        source, self.task = open_task(self.experiment)
        self.prepared = prepare_splits(self.experiment, source, self.task)

    def batches(self, count: int = 8) -> Iterator[tuple[Any, Any]]:
        """Return some batches of training images and targets, without augmentation, for ranges and importances."""
        settings, size = self.experiment.train, self.experiment.data.batch_size
        chosen = self.prepared["train"].training(
            batch_size=size,
            augment=[],
            seed=settings.seed,
            start_step=0,
            total_steps=count,
            encode=self.task.encode,
        )
        return iter(chosen.map(lambda image, y, *weight: (image, y)))

    def __call__(
        self,
        model: keras.Model,
        *,
        epochs: int = 5,
        learning_rate: float | None = None,
        teacher: keras.Model | None = None,
        distillation: Mapping[str, Any] | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        folder: Path | None = None,
    ) -> keras.Model:
        """Return a copy of a model that was trained for some epochs, with the experiment's optimizer and schedule.

        Args:
            model: a functional model that fits the task; constraints and fake quantisation are kept.
            learning_rate: the peak; None for a tenth of the experiment's.
            teacher: a model to learn from as well; `distillation` are the options of `distill`.
            callbacks: besides the usual ones. A sparsity that is to grow does so over the first half of the steps,
                unless there is a SparsitySchedule among them.
            folder: where history and checkpoints go, to continue an interrupted training from; None keeps nothing.
        """
        self.task.check(model)
        with self.runtime.strategy.scope():
            trained = rebuild(Graph.of(model))
            lesson = Lesson(trained, trained, self.task)
            if teacher is not None:
                lesson = distill(trained, teacher, self.task, **distillation or {})
        experiment = self._for(trained, epochs, learning_rate)
        with tempfile.TemporaryDirectory() as temporary:
            run = Run(folder or Path(temporary))
            loop = build_loop(experiment, run, self.runtime, lesson.task, lesson.model, self.prepared, callbacks)
            if _growing(trained):
                _schedule_sparsity(loop)
            loop.run()
        enforce(trained)  # averages and restored weights have not passed through an optimizer
        return trained

    def _for(self, model: keras.Model, epochs: int, learning_rate: float | None) -> Experiment:
        if epochs < 1:
            raise UserError(f"epochs is {epochs}; give at least 1 to fine-tune")
        optimizer = self.experiment.train.optimizer
        rate = optimizer.options["learning_rate"] * _SLOWER if learning_rate is None else learning_rate
        optimizer = optimizer.model_copy(update={"options": {**optimizer.options, "learning_rate": rate}})
        # The best epoch may be one before the last zeros were made, and patience might end before they are.
        whole = {"keep": "last", "patience": None} if _growing(model) else {}
        return _changed(self.experiment, epochs=epochs, optimizer=optimizer, **whole)


def finetune(model: keras.Model, experiment: Experiment | Run, **options: Any) -> keras.Model:
    """Train a copy of a model on the data of an experiment or a run; `options` are those of `Finetuning`'s call."""
    return Finetuning(experiment.experiment if isinstance(experiment, Run) else experiment)(model, **options)


def _schedule_sparsity(loop: Loop) -> None:
    """Let sparsity grow: by a schedule, if there is none, and in calls short enough to follow it."""
    steps, callbacks = loop.settings.epochs * loop.batches.steps_per_epoch, loop.settings.callbacks
    every = max(1, steps // _CHANGES)
    loop.runtime = dataclasses.replace(loop.runtime, steps_per_call=min(loop.runtime.steps_per_call, every))
    if not any(isinstance(callback, SparsitySchedule) for callback in callbacks):
        schedule = SparsitySchedule(0, steps // 2, every=every)
        loop.settings = dataclasses.replace(loop.settings, callbacks=[*callbacks, schedule])


def _growing(model: keras.Model) -> bool:
    """Say whether a sparsity is still to be reached: once it was, a later training must not begin it again."""
    held = [(weights.constraint, weights) for weights in constrained(model, KeepZeros)]
    return any(zeros.initial < zeros.target and not zeros.grown(weights) for zeros, weights in held)


def _changed(experiment: Experiment, **settings: Any) -> Experiment:
    return experiment.model_copy(update={"train": experiment.train.model_copy(update=settings)})
