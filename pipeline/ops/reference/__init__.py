"""NumPy oracles: what convolution, pooling and activations are by definition, slow and readable."""
