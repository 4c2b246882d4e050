"""Train the tiny problem on two replicas (in a process of its own: devices are fixed at start) and save its weights.

Usage: replicas_main.py mirrored|workers FOLDER key=value ...   with xla, ema, clip, precision, stop
"""

import sys
from pathlib import Path

import pipeline  # noqa: F401  sets TensorFlow's environment

strategy_name, folder, *options = sys.argv[1:]
options = dict(option.split("=") for option in options)

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

if strategy_name == "mirrored":
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pipeline.training.runtime import _strategy  # noqa: E402

strategy = _strategy({"mirrored": "mirrored", "workers": "multi_worker", "single": "single"}[strategy_name])

from tiny import loop, runtime, weights  # noqa: E402


class BreakOff(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 >= int(options["stop"]):
            raise KeyboardInterrupt


it = loop(
    Path(folder),
    choices=runtime(
        strategy=strategy,
        xla="xla" in options,
        cpu_ops="fused" in options,
        precision=options.get("precision", "float32"),
    ),
    optimizer={"weight_decay": 1e-3, "clip_norm": float(options["clip"]) if "clip" in options else None},
    network={"norm": "norm" in options},
    accumulate=int(options.get("accumulate", 1)),
    size=16 // int(options.get("accumulate", 1)),
    ema=float(options["ema"]) if "ema" in options else None,
    checkpoint_minutes=1e-9,
    callbacks=(BreakOff(),) if "stop" in options else (),
)
rows = it.run()
if it.runtime.chief:
    figures = [[row[key] for key in ("loss", "accuracy", "val_loss", "val_accuracy")] for row in rows]
    np.savez(Path(folder) / "result.npz", np.array(figures), *weights(it.model))
