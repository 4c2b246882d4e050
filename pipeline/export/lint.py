"""What will hurt an integer file, said before the file is made: findings in layers, each with its mend.

lint(model)                  # of the graph alone, before training
lint(model, images)          # of a trained model also what its values and weights tell
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from pipeline.config import FREE, Experiment
from pipeline.data.opening import open_source
from pipeline.evaluation.scoring import load_model
from pipeline.export.compress.quantize_aware import is_quantized, strip_quantization
from pipeline.export.inputs import training_images
from pipeline.export.lint_rules import RULES
from pipeline.export.lint_subject import Subject
from pipeline.registry import MODELS
from pipeline.runs import Run, write_atomically

log = logging.getLogger(__name__)

COLUMNS = ("rule", "layer", "hurts", "mend")
_INTEGER = ("int8", "uint8", "mixed", "w4a8")  # activations of 16 bits have room for most of what is found
_IMAGES = 16  # whose values are looked at
_TOLD, _NAMED = 3, 3


def lint(model: keras.Model, images: np.ndarray | None = None) -> pd.DataFrame:
    """Return what will hurt an integer file of this model: `rule`, `layer`, `hurts`, `mend`, the worst rule first.

    Args:
        model: a functional model, logits out; of a quantisation-aware one the float model is looked at.
        images: (N, H, W, C) in 0..255; without them the rules that need trained weights are left out.

    Raises:
        UserError: the model's graph cannot be read.
    """
    subject = Subject(strip_quantization(model) if is_quantized(model) else model, images)
    rows = []
    for rule in RULES:
        if (rule.needs == "images" and images is None) or (rule.needs != "layers" and subject.is_hidden):
            continue
        for layer, figures in rule.find(subject):
            rows.append((rule.name, layer, f"{rule.hurts} ({figures})" if figures else rule.hurts, rule.mend))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def lint_path(config: str | Path, overrides: Sequence[str] = ()) -> pd.DataFrame:
    """Return the findings of an experiment's untrained model, or of a finished run's model on training images."""
    run = Run(Path(config))
    if run.is_run and run.finished:
        experiment = run.experiment.replace(overrides, only=FREE)
        return lint(load_model(run), training_images(experiment, run.classes, _IMAGES))
    experiment = Experiment.load(config, overrides)
    data, component = experiment.data, experiment.model
    classes = open_source(data, experiment.train.seed).classes
    return lint(MODELS.build(component.name, (*data.image_size, data.channels), len(classes), **component.options))


def group(findings: pd.DataFrame) -> pd.DataFrame:
    """Return one row per rule, for reading: the first layers by name, how many more, and the first one's figures."""
    rows = []
    for rule, found in findings.groupby("rule", sort=False):
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        first = found.iloc[0]
        rows.append((rule, ", ".join(found["layer"][:_NAMED]) + more, first["hurts"], first["mend"]))
    return pd.DataFrame(rows, columns=list(COLUMNS)).rename(columns={"layer": "layers"})


def advise(folder: Path, model: keras.Model, variants: Sequence[str], images: np.ndarray) -> None:
    """Log the three worst findings where integer files are made, and write all of them, by rule, to lint.csv.

    Args:
        folder: of the export.
        images: uint8 (N, H, W, C) from the training split.
    """
    path = folder / "lint.csv"
    if not set(_INTEGER) & set(variants):
        path.unlink(missing_ok=True)
        return
    found = group(lint(model, images[:_IMAGES]))
    for row in found[:_TOLD].itertuples():
        log.info("lint, %s at %s: it %s; %s", row.rule, row.layers, row.hurts, row.mend)
    if len(found) > _TOLD:
        log.info("lint: %d more kinds of findings are in %s", len(found) - _TOLD, path)
    write_atomically(path, found.to_csv(index=False))
