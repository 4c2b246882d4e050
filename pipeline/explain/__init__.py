"""Where a model looks: heat maps of what speaks for an answer, of a Keras model or of an exported file."""
