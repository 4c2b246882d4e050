"""Search with planted scores, as the chief or a worker that the environment names.

Usage: tune_main.py FOLDER
"""

import sys

import planted
import pytest

import pipeline  # noqa: F401  sets TensorFlow's environment
from pipeline.studies.tune import tune

with pytest.MonkeyPatch.context() as patch:
    done = planted.plant(patch)
    found = tune(planted.experiment(trials=6), sys.argv[1])
print("chief" if found else "worker", len(done), "tried", file=sys.stderr)
