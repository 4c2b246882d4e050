"""Smaller and faster models: each stage is a function from a functional Keras model to a functional Keras model."""

from pipeline.export.compress.channels import find_channels, mask_channels, prune_channels, prune_iteratively
from pipeline.export.compress.equalise import correct_bias, equalise
from pipeline.export.compress.folding import fold_batch_norm
from pipeline.export.compress.quantize_aware import calibrate, float_islands, quantize_aware, strip_quantization
from pipeline.export.compress.quantized_file import convert_quantized
from pipeline.export.compress.target import to_target

__all__ = [
    "calibrate",
    "convert_quantized",
    "correct_bias",
    "equalise",
    "find_channels",
    "float_islands",
    "fold_batch_norm",
    "mask_channels",
    "prune_channels",
    "prune_iteratively",
    "quantize_aware",
    "strip_quantization",
    "to_target",
]
