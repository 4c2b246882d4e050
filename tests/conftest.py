"""What every test shares: quiet output, and the fake processors that distribution tests need."""

import pipeline  # noqa: F401  sets TensorFlow's environment before any test imports it
