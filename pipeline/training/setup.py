"""What training needs of an experiment: its task, its decoded splits, and the loop over them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.config import Experiment
from pipeline.data.difficulty import pace
from pipeline.data.input import Prepared
from pipeline.data.opening import decode_split, open_source
from pipeline.data.pseudo import with_pseudo
from pipeline.data.source import Source
from pipeline.errors import UserError
from pipeline.models.transfer import Group
from pipeline.registry import MODELS, OPTIMIZERS, SCHEDULES, TASKS
from pipeline.runs import Run
from pipeline.sections.training import Curriculum
from pipeline.tasks.base import Task
from pipeline.training.callbacks import standard_callbacks
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.distill import Lesson, distill
from pipeline.training.loop import Loop
from pipeline.training.plan import Batches, Settings
from pipeline.training.resizing import size_of
from pipeline.training.runtime import Runtime, dtype_policy
from pipeline.training.teacher import open_teacher
from pipeline.training.unfreezing import Unfreezing


def open_task(experiment: Experiment) -> tuple[Source, Task]:
    """Open an experiment's source, with a validation split and pseudo-labels, and its task; no image is decoded.

    Raises UserError when the source lacks what the task needs.
    """
    source = open_source(experiment.data, experiment.train.seed)
    if experiment.data.pseudo:
        source = with_pseudo(source, experiment.data.pseudo)
    task = TASKS.build(experiment.task.name, source.classes, _label_counts(source), **experiment.task.options)
    _check_fields(experiment, source, task)
    return source, task


def prepare_splits(experiment: Experiment, source: Source, task: Task) -> dict[str, Prepared]:
    """Decode the training and the validation split."""
    return {
        name: decode_split(experiment.data, source.splits[name], task.fields, len(source.classes), name)
        for name in ("train", "validation")
    }


def build_model(experiment: Experiment, runtime: Runtime, task: Task) -> keras.Model:
    """Build an experiment's model with fresh weights, as the runtime computes; raises UserError where it cannot be."""
    data, component = experiment.data, experiment.model
    with runtime.strategy.scope(), dtype_policy(runtime.precision):
        shape = (*data.image_size, data.channels)
        model = MODELS.build(component.name, shape, len(task.classes), **component.options)
    task.check(model)
    return model


def build_lesson(experiment: Experiment, runtime: Runtime, task: Task) -> Lesson:
    """Seed everything, and build what is trained: a model with fresh weights, beside its teacher if it has one.

    Raises UserError where the model cannot be built, or the teacher is none for it.
    """
    settings, teacher = experiment.train, None
    if settings.distill:
        with runtime.strategy.scope():
            teacher = open_teacher(settings.distill.teacher, task.classes)
    # The seed comes before the first layer: initial weights and dropout follow from it; and after the teacher's, so
    # that a student begins with the very weights that it would have without one.
    keras.utils.set_random_seed(settings.seed)
    model = build_model(experiment, runtime, task)
    if teacher is None:
        return Lesson(model, model, task)
    with runtime.strategy.scope():
        return distill(model, teacher, task, **settings.distill.model_dump(exclude={"teacher"}))


def build_optimizer(experiment: Experiment, runtime: Runtime, model: keras.Model) -> keras.Optimizer:
    """Build an experiment's optimizer for a model, scaling losses where float16 needs it."""
    settings = experiment.train
    with runtime.strategy.scope():
        optimizer = OPTIMIZERS.build(settings.optimizer.name, model, settings.clip_norm, **settings.optimizer.options)
        if runtime.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(model.trainable_variables)
    return optimizer


