"""How fast the command line answers when there is nothing to train: python -m benchmarks.startup."""

import statistics
import subprocess
import sys
import time

COMMANDS = {  # with the exit code of each
    "pipeline --help": (["--help"], 0),
    "a rejected experiment": (["train", "digits", "train.optimizer.learning_rate=fast"], 2),
    "an unknown model": (["train", "digits", "model.name=resnet21"], 2),
}
TARGET = 0.7  # seconds
ROUNDS = 7


def seconds(arguments: list[str], code: int) -> float:
    """Return the wall time of one command in a process of its own, which must end with `code`."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, check=False)
    took = time.perf_counter() - start
    if done.returncode != code:
        raise RuntimeError(f"pipeline {arguments} ended with {done.returncode}:\n{done.stderr.decode()[-400:]}")
    return took


def main() -> None:
    """Print the median of several rounds for each command."""
    print(f"{'command':<24} {'median s':>9} {'worst s':>9}   target < {TARGET} s")
    for name, (arguments, code) in COMMANDS.items():
        times = [seconds(arguments, code) for _ in range(ROUNDS)]
        print(f"{name:<24} {statistics.median(times):>9.2f} {max(times):>9.2f}")


if __name__ == "__main__":
    main()
