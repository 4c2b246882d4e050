"""Keras model to measured .tflite files."""
