"""Recipes: one float32 .tflite file in, one file per variant out, each checked to be what its name says."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import qtyping, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.recipe_manager import RecipeManager

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.interpreter import LiteModel
from pipeline.export.quantizer import WITH_FOUR_BITS, checked, plan, quantize
from pipeline.registry import RECIPES

_Operation = qtyping.TFLOperationName


@RECIPES.register
def float32(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Leave everything in float32: the reference the others are compared with."""
    return float_file


@RECIPES.register
def float16(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Store weights as float16, half the size; GPUs compute in float16, CPUs in float32."""
    manager = RecipeManager()
    manager.add_weight_only_config(".*", _Operation.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    content = quantize(float_file, manager)
    return checked(content, "float16", ports=("float32", "float32"), weights="float16", activations="float32")


@RECIPES.register
def dynamic(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Store weights as int8 and quantise activations while running: floats in and out, no calibration."""
    manager = plan(recipe.dynamic_wi8_afp32())
    # MediaPipe tasks-vision 0.10.21 silently errs where each row of a dense kernel has a scale of its own.
    manager.add_dynamic_config(".*", _Operation.FULLY_CONNECTED, 8, qtyping.QuantGranularity.TENSORWISE)
    content = quantize(float_file, manager)
    return checked(content, "dynamic", ports=("float32", "float32"), weights="int8", activations="float32")


@RECIPES.register
def int8(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute in int8 from input to output, for integer-only chips: the input is pixel - 128."""
    content = quantize(float_file, plan(recipe.static_wi8_ai8()), calibration)
    # Any other scale rounds pixels that lie on ties, which clients then round differently (by up to 7 steps).
    port = LiteModel(content).input
    if (port.scale, port.zero_point) != (1.0, -128):
        raise UserError(f"int8: the input is {port.scale} * (q - {port.zero_point}), not pixel - 128")
    return checked(content, "int8", ports=("int8", "int8"), weights="int8", activations="int8")


@RECIPES.register
def uint8(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute in int8 behind the ports that MediaPipe and LiteRT.js accept: uint8 pixels in, floats out."""
    manager = plan(recipe.static_wi8_ai8())
    for port in (_Operation.INPUT, _Operation.OUTPUT):
        manager.add_quantization_config(".*", port, algorithm_key=AlgorithmName.NO_QUANTIZE)
    content = _take_bytes(quantize(float_file, manager, calibration))
    return checked(content, "uint8", ports=("uint8", "float32"), weights="int8", activations="int8")


@RECIPES.register
def int16x8(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute with int8 weights and int16 activations: near float, but slow on CPUs without its kernels."""
    content = _allow_any_scale(quantize(float_file, plan(recipe.static_wi8_ai16()), calibration))
    return checked(content, "int16x8", ports=("int16", "int16"), weights="int8", activations="int16")


@RECIPES.register
def weight_int4(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Store weights as int4 (depthwise and transposed convolutions: int8), compute in float: the smallest file."""
    manager = plan(recipe.weight_only_wi8_afp32())
    for operation in WITH_FOUR_BITS:
        manager.add_weight_only_config(".*", operation, 4)
    content = quantize(float_file, manager)
    return checked(content, "weight_int4", ports=("float32", "float32"), weights="int4", activations="float32")


@RECIPES.register
def w4a8(float_file: bytes, calibration: Sequence[np.ndarray]) -> bytes:
    """Compute with int4 weights (depthwise and transposed convolutions: int8) and int8 activations.

    Without training for it (quantize_aware) this costs points of accuracy.
    """
    manager = plan(recipe.static_wi8_ai8())
    for operation in WITH_FOUR_BITS:
        manager.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=4)
    content = quantize(float_file, manager, calibration)
    return checked(content, "w4a8", ports=("int8", "int8"), weights="int4", activations="int8")


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
