"""How fast the command line answers when there is nothing to train: python -m benchmarks.startup."""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "pipeline --help": ["--help"],
    "a rejected experiment": ["train", "digits", "train.optimizer.learning_rate=fast"],
    "an unknown model": ["train", "digits", "model.name=resnet21"],
}
TARGET = 0.7  # seconds
ROUNDS = 7


def seconds(arguments: list[str]) -> float:
    """Return the wall time of one command in a process of its own."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    """Print the median of several rounds for each command."""
    print(f"{'command':<24} {'median s':>9} {'worst s':>9}   target < {TARGET} s")
    for name, arguments in COMMANDS.items():
        times = [seconds(arguments) for _ in range(ROUNDS)]
        print(f"{name:<24} {statistics.median(times):>9.2f} {max(times):>9.2f}")


if __name__ == "__main__":
    main()
