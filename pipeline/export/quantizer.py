"""The quantiser's calls: ranges from images, a float32 .tflite file in and an integer one out, and what it became."""

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_quantizer import qtyping
from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as rounding
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils.qsv_utils import min_max_update

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.interpreter import INPUT, SIGNATURE, LiteModel
from pipeline.quiet import quiet

PIXELS = (0.0, 255.0)  # the range of every image, raw
WITH_FOUR_BITS = (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED)  # LiteRT has no others

Ranges = Mapping[str, Any]


def plan(recipe: qtyping.ModelQuantizationRecipe) -> RecipeManager:
    """Return a recipe that more rules can be added to; the last rule that fits an operator holds."""
    manager = RecipeManager()
    manager.load_quantization_recipe(recipe)
    return manager


def only(tensor: str) -> str:
    """Return the expression by which a rule means the one operator that gives this tensor."""
    return f"^{re.escape(tensor)};?$"


@contextlib.contextmanager
def _large_kernels() -> Iterator[None]:
    """Let the library round kernels of more than two axes and 32 MiB: hand them over as matrices, a row per channel.

    ai-edge-quantizer 0.10 cuts those into pieces, and fails to spread a scale per channel over them (its issue 512).
    """
    library = rounding.uniform_quantize

    def as_matrix(data: np.ndarray, scheme: qtyping.UniformQuantParams, blockwise: bool = False) -> np.ndarray:
        if data.ndim < 3 or scheme.quantized_dimension != 0:
            return library(data, scheme, blockwise)
        scales, zeros = scheme.scale.reshape(-1, 1), scheme.zero_point.reshape(-1, 1)
        rows = dataclasses.replace(scheme, scale=scales, zero_point=zeros)
        return library(data.reshape(len(data), -1), rows, blockwise).reshape(data.shape)

    rounding.uniform_quantize = as_matrix
    try:
        yield
    finally:
        rounding.uniform_quantize = library


def quantize(
    float_file: bytes,
    manager: RecipeManager,
    calibration: Sequence[np.ndarray] = (),
    *,
    ranges: Ranges | None = None,
) -> bytes:
    """Quantise a file by a recipe; images (H, W, C) in 0..255, or `ranges` of earlier ones, where it needs them."""
    with quiet(), _large_kernels(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns that all tensors are kept: calibration needs them
        if ranges is None and manager.need_calibration():
            ranges = measure_ranges(float_file, manager, calibration)
        quantizer = Quantizer(float_file, manager.get_quantization_recipe())
        result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def measure_ranges(float_file: bytes, manager: RecipeManager, calibration: Sequence[np.ndarray]) -> Ranges:
    """Run the float file on images (H, W, C) in 0..255 and return the range of each tensor over all of them."""
    if len(calibration) == 0:
        raise UserError("this variant needs calibration images; set export.calibration_images to 1 or more")
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # Not Quantizer.calibrate: its moving averages cut off half of the images' peaks (twice the error on digits).
        calibrator = Calibrator(float_file, num_threads=1, qsv_update_func=min_max_update)
        inputs = [{INPUT: np.asarray(image, np.float32)[None]} for image in calibration]
        calibrator.calibrate({SIGNATURE: inputs}, manager)
    # The images may miss the darkest and the brightest pixel; another range would not give a scale of 1.
    [graph] = flatbuffer.read(float_file).subgraphs
    name = graph.tensors[graph.inputs[0]].name.decode()
    pixels = {"min": np.array(PIXELS[:1], np.float32), "max": np.array(PIXELS[1:], np.float32)}
    return calibrator.get_model_qsvs() | {name: pixels}


def checked(
    content: bytes,
    variant: str,
    *,
    ports: tuple[str, str],
    weights: str,
    activations: str,
    but: Collection[str] = (),
) -> bytes:
    """Return the file if it is what the variant promises, or raise UserError: quantisers skip layers silently.

    `but` names the outputs of operators that are meant to stay float.
    """
    model = LiteModel(content, name=variant)
    found = (model.input.dtype.name, model.output.dtype.name)
    if found != ports:
        raise UserError(f"{variant}: the file takes {found[0]} and gives {found[1]}, not {ports[0]} and {ports[1]}")
    operators = list(flatbuffer.operators(content))
    stored = {op.outputs[0].name: op.inputs[0].dtype for op in operators if op.name == "DEQUANTIZE"}
    for operator in operators:
        if operator.name not in flatbuffer.WITH_WEIGHTS or operator.outputs[0].name in but:
            continue
        kernel = operator.inputs[1]
        if not (kernel.constant or kernel.name in stored):
            continue  # the product of two activations, as in attention
        types = (stored.get(kernel.name, kernel.dtype), operator.outputs[0].dtype)
        wider = weights == "int4" and operator.name not in WITH_FOUR_BITS
        promised = ("int8" if wider else weights, activations)
        if types != promised:
            raise UserError(
                f"{variant}: {operator.name} at {operator.outputs[0].name!r} has {types[0]} weights and {types[1]} "
                f"activations, not {promised[0]} and {promised[1]}; leave {variant} out of export.variants"
            )
    return content