def build_loop(
    experiment: Experiment,
    run: Run,
    runtime: Runtime,
    task: Task,
    model: keras.Model,
    prepared: dict[str, Prepared],
    callbacks: Sequence[keras.callbacks.Callback] = (),
    groups: Sequence[Group] = (),
) -> Loop:
    """Join a model and its decoded splits into the loop that trains it; history and checkpoints go into `run`.

    `callbacks` come after the usual ones. `groups` are the model's layers in the order in which a transfer lets them
    learn; without them all do from the first step.
    """
    settings = experiment.train
    optimizer = build_optimizer(experiment, runtime, model)
    schedule = experiment.transfer.model_dump(exclude={"base"}) if groups else {}
    batches = build_batches(experiment, task, prepared)
    rate = settings.optimizer.options["learning_rate"]
    steps = settings.epochs * batches.steps_per_epoch
    return Loop(
        model,
        task,
        optimizer,
        SCHEDULES.build(settings.schedule.name, rate, steps, **settings.schedule.options),
        batches,
        Settings(
            epochs=settings.epochs,
            seed=settings.seed,
            accumulate=settings.accumulate,
            ema=settings.ema,
            lookahead=(settings.lookahead.every, settings.lookahead.share) if settings.lookahead else None,
            sharpness=settings.sharpness,
            plateau=(settings.plateau.epochs, settings.plateau.factor) if settings.plateau else None,
            patience=settings.patience,
            keep=settings.keep,
            checkpoint_minutes=settings.checkpoint_minutes,
            int8_every=settings.int8_every,
            history=run.history_path,
            callbacks=[*standard_callbacks(run.path / "tensorboard" if settings.tensorboard else None), *callbacks],
        ),
        runtime,
        Checkpoints(run.checkpoints, writes=runtime.chief),
        Unfreezing(groups, optimizer, **schedule) if groups else None,
    )


def build_batches(experiment: Experiment, task: Task, prepared: dict[str, Prepared]) -> Batches:
    """Join an experiment's decoded splits into the input of its training."""
    data, settings = experiment.data, experiment.train
    # One batch holds all images of an optimizer step; the step cuts it into `accumulate` parts.
    size = data.batch_size * settings.accumulate
    training, validation = prepared["train"], prepared["validation"]
    steps_per_epoch = training.steps_per_epoch(size)
    augment = [(component.name, component.options) for component in data.augment]
    curriculum = settings.curriculum or Curriculum()
    phases, pacing = curriculum.sizes, None
    if curriculum.easy_first:
        pacing = pace(training, curriculum.easy_first, settings.epochs * steps_per_epoch)
    sizes = [size_of(epoch, settings.epochs, phases) for epoch in range(settings.epochs)]

    def training_from(step: int) -> tf.data.Dataset:
        epoch = min(step // steps_per_epoch, len(sizes) - 1)  # a run may go on behind its last step, to validate it
        alike = next((other for other in range(epoch, len(sizes)) if sizes[other] != sizes[epoch]), len(sizes))
        return training.training(
            batch_size=size,
            augment=augment,
            seed=settings.seed,
            start_step=step,
            total_steps=alike * steps_per_epoch,
            encode=task.encode,
            image_size=sizes[epoch],
            pacing=pacing,
        )

    return Batches(
        training=training_from,
        validation=validation.evaluation(data.batch_size, task.encode).map(_without_id),
        size=size,
        steps_per_epoch=steps_per_epoch,
        validation_steps=-(-validation.count // data.batch_size),
        size_of=sizes.__getitem__,
    )


def _without_id(batch: dict[str, Any]) -> dict[str, Any]:
    """Leave out what no accelerator can hold: text."""
    return {name: batch[name] for name in ("image", "y", "weight")}


def _check_fields(experiment: Experiment, source: Source, task: Task) -> None:
    missing = [field for field in task.fields if field not in source.fields]
    if missing:
        raise UserError(
            f"the task {experiment.task.name} needs {' and '.join(missing)}, but the source "
            f"{experiment.data.source.name} gives only {', '.join(sorted(source.fields))}; "
            "choose another data.source or another task"
        )


def _label_counts(source: Source) -> list[int] | None:
    labels = source.split("train").labels
    return None if labels is None else np.bincount(labels, minlength=len(source.classes)).tolist()
