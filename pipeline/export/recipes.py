"""Recipes: one float32 .tflite file in, one file per variant out, each checked to be what its name says."""

import logging
import re
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import qtyping, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.recipe_manager import RecipeManager
from ai_edge_quantizer.utils.qsv_utils import min_max_update

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.interpreter import INPUT, SIGNATURE, LiteModel
from pipeline.export.noise import noisiest, output_noise
from pipeline.quiet import quiet
from pipeline.registry import RECIPES

log = logging.getLogger(__name__)

PIXELS = (0.0, 255.0)  # the range of every image, raw
_NOISE_IMAGES, _MOST_NOISE = 16, 0.01
_Operation = qtyping.TFLOperationName
_WITH_FOUR_BITS = (_Operation.CONV_2D, _Operation.FULLY_CONNECTED)  # LiteRT has no others


@RECIPES.register
def float32(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Leave everything in float32: the reference the others are compared with."""
    return float_file


@RECIPES.register
def float16(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Store weights as float16, half the size; GPUs compute in float16, CPUs in float32."""
    manager = RecipeManager()
    manager.add_weight_only_config(".*", _Operation.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    content = _quantize(float_file, manager)
    return _checked(content, "float16", ports=("float32", "float32"), weights="float16", activations="float32")


@RECIPES.register
def dynamic(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Store weights as int8 and quantise activations while running: floats in and out, no calibration."""
    content = _quantize(float_file, _manager(recipe.dynamic_wi8_afp32()))
    return _checked(content, "dynamic", ports=("float32", "float32"), weights="int8", activations="float32")


@RECIPES.register
def int8(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute in int8 from input to output, for integer-only chips: the input is pixel - 128."""
    content = _quantize(float_file, _manager(recipe.static_wi8_ai8()), calibration)
    # Any other scale rounds pixels that lie on ties, which clients then round differently (by up to 7 steps).
    port = LiteModel(content).input
    if (port.scale, port.zero_point) != (1.0, -128):
        raise UserError(f"int8: the input is {port.scale} * (q - {port.zero_point}), not pixel - 128")
    return _checked(content, "int8", ports=("int8", "int8"), weights="int8", activations="int8")


@RECIPES.register
def uint8(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute in int8 behind the ports that MediaPipe and LiteRT.js accept: uint8 pixels in, floats out."""
    manager = _manager(recipe.static_wi8_ai8())
    for port in (_Operation.INPUT, _Operation.OUTPUT):
        manager.add_quantization_config(".*", port, algorithm_key=AlgorithmName.NO_QUANTIZE)
    content = _take_bytes(_quantize(float_file, manager, calibration))
    return _checked(content, "uint8", ports=("uint8", "float32"), weights="int8", activations="int8")


@RECIPES.register
def int16x8(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute with int8 weights and int16 activations: near float, but slow on CPUs without its kernels."""
    content = _allow_any_scale(_quantize(float_file, _manager(recipe.static_wi8_ai16()), calibration))
    return _checked(content, "int16x8", ports=("int16", "int16"), weights="int8", activations="int16")


@RECIPES.register
def weight_int4(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Store weights as int4 (depthwise and transposed convolutions: int8), compute in float: the smallest file."""
    manager = _manager(recipe.weight_only_wi8_afp32())
    for operation in _WITH_FOUR_BITS:
        manager.add_weight_only_config(".*", operation, 4)
    content = _quantize(float_file, manager)
    return _checked(content, "weight_int4", ports=("float32", "float32"), weights="int4", activations="float32")


@RECIPES.register
def w4a8(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute with int4 weights (depthwise and transposed convolutions: int8) and int8 activations.

    Without training for it (quantize_aware) this costs points of accuracy.
    """
    manager = _manager(recipe.static_wi8_ai8())
    for operation in _WITH_FOUR_BITS:
        manager.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=4)
    content = _quantize(float_file, manager, calibration)
    return _checked(content, "w4a8", ports=("int8", "int8"), weights="int4", activations="int8")


@RECIPES.register
def mixed(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute in int8, but in float where that loses most: the fewest layers that keep the noise below 1 %.

    Measured on the calibration images: each layer with weights by the noise that it adds to its input's; a layer goes
    to float together with the one before it, whose result it needs unrounded. Half of them at most.
    """
    images = calibration[:_NOISE_IMAGES]
    content, kept, count = int8(float_file, calibration), set(), 0
    ranking = noisiest(float_file, content, images)
    while output_noise(float_file, content, images) > _MOST_NOISE and 2 * count < len(ranking):
        count = min(max(1, 2 * count), (len(ranking) + 1) // 2)
        kept = {name for names in ranking[:count] for name in names}
        manager = _manager(recipe.static_wi8_ai8())
        for name in kept:
            only = f"^{re.escape(name)};?$"
            manager.add_quantization_config(only, _Operation.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE)
        content = _quantize(float_file, manager, calibration)
    log.info("mixed: %d of %d layers with weights stay float", len(kept), len(ranking))
    return _checked(content, "mixed", ports=("int8", "int8"), weights="int8", activations="int8", but=kept)


def _manager(quantization_recipe: qtyping.ModelQuantizationRecipe) -> RecipeManager:
    manager = RecipeManager()
    manager.load_quantization_recipe(quantization_recipe)
    return manager


def _quantize(float_file: bytes, manager: RecipeManager, calibration: Sequence[np.ndarray] = ()) -> bytes:
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns that all tensors are kept: calibration needs them
        ranges = _ranges(float_file, manager, calibration) if manager.need_calibration() else None
        quantizer = Quantizer(float_file, manager.get_quantization_recipe())
        result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _ranges(float_file: bytes, manager: RecipeManager, calibration: Sequence[np.ndarray]) -> dict[str, Any]:
    """Run the float file on images (H, W, C) in 0..255 and return the range of each tensor over all of them."""
    if len(calibration) == 0:
        raise UserError("this variant needs calibration images; set export.calibration_images to 1 or more")
    # Not Quantizer.calibrate: its moving averages cut off half of the images' peaks (twice the error on digits).
    calibrator = Calibrator(float_file, num_threads=1, qsv_update_func=min_max_update)
    calibrator.calibrate({SIGNATURE: [{INPUT: np.asarray(image, np.float32)[None]} for image in calibration]}, manager)
    # The images may miss the darkest and the brightest pixel; another range would not give a scale of 1.
    [graph] = flatbuffer.read(float_file).subgraphs
    name = graph.tensors[graph.inputs[0]].name.decode()
    pixels = {"min": np.array(PIXELS[:1], np.float32), "max": np.array(PIXELS[1:], np.float32)}
    return calibrator.get_model_qsvs() | {name: pixels}


def _allow_any_scale(content: bytes) -> bytes:
    """Let int16 additions have scales that are no powers of two, as the quantiser gives them.

    Its files keep the schema's default, `pot_scale_int16`: the kernel then takes scales that happen to lie near
    powers of two, such as those of a rescaling to -1..1, for shifts, and refuses to load.
    """
    model = flatbuffer.read(content)
    for operator in (operator for graph in model.subgraphs for operator in graph.operators):
        if isinstance(operator.builtinOptions, schema.AddOptionsT | schema.SubOptionsT):
            operator.builtinOptions.potScaleInt16 = False
    return flatbuffer.write(model)


def _take_bytes(content: bytes) -> bytes:
    """Let a file whose float input goes straight into QUANTIZE take uint8 pixels instead.

    The quantiser knows no unsigned types. QUANTIZE also turns uint8 into int8, and with a scale of 1 on both sides
    that is exactly pixel - 128; so it is enough to give the input another type.
    """
    model = flatbuffer.read(content)
    [graph] = model.subgraphs
    [port] = graph.inputs
    readers = [operator for operator in graph.operators if port in operator.inputs]
    names = {flatbuffer.operator_name(operator, model) for operator in readers}
    if names != {"QUANTIZE"}:
        raise UserError(f"uint8: the input goes into {', '.join(sorted(names))}, not only into QUANTIZE")
    graph.tensors[port].type = schema.TensorType.UINT8
    graph.tensors[port].quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
    return flatbuffer.write(model)


def _checked(
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
        wider = weights == "int4" and operator.name not in _WITH_FOUR_BITS
        promised = ("int8" if wider else weights, activations)
        if types != promised:
            raise UserError(
                f"{variant}: {operator.name} at {operator.outputs[0].name!r} has {types[0]} weights and {types[1]} "
                f"activations, not {promised[0]} and {promised[1]}; leave {variant} out of export.variants"
            )
    return content
