"""Labelled images: sources, how a file becomes model input, augmentation, and batches."""
