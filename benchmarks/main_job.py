"""The main job on the embedded digits, timed, and against scikit-learn's SVC on the same split.

    python -m benchmarks.main_job

The SVC is the one of scikit-learn's own example for this data (gamma=0.001, first half for training), whose
split is ours: both sides answer the same 899 images, so the comparison is paired (exact McNemar).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from pipeline.evaluation.statistics import mcnemar, wilson


def run_pipeline(folder: Path) -> dict[str, float]:
    """Train, evaluate and export the default preset as three commands; return the seconds of each."""
    steps = {"train": ["train", "digits", "--run"], "eval": ["eval"], "export": ["export"]}
    seconds = {}
    for name, arguments in steps.items():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pipeline", *arguments, str(folder)], check=True, capture_output=True)
        seconds[name] = time.perf_counter() - start
    return seconds


def svc_correct() -> np.ndarray:
    """Return which of scikit-learn's own test half its SVC gets right."""
    digits = load_digits()
    half = len(digits.data) // 2
    model = SVC(gamma=0.001).fit(digits.data[:half], digits.target[:half])
    return model.predict(digits.data[half:]) == digits.target[half:]


def main() -> None:
    """Print times against 3 minutes, accuracies with intervals, and the paired test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="where to write the run; a temporary folder if not given")
    with tempfile.TemporaryDirectory() as scratch:
        folder = parser.parse_args().run or Path(scratch) / "digits"
        seconds = run_pipeline(folder)
        print("  ".join(f"{name} {s:.0f} s" for name, s in seconds.items()), f"= {sum(seconds.values()):.0f} s (< 180)")

        predictions = pd.read_csv(folder / "evaluation" / "test" / "predictions.csv", dtype=str)
        ours, svc = (predictions["truth"] == predictions["prediction"]).to_numpy(), svc_correct()
        assert len(ours) == len(svc) == 899
        assert predictions["truth"].tolist() == [str(digit) for digit in load_digits().target[-899:]]  # the same images
        for name, correct in (("pipeline digits", ours), ("sklearn SVC", svc)):
            score = wilson(int(correct.sum()), len(correct))
            print(f"{name:<16} {score.value:.4f} [{score.low:.4f}, {score.high:.4f}] n={score.n}")
        test = mcnemar(ours, svc)
        print(f"difference {100 * (ours.mean() - svc.mean()):+.2f} points, McNemar p = {test.p_value:.4g}")
        columns = ["variant", "bytes", "score", "low", "high", "p_value", "latency_ms_p50"]
        print(pd.read_csv(folder / "export" / "results.csv")[columns].to_string(index=False))


if __name__ == "__main__":
    main()
