"""Run the benchmarks that need no data and no hour, in turns: python -m benchmarks.run [--torch-python PATH]."""

import argparse
import subprocess
import sys

# Those that measure PyTorch too are told which interpreter has it: it is never installed beside TensorFlow.
BENCHMARKS = {"startup": False, "main_job": False, "input": True, "training": True}


def main() -> None:
    """Run them in order and stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", help="an interpreter that can import torch; without it PyTorch is left out")
    torch_python = parser.parse_args().torch_python
    for name, knows_torch in BENCHMARKS.items():
        print(f"\n== {name}", flush=True)
        extra = ["--torch-python", torch_python] if knows_torch and torch_python else []
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *extra], check=True)


if __name__ == "__main__":
    main()
