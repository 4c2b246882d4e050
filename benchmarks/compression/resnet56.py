"""CIFAR-10 with a ResNet-56, pruned to less than half of its time: the pruned run's files beside the original's.

    python -m benchmarks.compression.resnet56 DATA FOLDER [--epochs 15] [--tuning 24] [--teacher RUN]

DATA holds train/<class>/*.jpg and test/<class>/*.jpg. Everything is kept in FOLDER; what is there is not made again.
Pruning begins again with as much training as there was before, as it does in the papers: some of what it wins back
the original would have won in these epochs, too. docs/compression.md has what came of it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

COLUMNS = ["variant", "bytes", "latency_ms_p50", "times_faster", "times_faster_p10", "times_faster_p90"]
COLUMNS += ["score", "low", "high", "n", "difference", "p_value", "verdict"]


def main() -> None:
    """Make what is missing, then print a table of files that answered the same images and were timed together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the trainings, such as train.precision=mixed_bfloat16")
    parser.add_argument("--epochs", type=int, default=15, help="of the original")
    parser.add_argument("--tuning", type=int, default=24, help="epochs after half of the channels left")
    parser.add_argument("--teacher", help="a run or Keras file to learn from meanwhile; the original if not given")
    arguments = parser.parse_args()
    base, pruned = arguments.folder / "base", arguments.folder / ("taught" if arguments.teacher else "pruned")
    settings = [
        *("model=resnet56", f"data.source.path={arguments.data}", "train.optimizer.weight_decay=3.0e-3"),
        *("train.keep=last", "export.variants=[float32, int8]", *arguments.overrides),
    ]
    stage = {"ratio": 0.5, "importance": "taylor", "epochs": arguments.tuning, "learning_rate": 0.1}
    channels = [f"compress.channels.{key}={value}" for key, value in stage.items()]
    if arguments.teacher:
        channels.append(f"compress.distill.teacher={arguments.teacher}")
    run("train", "cifar10_folder", *settings, f"train.epochs={arguments.epochs}", "--run", base)
    run("eval", base)
    run("compress", base, "--distill", *channels, "--out", pruned)
    print(pd.read_csv(pruned / "export" / "compression.csv")[COLUMNS].round(5).to_string(index=False))


def run(*command: object) -> None:
    """Run a command of the pipeline, and stop where it fails."""
    subprocess.run([sys.executable, "-m", "pipeline", *map(str, command)], check=True)


if __name__ == "__main__":
    main()
