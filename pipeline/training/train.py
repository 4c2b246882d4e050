"""From an experiment to a finished run."""

import logging
from pathlib import Path
from typing import Any

import keras

from pipeline.config import Experiment
from pipeline.data import pseudo
from pipeline.errors import UserError
from pipeline.models.weights import put
from pipeline.runs import Run, write_atomically
from pipeline.training.learned import model_file, origin, require_unchanged
from pipeline.training.plan import Batches
from pipeline.training.runtime import Runtime, choose
from pipeline.training.setup import build_lesson, build_loop, open_task, prepare_splits
from pipeline.training.transfer import start

log = logging.getLogger(__name__)


def train(experiment: Experiment, path: Path | str, *, force: bool = False) -> Run:
    """Train an experiment into a run folder; an interrupted run is continued where it stopped.

    A finished run of the same experiment is returned untouched, unless `force`.

    Raises UserError for what the user can mend: the folder holds another run, the source lacks what the task needs,
    the loss is not finite; and on Ctrl-C, after which the run can be continued.
    """
    if experiment.compress:
        base = experiment.compress.base
        raise UserError(f"this experiment is of a compressed run; use it with: pipeline compress {base} --recipe RUN")
    if Run(Path(path)).finished and not force:
        log.info("%s has finished training already; --force trains it again", path)
        return Run.create(path, experiment)
    data, settings, transfer = experiment.data, experiment.train, experiment.transfer
    _check_teacher(experiment, Run(Path(path)), force)
    if transfer and transfer.base:
        _check_base(experiment)
    runtime = choose(settings, batch_size=data.batch_size, image_size=data.image_size)
    source, task = open_task(experiment)
    lesson = build_lesson(experiment, runtime, task)
    groups = start(transfer, lesson.student, Path(path)) if transfer else ()
    run = _run(experiment, path, runtime, force)
    prepared = prepare_splits(experiment, source, task)
    if runtime.chief:
        images = {name: each.count for name, each in prepared.items()}
        run.note(classes=list(source.classes), images=images, runtime=runtime.facts(), **_origins(experiment))
    loop = build_loop(experiment, run, runtime, lesson.task, lesson.model, prepared, groups=groups)
    log.info("training %s: %s", experiment.model.name, _extent(loop.batches, settings.epochs))
    loop.run()
    if runtime.chief:
        write_atomically(run.model_path, as_float32(lesson.student).save)
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
    put(rebuilt, model.get_weights())
    return rebuilt


def _check_teacher(experiment: Experiment, run: Run, force: bool) -> None:
    """Raise UserError where the teacher is the run itself, or not the one that the run began with."""
    teacher = experiment.train.distill
    if not teacher:
        return
    if model_file(teacher.teacher, "teacher").resolve() == run.model_path.resolve():
        raise UserError(f"{run.path} cannot be its own teacher; name another --run", usage=True)
    if run.is_run and not force:
        require_unchanged(run, {"teacher": origin(teacher.teacher, "teacher")})


def _check_base(experiment: Experiment) -> None:
    """Raise UserError where the weights to start from have learned from the images that `data.folds` holds out."""
    data, base = experiment.data, Run(Path(experiment.transfer.base).expanduser())
    if data.folds and base.is_run:
        own = base.experiment.data
        if own.source == data.source and own.folds != data.folds:
            raise UserError(f"{base.path} may have seen the images that data.folds holds out; start from another base")


def _origins(experiment: Experiment) -> dict[str, Any]:
    """Return what a run notes of others that it learns from: a teacher, the weights that it starts with, labels."""
    notes: dict[str, Any] = {}
    if experiment.train.distill:
        notes["teacher"] = origin(experiment.train.distill.teacher, "teacher")
    if experiment.transfer and experiment.transfer.base:
        notes["base"] = origin(experiment.transfer.base, "transfer.base")
    if experiment.data.pseudo:
        notes["pseudo"] = pseudo.provenance(experiment.data.pseudo)
    return notes


def _run(experiment: Experiment, path: Path | str, runtime: Runtime, force: bool) -> Run:
    if not runtime.chief:  # of several workers only one writes; the others read the same folder
        return Run(Path(path))
    run = Run.create(path, experiment, force=force)
    for half_written in run.path.glob(".*.*"):  # by a process that was killed
        half_written.unlink()
    return run


def _extent(batches: Batches, epochs: int) -> str:
    return f"{epochs} epochs of {batches.steps_per_epoch} steps, {batches.size} images each"
