"""Train digits for three short epochs, and die where told to.

Usage: resume_main.py FOLDER step:N|saving:N|model|never

`saving:N` is killed in the middle of its Nth checkpoint file, `model` in the middle of writing model.keras.
"""

import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

import pipeline  # noqa: F401  sets TensorFlow's environment
from pipeline.config import Experiment
from pipeline.training import setup
from pipeline.training import train as module

folder, moment = sys.argv[1:]
kind, _, number = moment.partition(":")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if kind == "step" and batch + 1 >= int(number):
            die()


savez, saved = np.savez, []


def savez_or_die(path, **arrays):
    savez(path, **arrays)
    saved.append(path)
    if kind == "saving" and len(saved) == int(number):
        os.truncate(path, os.path.getsize(path) // 2)
        die()


def save_or_die(model, path):
    Path(path).write_bytes(b"PK half a model")
    die()


np.savez = savez_or_die
if kind == "model":
    keras.Model.save = save_or_die
standard = setup.standard_callbacks
setup.standard_callbacks = lambda tensorboard: [*standard(tensorboard), Die()]

experiment = Experiment.parse(
    {
        "data": {
            "source": "digits",
            "image_size": [16, 16],
            "channels": 1,
            "batch_size": 128,
            "augment": ["pad_crop"],
        },
        "model": {"name": "simple_cnn", "filters": [4, 8], "units": 8, "batch_norm": True, "dropout": 0.2},
        "train": {"epochs": 3, "steps_per_call": 2, "checkpoint_minutes": 1e-9, "ema": 0.9},
    },
    "test",
)
module.train(experiment, folder)
