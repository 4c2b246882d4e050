"""What a label means: losses, metrics, decoding, scoring."""
