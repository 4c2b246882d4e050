"""From labelled images to a vision model that is proven to work on a phone.

The public Python API: `Experiment`, `train`, `evaluate`, `export`, `compress`, `predict`. Nothing here imports
TensorFlow until it is used.
"""

import importlib
import os
from typing import Any

# All three are read when TensorFlow or Keras is imported, so they are set before anything here imports either.
# oneDNN is off by default on some CPUs, where it makes training two to five times faster.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

_API = {
    "Experiment": "pipeline.config",
    "Run": "pipeline.runs",
    "UserError": "pipeline.errors",
    "train": "pipeline.training.train",
    "evaluate": "pipeline.evaluation.evaluate",
    "compress": "pipeline.export.compress.compress",
    "predict": "pipeline.export.predict",
}

__all__ = [*_API, "export"]


def __getattr__(name: str) -> Any:
    if name == "export":  # the package itself, which is callable
        return importlib.import_module("pipeline.export")
    if name not in _API:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(_API[name]), name)
