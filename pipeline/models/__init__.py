"""Functional Keras models, one file per family."""
