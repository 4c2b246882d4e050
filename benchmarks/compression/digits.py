"""`make compress` on the embedded digits: bytes, measured latency and accuracy against the float32 export.

    python -m benchmarks.compression.digits [--seeds 0 1 2]

Every seed trains a run of its own and compresses it by the recipe `small`. Promised: at least 4 times fewer bytes and
2 times the speed of the float32 export, at a loss of more than 0.5 points excluded, in under 5 minutes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

COLUMNS = ["variant", "bytes", "times_smaller", "latency_ms_p50", "times_faster", "times_faster_p10"]
COLUMNS += ["score", "low", "high", "difference", "difference_low", "p_value", "verdict"]


def main() -> None:
    """Print the comparison of every seed, and whether a file keeps the promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for seed in parser.parse_args().seeds:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "digits"
            _pipeline("train", "digits", f"train.seed={seed}", "--run", run)
            start = time.perf_counter()
            _pipeline("compress", run, "--recipe", "small")
            seconds = time.perf_counter() - start
            table = pd.read_csv(f"{run}-small/export/compression.csv")
        print(f"\nseed {seed}: compressed, evaluated and exported in {seconds:.0f} s (< 300)")
        print(table[COLUMNS].round(4).to_string(index=False))
        kept = table[(table["times_smaller"] >= 4) & (table["times_faster_p10"] >= 2) & (table["verdict"] == "ok")]
        print("4 times smaller, 2 times faster, not inferior:", ", ".join(kept["variant"]) or "none", flush=True)


def _pipeline(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "pipeline", *map(str, arguments)], check=True, capture_output=True)


if __name__ == "__main__":
    main()
