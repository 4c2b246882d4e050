"""From labelled images to a vision model that is proven to work on a phone."""

import os

# All three are read when TensorFlow or Keras is imported, so they are set before anything here imports either.
# oneDNN is off by default on some CPUs, where it makes training two to five times faster.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
