"""Which layers int8 costs most: one at a time is quantised, the others stay float, and the output is compared."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from ai_edge_quantizer import qtyping, recipe
from ai_edge_quantizer.recipe_manager import RecipeManager

from pipeline.evaluation.scoring import load_model
from pipeline.export import flatbuffer
from pipeline.export.convert import convert
from pipeline.export.inputs import training_images, validation_images
from pipeline.export.noise import SILENCE, answers, decibels, relative_noise
from pipeline.export.quantizer import Ranges, measure_ranges, only, plan, quantize
from pipeline.export.trial import Trial
from pipeline.export.variants import reference
from pipeline.runs import Run

_IMAGES = 128  # that each file answers: the dB move by tenths between draws of as many
_KERNELS = ("conv", "depthwise", "matmul", "tensordot")  # how TensorFlow's operators with weights are named


def sensitivity(
    source: Run | Path | str | bytes, calibration: Sequence[np.ndarray] | None = None, trial: Trial | None = None
) -> pd.DataFrame:
    """Return one row per operator with weights, the most damaging first: what quantising it alone does to the output.

    Columns: `layer`, `operator`, `sqnr_db` (before the decoding, against the variance), `mean_abs_difference` (of the
    decoded answers), `share` (of the noise of all rows), and with a trial `points`: the score it loses on validation
    images. The index is the tensor of the file.

    Args:
        source: a finished run, which brings its own images, or a float32 file.
        calibration: for a file: images (H, W, C) in 0..255, which are answered too where there is no trial.
    """
    if isinstance(source, bytes):
        manager = plan(recipe.static_wi8_ai8())
        return rank(
            source, measure_ranges(source, manager, () if calibration is None else calibration), calibration, trial
        )
    run = source if isinstance(source, Run) else Run.open(source)
    experiment = run.experiment
    if trial is None:
        trial = Trial(*validation_images(experiment, run.classes, _IMAGES), experiment.export.margin)
    float_file = convert(reference(load_model(run), "float32"), trial.task.decode)
    return sensitivity(
        float_file, training_images(experiment, run.classes, experiment.export.calibration_images), trial
    )


def rank(float_file: bytes, ranges: Ranges, images: Sequence[np.ndarray], trial: Trial | None = None) -> pd.DataFrame:
    """Return what `sensitivity` does, from the ranges of every tensor; with a trial its images are answered."""
    images = (trial.images if trial else images)[:_IMAGES]
    exact = answers(float_file, float_file, images)
    rows = {}
    for operator in weighted(float_file):
        manager = RecipeManager()
        tensor = operator.outputs[0].name
        manager.add_static_config(only(tensor), qtyping.TFLOperationName.ALL_SUPPORTED, 8, 8)
        found = answers(float_file, quantize(float_file, manager, ranges=ranges), images)
        noise = relative_noise(exact.logits, found.logits)
        rows[tensor] = {
            "layer": layer_name(tensor),
            "operator": operator.name,
            "sqnr_db": decibels(noise),
            "mean_abs_difference": float(np.abs(found.decoded - exact.decoded).mean()),
            "share": noise,
            **({"points": trial.loss(exact.decoded, found.decoded)} if trial else {}),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("tensor")
    table["share"] /= max(table["share"].sum(), SILENCE)
    return table.sort_values("share", ascending=False, kind="stable", na_position="first")


def weighted(float_file: bytes) -> list[flatbuffer.Operator]:
    """Return the operators with constant weights, in order of execution."""
    found = (op for op in flatbuffer.operators(float_file) if op.name in flatbuffer.WITH_WEIGHTS)
    return [operator for operator in found if operator.inputs[1].constant]


def layer_name(tensor: str) -> str:
    """Return the Keras layer whose kernel gave a tensor of the file.

    As in `model_1/relu_1/Relu;model_1/conv_1/convolution`: fused layers are all named, and a scope ends in the count
    of its calls.
    """
    paths = [part.split("/") for part in tensor.split(";") if "/" in part]
    kernels = [path for path in paths if path[-1].lower().startswith(_KERNELS)]
    return re.sub(r"_\d+$", "", (kernels or paths)[0][-2]) if paths else tensor
