"""Smaller and faster models: each stage is a function from a functional Keras model to a functional Keras model."""

from pipeline.export.compress.folding import fold_batch_norm

__all__ = ["fold_batch_norm"]
