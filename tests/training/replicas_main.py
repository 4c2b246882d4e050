"""Train the tiny problem on replicas, in a process of its own because devices are fixed at its start.

Usage: replicas_main.py FOLDER JOB ...    where a job is NAME=STRATEGY[,key=value ...] with strategy single, mirrored or
workers, and keys xla, cpu_ops, precision, clip, ema, norm, accumulate, frozen, taught, stop. Its weights go to
FOLDER/NAME/result.npz; a job whose name stood before continues that job's run.
"""

import contextlib
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tiny import loop, runtime, weights

from pipeline.training.runtime import choose_strategy


class BreakOff(keras.callbacks.Callback):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 >= self.step:
            raise KeyboardInterrupt


def train(folder: Path, strategy: tf.distribute.Strategy, options: dict[str, str]) -> None:
    accumulate = int(options.get("accumulate", 1))
    it = loop(
        folder,
        choices=runtime(
            strategy=strategy,
            xla="xla" in options,
            cpu_ops="cpu_ops" in options,
            precision=options.get("precision", "float32"),
        ),
        optimizer={"weight_decay": 1e-3, "clip_norm": float(options["clip"]) if "clip" in options else None},
        network={"norm": "norm" in options},
        accumulate=accumulate,
        size=16 // accumulate,
        transfer={"head_epochs": 1, "every": None, "factor": 0.5} if "frozen" in options else None,
        taught="taught" in options,
        ema=float(options["ema"]) if "ema" in options else None,
        checkpoint_minutes=1e-9,
        callbacks=(BreakOff(int(options["stop"])),) if "stop" in options else (),
    )
    with contextlib.suppress(KeyboardInterrupt):
        rows = it.run()
        if it.runtime.chief:
            figures = [[row[key] for key in ("loss", "accuracy", "val_loss", "val_accuracy")] for row in rows]
            np.savez(folder / "result.npz", np.array(figures), *weights(it.model))


folder, *jobs = sys.argv[1:]
[cpu] = tf.config.list_physical_devices("CPU")
if not any("=workers" in job for job in jobs):
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategies = {}
for job in jobs:
    name, _, text = job.partition("=")
    kind, *options = text.split(",")
    if kind not in strategies:
        strategies[kind] = choose_strategy({"workers": "multi_worker"}.get(kind, kind))
    (Path(folder) / name).mkdir(exist_ok=True)
    train(Path(folder) / name, strategies[kind], dict(option.split("=") for option in options))
