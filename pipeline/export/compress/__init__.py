"""Smaller and faster models: each stage is a function from a functional Keras model to a functional Keras model."""

from pipeline.export.compress.channels import find_channels, mask_channels, prune_channels, prune_iteratively
from pipeline.export.compress.folding import fold_batch_norm
from pipeline.export.compress.target import to_target

__all__ = ["find_channels", "fold_batch_norm", "mask_channels", "prune_channels", "prune_iteratively", "to_target"]
