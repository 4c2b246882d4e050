"""Time and memory of .tflite files on the real runtime, each in a process of its own without TensorFlow.

    python -m pipeline.export.latency FILE --threads 1 --runs 200

prints JSON: milliseconds per image (p10, p50, p90), and the peak memory of the process in MiB: all that was ever
resident at once, with the Python interpreter, NumPy and the runtime, which are some 50 MiB of it.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from pipeline.errors import UserError
from pipeline.export.interpreter import LiteModel

ROUNDS = 7
SECONDS_PER_ROUND = 0.1
SECONDS_PER_FILE = 4.0  # a file whose single run takes longer than a round gets fewer rounds
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Latency:
    """Milliseconds per image, as quantiles over all runs, and the medians of the rounds they were taken in."""

    threads: int
    p10: float
    p50: float
    p90: float
    memory_mb: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, threads: int, rounds: Sequence[np.ndarray], memory_mb: float) -> Self:
        """Summarise rounds of milliseconds."""
        p10, p50, p90 = np.percentile(np.concatenate(rounds), (10, 50, 90)).tolist()
        return cls(threads, p10, p50, p90, memory_mb, tuple(float(np.median(times)) for times in rounds))


def measure(path: Path, threads: int = 1) -> Latency:
    """Time one file in a process of its own."""
    return measure_all([path], (threads,))[path, threads]


def measure_all(paths: Sequence[Path], threads: Sequence[int] = (1, 2)) -> dict[tuple[Path, int], Latency]:
    """Time files in rounds that alternate between them, so that a busy spell of the machine falls on all alike."""
    measured: dict[tuple[Path, int], Latency] = {}
    for count in threads:
        processes: list[_Process] = []
        try:
            processes.extend(_Process(path, count) for path in paths)
            for process in processes:
                process.warm_up()
            for _ in range(ROUNDS):
                for process in processes:
                    process.round()
            measured |= {(path, count): process.latency() for path, process in zip(paths, processes, strict=True)}
        finally:
            for process in processes:
                process.close()
    return measured


class _Process:
    """A process that holds one loaded file, and runs it as often as each line of its input says."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(path.resolve()), "--threads", str(threads), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_ROOT,  # so that `-m` finds this package, installed or not
        )
        self._rounds: list[np.ndarray] = []
        self._memory_mb = 0.0
        self._runs = 1

    def warm_up(self) -> None:
        """Run twice, as the first run allocates, and choose how many runs make a round."""
        self._run(1)
        self._runs = int(np.clip(1e3 * SECONDS_PER_ROUND / self._run(1)[0], 1, 5000))

    def round(self) -> None:
        """Run for about SECONDS_PER_ROUND, unless this file has had its time."""
        spent = sum(times.sum() for times in self._rounds) / 1e3
        if len(self._rounds) < 3 or spent < SECONDS_PER_FILE:
            self._rounds.append(self._run(self._runs))

    def latency(self) -> Latency:
        """Summarise what was measured."""
        return Latency.of(self._threads, self._rounds, self._memory_mb)

    def close(self) -> None:
        """End the process: it stops where its input ends."""
        self._process.communicate()

    def _run(self, runs: int) -> np.ndarray:
        try:
            self._process.stdin.write(f"{runs}\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            self._process.kill()
            reason = self._process.stderr.read().strip().rpartition("\n")[2]
            raise UserError(f"{self._path} could not be measured: {reason or 'its process died'}") from None
        self._memory_mb = answer["memory_mb"]
        return np.array(answer["ms"])


def peak_memory_mb() -> float:
    """Return the most memory that this process ever had resident, MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: a process inherits it from the one that started it, TensorFlow and all.
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _time(model: LiteModel, runs: int) -> np.ndarray:
    milliseconds = np.empty(runs)
    for i in range(runs):
        start = time.perf_counter()
        model.invoke()
        milliseconds[i] = 1e3 * (time.perf_counter() - start)
    return milliseconds


def main() -> None:
    """Time the file of the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--serve", action="store_true", help="answer each line of stdin, a number of runs")
    arguments = parser.parse_args()
    try:
        model = LiteModel.open(arguments.file, threads=arguments.threads)
    except UserError as error:
        sys.exit(str(error))
    noise = np.random.default_rng(0).integers(0, 256, model.input.shape)
    model.set_image(model.input.store(noise.astype(np.float32)))
    if arguments.serve:
        for line in sys.stdin:
            milliseconds = _time(model, int(line)).tolist()
            print(json.dumps({"ms": milliseconds, "memory_mb": peak_memory_mb()}), flush=True)
    else:
        _time(model, 5)
        times = _time(model, arguments.runs)
        print(json.dumps(asdict(Latency.of(arguments.threads, [times], peak_memory_mb()))))


if __name__ == "__main__":
    main()
