"""The one training loop: for one device and many, resumable at any step, exact on a CPU."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.tasks.base import Task
from pipeline.training.averaging import Lookahead, WeightAverage
from pipeline.training.callbacks import write_history
from pipeline.training.checkpoint import Checkpoints, Progress
from pipeline.training.epochs import Row, best_epoch, rate_scale
from pipeline.training.int8_kernels import int8_kernels
from pipeline.training.interrupt import StopWish, stop_wish
from pipeline.training.plan import Batches, Settings
from pipeline.training.pointwise import faster_ops
from pipeline.training.resizing import at_size
from pipeline.training.runtime import Runtime
from pipeline.training.schedules import Schedule
from pipeline.training.step import Meters, Parts, distributed, training_call, validation_call
from pipeline.training.unfreezing import Unfreezing


class Stopped(UserError):
    """Someone asked the run to stop; the same command goes on."""


class Loop:
    """Train one model. `run` may be called again after an interruption, here or in another process."""

    def __init__(
        self,
        model: keras.Model,
        task: Task,
        optimizer: keras.Optimizer,
        schedule: Schedule,
        batches: Batches,
        settings: Settings,
        runtime: Runtime,
        checkpoints: Checkpoints,
        unfreezing: Unfreezing | None = None,
    ) -> None:
        """Model and optimizer were made under the runtime's strategy; the model's weights are changed in place."""
        self.model, self.batches, self.settings, self.runtime = model, batches, settings, runtime
        self.unfreezing = unfreezing
        self.checkpoints, self.monitor = checkpoints, task.monitor
        self.sign = 1.0 if task.measures[task.monitor].higher_is_better else -1.0
        with runtime.strategy.scope():
            average = WeightAverage(model, settings.ema) if settings.ema else None
            lookahead = Lookahead(model, *settings.lookahead) if settings.lookahead else None
            meters = Meters(task), Meters(task)
            self.parts = Parts(model, task, optimizer, schedule, average, *meters, lookahead, settings.sharpness)
        self.progress = Progress(settings.seed)

    def run(self) -> list[Row]:
        """Train to the last epoch or until patience ends, from the last checkpoint on; leave the kept weights.

        Raises UserError when the loss is not finite, and when someone asked the run to stop.
        """
        self.progress = self.checkpoints.restore(self._state()) or self.progress
        self._write_history()
        callbacks = keras.callbacks.CallbackList(list(self.settings.callbacks), model=self.model)
        callbacks.set_params({"epochs": self.settings.epochs, "steps": self.batches.steps_per_epoch, "verbose": 0})
        self.model.stop_training = False
        callbacks.on_train_begin()
        try:
            with stop_wish() as wish:
                self._run_epochs(callbacks, wish)
        finally:  # also where someone stops it: the bar has to leave the terminal
            callbacks.on_train_end()
        self._leave_kept_weights()
        if self.unfreezing:
            self.unfreezing.end()
        return self.progress.rows

    def _run_epochs(self, callbacks: keras.callbacks.CallbackList, wish: StopWish) -> None:
        if self._finished():
            return
        validate = validation_call(self.parts, self.runtime)
        train = batches = None
        while not self._finished():
            epoch = len(self.progress.rows)
            others_learn = self._begin_phase(epoch)
            resized = train is None or self.batches.size_of(epoch) != self.batches.size_of(epoch - 1)
            if resized:
                batches = distributed(self.batches.training(self.progress.step), self.runtime)
            if resized or others_learn:
                train = training_call(self._parts_at(epoch), self.runtime, self.settings.accumulate)
            callbacks.on_epoch_begin(epoch)
            self._train_epoch(train, batches, callbacks, wish)
            self._replicas_agree()
            with self._averaged():
                found = self._validated(validate, wish)
                if not wish.asked:
                    self._end_epoch(found)
            self._stop_if(wish)
            self._save()
            callbacks.on_epoch_end(epoch, self.progress.rows[-1])

    def _parts_at(self, epoch: int) -> Parts:
        size = self.batches.size_of(epoch)
        if size is None:
            return self.parts
        with self.runtime.strategy.scope():
            return replace(self.parts, model=at_size(self.model, size, self.parts.task))

    def _begin_phase(self, epoch: int) -> bool:
        """Say whether other layers learn than in the epoch before."""
        whole = self.progress.step == epoch * self.batches.steps_per_epoch
        return self.unfreezing is not None and self.unfreezing.begin(epoch, whole=whole)

    def _train_epoch(
        self,
        train: Callable[..., tf.Tensor],
        batches: Iterator[Any],
        callbacks: keras.callbacks.CallbackList,
        wish: StopWish,
    ) -> None:
        end = (len(self.progress.rows) + 1) * self.batches.steps_per_epoch
        saved, scale = time.monotonic(), tf.constant(self._scale(), tf.float32)
        # Only training steps see the faster ops: the first call traces them into `train`.
        with faster_ops(self.model) if self.runtime.cpu_ops else contextlib.nullcontext():
            while self.progress.step < end:
                start, first = time.monotonic(), self.progress.step
                steps = min(self.runtime.steps_per_call, end - first)
                callbacks.on_train_batch_begin(first)
                loss, bad = train(batches, tf.constant(first, tf.int64), tf.constant(steps), scale).numpy()
                self._check_finite(int(bad))
                self.progress.step += steps
                self.progress.seconds += time.monotonic() - start
                callbacks.on_train_batch_end(self.progress.step - 1, {"loss": float(loss)})
                self._stop_if(wish)
                if self.progress.step < end and time.monotonic() - saved >= 60 * self.settings.checkpoint_minutes:
                    self._save()
                    saved = time.monotonic()

    def _validated(self, validate: Callable[..., None], wish: StopWish) -> Row:
        """Return what the validation split says of this epoch's weights, and in some epochs of their int8 kernels."""
        self._validate(validate, wish)
        found = {f"val_{name}": value for name, value in self.parts.validation.results().items()}
        every = self.settings.int8_every
        if every and (len(self.progress.rows) + 1) % every == 0 and not wish.asked:
            with int8_kernels(self.model):
                self._validate(validate, wish)
            found[f"val_int8_{self.monitor}"] = self.parts.validation.results()[self.monitor]
        return found

    def _validate(self, validate: Callable[..., None], wish: StopWish) -> None:
        self.parts.validation.reset()
        batches = distributed(self.batches.validation, self.runtime)
        left = self.batches.validation_steps
        while left and not wish.asked:
            steps = min(self.runtime.steps_per_call, left)
            validate(batches, tf.constant(steps))
            left -= steps

    def _end_epoch(self, found: Row) -> None:
        self.progress.rows.append(self._row() | found)
        self.progress.seconds = 0.0
        self.parts.training.reset()
        if self._best_epoch() == len(self.progress.rows):
            self.checkpoints.save_best(len(self.progress.rows), self.model.variables)

    def _row(self) -> Row:
        epoch, step = len(self.progress.rows) + 1, self.progress.step
        images = self.batches.steps_per_epoch * self.batches.size
        return {
            "epoch": epoch,
            "step": step,
            "learning_rate": self._scale() * float(self.parts.schedule(tf.constant(step - 1, tf.int64))),
            "seconds": self.progress.seconds,
            "images_per_second": images / self.progress.seconds,
            **self.parts.training.results(),
        }

    def _finished(self) -> bool:
        epochs, patience = len(self.progress.rows), self.settings.patience
        settled = self.unfreezing.settled if self.unfreezing else 0
        stale = patience is not None and epochs - max(self._best_epoch(), settled) >= patience
        return epochs >= self.settings.epochs or (epochs > 0 and stale) or self.model.stop_training

    def _scale(self) -> float:
        """Return what plateaus have made of the learning rate: a function of the finished epochs alone."""
        if self.settings.plateau is None:
            return 1.0
        patience, factor = self.settings.plateau
        return rate_scale(self.progress.rows, self.monitor, self.sign, patience=patience, factor=factor)

    def _best_epoch(self) -> int:
        return best_epoch(self.progress.rows, self.monitor, self.sign)

    def _state(self) -> list[keras.Variable]:
        """Return every variable that a run at this step consists of: dropout's seeds and metrics' sums too."""
        extra = [part.variables for part in (self.parts.average, self.parts.lookahead) if part]
        copies = [variable for variables in extra for variable in variables]
        return [*self.model.variables, *self.parts.optimizer.variables, *copies, *self.parts.training.variables]

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return self.parts.average.applied() if self.parts.average else contextlib.nullcontext()

    def _leave_kept_weights(self) -> None:
        if self.settings.keep == "best":
            self.checkpoints.restore_best(self._best_epoch(), self.model.variables)
        elif self.parts.average:
            self.parts.average.give()

    def _save(self) -> None:
        self._replicas_agree()
        self.checkpoints.save(self.progress, self._state())
        self._write_history()

    def _write_history(self) -> None:
        if self.settings.history and self.runtime.chief:
            write_history(self.settings.history, self.progress.rows)

    def _replicas_agree(self) -> None:
        """Average what each replica counts for itself: the moving statistics of batch norms that learn."""
        if self.runtime.replicas > 1:
            learning = [layer for layer in self.model.layers if layer.trainable]
            for variable in (each for layer in learning for each in layer.non_trainable_variables):
                if variable.dtype.startswith("float"):
                    variable.assign(self.runtime.strategy.reduce("MEAN", variable.value, axis=None))

    def _check_finite(self, bad: int) -> None:
        if bad >= 0:
            epoch, step = divmod(bad, self.batches.steps_per_epoch)
            raise UserError(
                f"the loss is not finite in epoch {epoch + 1}, step {step + 1}: try a lower "
                "train.optimizer.learning_rate, train.clip_norm, or train.precision=float32; "
                "the last checkpoint was kept"
            )

    def _stop_if(self, wish: StopWish) -> None:
        if wish.asked:
            self._save()
            epoch, step = divmod(self.progress.step - 1, self.batches.steps_per_epoch)
            raise Stopped(f"stopped at epoch {epoch + 1}, step {step + 1}; continue with the same command")
