"""From a run to a smaller one: the stages of `compress` in the experiment, one after another, each as Python has it."""

import csv
import logging
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import keras

from pipeline.config import Experiment
from pipeline.errors import UserError
from pipeline.evaluation.scoring import load_model
from pipeline.export.compress.channels import part_of_each, prune_channels
from pipeline.export.compress.clustering import ShareValues, cluster
from pipeline.export.compress.constraints import strip_constraints
from pipeline.export.compress.equalise import equalise
from pipeline.export.compress.finetune import Finetuning
from pipeline.export.compress.importance import taylor
from pipeline.export.compress.patterns import read_pattern
from pipeline.export.compress.quantize_aware import calibrated, is_quantized
from pipeline.export.compress.resolution import at_resolution
from pipeline.export.compress.sparsity import KeepZeros, sparsify
from pipeline.models.files import load_model_file
from pipeline.runs import Run, write_atomically
from pipeline.sections import Channels, Compress, Qat, Sparsity, Tuned
from pipeline.training.callbacks import write_history
from pipeline.training.learned import origin, require_unchanged
from pipeline.training.teacher import open_teacher

log = logging.getLogger(__name__)

_SPARSITY = 0.8  # where neither target nor pattern says one

Stage = tuple[str, Callable[[keras.Model, Path], keras.Model]]


def compress_run(experiment: Experiment, path: Path | str, *, force: bool = False) -> Run:
    """Make the run that an experiment with a `compress` section describes, from the run that is its base.

    A stage that was finished is not repeated when an interrupted compression is started again, and a stage's training
    goes on where it stopped. A finished run of the same experiment is returned untouched, unless `force`.

    Raises UserError where a stage cannot be done to this model, the base is no finished run or is quantised already, or
    it or the teacher changed after an interruption, and on Ctrl-C, after which the compression can be continued.
    """
    base = Run.open(experiment.compress.base)
    require_other_folder(base, path)
    if Run(Path(path)).finished and not force:
        log.info("%s is finished already; --force compresses it again", path)
        return Run.create(path, experiment)
    model = load_model(base)
    if is_quantized(model):
        made = base.experiment.compress
        hint = f", the run that it was made from: {made.base}" if made else ""
        raise UserError(f"the model of {base.path} is quantised already; compress a float one{hint}")
    sources = {"base": origin(base.path, "run")}
    distill = experiment.compress.distill
    if distill and distill.teacher:
        sources["teacher"] = origin(distill.teacher, "teacher")
    run = Run.create(path, experiment, force=force)
    require_unchanged(run, sources)
    run.note(classes=list(base.classes), **sources)
    folder = run.path / "stages"
    compressed = _Compression(experiment, model).run(folder)
    _join_histories(folder, run.history_path)
    write_atomically(run.model_path, compressed.save)
    shutil.rmtree(folder)
    return run


def require_other_folder(base: Run, path: Path | str) -> None:
    """Raise UserError where the compressed run would take the place of the run that it is made from."""
    if base.path.resolve() == Path(path).resolve():
        raise UserError(f"{path} is the run to compress; give another folder as --out", usage=True)


class _Compression:
    """The stages of an experiment, and what they share: the model it began with and the data to train on."""

    def __init__(self, experiment: Experiment, model: keras.Model) -> None:
        self.experiment, self.base, size = experiment, model, experiment.data.image_size
        self.start = model if size == model.inputs[0].shape[1:3] else at_resolution(model, size)

    def run(self, folder: Path) -> keras.Model:
        """Go through the stages; each leaves its model in a folder of its own."""
        model = self.start
        for number, (name, stage) in enumerate(self._stages(self.experiment.compress), 1):
            place = folder / f"{number:02}-{name}"
            saved = place / "model.keras"
            if saved.is_file():
                model = load_model_file(saved, "compress again with --force")
                continue
            log.info("compressing: %s", name.replace("_", " "))
            model = stage(model, place)
            write_atomically(saved, model.save)
        for constraint in (KeepZeros, ShareValues):
            model = strip_constraints(model, constraint)
        return model

    @cached_property
    def tuning(self) -> Finetuning:
        """Open the data once, and only if a stage needs it."""
        return Finetuning(self.experiment)

    @cached_property
    def teacher(self) -> keras.Model:
        """Open what the stages learn from: the model that it began with, unless another is named."""
        named = self.experiment.compress.distill.teacher
        return open_teacher(named, self.tuning.task.classes) if named else self.base

    def _stages(self, compress: Compress) -> Iterator[Stage]:
        if compress.equalise:
            yield "equalise", lambda model, _: equalise(model)
        if channels := compress.channels:
            for number in range(1, channels.rounds + 1):
                yield (
                    f"channels_{number}_of_{channels.rounds}",
                    lambda model, place: self._train(self._fewer_channels(model, channels), channels, place),
                )
        if sparsity := compress.sparsity:
            yield "sparsity", lambda model, place: self._train(_sparser(model, sparsity), sparsity, place)
        if clusters := compress.clusters:
            yield "clusters", lambda model, place: self._train(cluster(model, clusters.count), clusters, place)
        if qat := compress.qat:
            yield "qat", lambda model, place: self._train(self._quantized(model, qat), qat, place)

    def _train(self, model: keras.Model, stage: Tuned, place: Path) -> keras.Model:
        if not stage.epochs:
            return model
        distill = self.experiment.compress.distill
        return self.tuning(
            model,
            epochs=stage.epochs,
            learning_rate=stage.learning_rate,
            teacher=self.teacher if distill else None,
            distillation=distill.model_dump(exclude={"teacher"}) if distill else None,
            folder=place,
        )

    def _fewer_channels(self, model: keras.Model, channels: Channels) -> keras.Model:
        importance = channels.importance
        if importance == "taylor":
            importance = taylor(self.tuning.task.loss, self.tuning.batches())
        return prune_channels(
            model,
            part_of_each(channels.rounds, channels.ratio),
            importance=importance,
            scope=channels.scope,
            multiple=channels.multiple,
        )

    def _quantized(self, model: keras.Model, qat: Qat) -> keras.Model:
        images = (images for images, _ in self.tuning.batches())
        return calibrated(model, qat.bits, images, wide_ends=qat.wide_ends)


def _sparser(model: keras.Model, sparsity: Sparsity) -> keras.Model:
    target = sparsity.target
    if target is None and read_pattern(sparsity.pattern).sparsity is None:
        target = _SPARSITY
    # It grows while the stage trains; without training there is no time to grow.
    return sparsify(model, target, pattern=sparsity.pattern, initial=0.0 if sparsity.epochs else None)


def _join_histories(folder: Path, path: Path) -> None:
    """Write one history of all stages, whose epochs go on counting."""
    rows: list[dict[str, str]] = []
    for history in sorted(folder.glob("*/history.csv")):
        with history.open(encoding="utf-8", newline="") as file:
            rows += [{**row, "stage": history.parent.name.partition("-")[2]} for row in csv.DictReader(file)]
    write_history(path, [{**row, "epoch": number} for number, row in enumerate(rows, 1)])
