"""The one training loop and what it is set up with."""
