"""From an experiment to a finished run."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.config import Experiment
from pipeline.data.input import Prepared, prepare
from pipeline.data.preprocess import Preprocess
from pipeline.data.source import Source
from pipeline.data.split import with_validation
from pipeline.errors import UserError
from pipeline.registry import MODELS, OPTIMIZERS, SCHEDULES, SOURCES, TASKS
from pipeline.runs import Run, write_atomically
from pipeline.tasks.base import Task
from pipeline.training.callbacks import standard_callbacks
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.loop import Batches, Loop, Settings
from pipeline.training.runtime import Runtime, choose, dtype_policy

log = logging.getLogger(__name__)


def train(experiment: Experiment, path: Path | str, *, force: bool = False) -> Run:
    """Train an experiment into a run folder; an interrupted run is continued where it stopped.

    A finished run of the same experiment is returned untouched, unless `force`.

    Raises UserError for what the user can mend: the folder holds another run, the source lacks what the task needs,
    the loss is not finite; and on Ctrl-C, after which the run can be continued.
    """
    if Run(Path(path)).finished and not force:
        log.info("%s has finished training already; --force trains it again", path)
        return Run.create(path, experiment)
    data, settings = experiment.data, experiment.train
    runtime = choose(settings, batch_size=data.batch_size, image_size=data.image_size)
    source = with_validation(SOURCES.build(data.source.name, **data.source.options), data.validation, settings.seed)
    task = TASKS.build(experiment.task.name, source.classes, _label_counts(source), **experiment.task.options)
    _check_fields(experiment, source, task)
    # The seed comes before the first layer: initial weights and dropout follow from it.
    keras.utils.set_random_seed(settings.seed)
    model = _model(experiment, runtime, task)
    run = _run(experiment, path, runtime, force)
    prepared = {name: _prepare(experiment, source, task, name) for name in ("train", "validation")}
    if runtime.chief:
        images = {name: each.count for name, each in prepared.items()}
        run.note(classes=list(source.classes), images=images, runtime=runtime.facts())
    loop = _loop(experiment, run, runtime, task, model, prepared)
    log.info("training %s: %s", experiment.model.name, _extent(loop.batches, settings.epochs))
    loop.run()
    if runtime.chief:
        write_atomically(run.model_path, as_float32(model).save)
    return run


def as_float32(model: keras.Model) -> keras.Model:
    """Return the model with every layer computing in float32, and the same weights.

    A model trained in mixed precision is saved so: its weights are float32 anyway, and evaluation on a CPU is faster.
    """
    if all(layer.dtype_policy.name == "float32" for layer in model.layers):
        return model
    rebuilt = keras.models.clone_model(
        model, clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    )
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _run(experiment: Experiment, path: Path | str, runtime: Runtime, force: bool) -> Run:
    if not runtime.chief:  # of several workers only one writes; the others read the same folder
        return Run(Path(path))
    run = Run.create(path, experiment, force=force)
    for half_written in run.path.glob(".*.*"):  # by a process that was killed
        half_written.unlink()
    return run


def _check_fields(experiment: Experiment, source: Source, task: Task) -> None:
    missing = [field for field in task.fields if field not in source.fields]
    if missing:
        raise UserError(
            f"the task {experiment.task.name} needs {' and '.join(missing)}, but the source "
            f"{experiment.data.source.name} gives only {', '.join(sorted(source.fields))}; "
            "choose another data.source or another task"
        )


def _label_counts(source: Source) -> list[int] | None:
    labels = source.splits["train"].labels
    return None if labels is None else np.bincount(labels, minlength=len(source.classes)).tolist()


def _model(experiment: Experiment, runtime: Runtime, task: Task) -> keras.Model:
    data, component = experiment.data, experiment.model
    with runtime.strategy.scope(), dtype_policy(runtime.precision):
        shape = (*data.image_size, data.channels)
        model = MODELS.build(component.name, shape, len(task.classes), **component.options)
    task.check(model)
    return model


def _prepare(experiment: Experiment, source: Source, task: Task, name: str) -> Prepared:
    data = experiment.data
    return prepare(
        source.splits[name],
        Preprocess(data.image_size, data.channels, data.resize),
        fields=task.fields,
        classes=len(source.classes),
        cache_bytes=data.cache_mb * 2**20,
        max_corrupt=data.max_corrupt,
        name=name,
    )


def _loop(
    experiment: Experiment, run: Run, runtime: Runtime, task: Task, model: keras.Model, prepared: dict[str, Prepared]
) -> Loop:
    settings = experiment.train
    batches = _batches(experiment, task, prepared)
    rate = settings.optimizer.options["learning_rate"]
    steps = settings.epochs * batches.steps_per_epoch
    with runtime.strategy.scope():
        optimizer = OPTIMIZERS.build(settings.optimizer.name, model, settings.clip_norm, **settings.optimizer.options)
        if runtime.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(model.trainable_variables)
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
            patience=settings.patience,
            keep=settings.keep,
            checkpoint_minutes=settings.checkpoint_minutes,
            history=run.history_path,
            callbacks=standard_callbacks(run.path / "tensorboard" if settings.tensorboard else None),
        ),
        runtime,
        Checkpoints(run.checkpoints, writes=runtime.chief),
    )


def _batches(experiment: Experiment, task: Task, prepared: dict[str, Prepared]) -> Batches:
    data, settings = experiment.data, experiment.train
    # One batch holds all images of an optimizer step; the step cuts it into `accumulate` parts.
    size = data.batch_size * settings.accumulate
    training, validation = prepared["train"], prepared["validation"]
    steps_per_epoch = training.steps_per_epoch(size)
    augment = [(component.name, component.options) for component in data.augment]
    return Batches(
        training=lambda step: training.training(
            batch_size=size,
            augment=augment,
            seed=settings.seed,
            start_step=step,
            total_steps=settings.epochs * steps_per_epoch,
            encode=task.encode,
        ),
        validation=validation.evaluation(data.batch_size, task.encode).map(_without_id),
        size=size,
        steps_per_epoch=steps_per_epoch,
        validation_steps=-(-validation.count // data.batch_size),
    )


def _without_id(batch: dict[str, Any]) -> dict[str, Any]:
    """Leave out what no accelerator can hold: text."""
    return {name: batch[name] for name in ("image", "y", "weight")}


def _extent(batches: Batches, epochs: int) -> str:
    return f"{epochs} epochs of {batches.steps_per_epoch} steps, {batches.size} images each"
