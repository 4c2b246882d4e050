"""What every test shares: the order of running, quiet output, and what needs a browser."""

import os
import shutil
from collections import Counter

import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # bit for bit, and what `auto` chooses, are of the CPU

import pipeline  # noqa: F401  sets TensorFlow's environment before any test imports it

# Folders and files whose tests take longest. A worker that has none left takes them from the end of another's list
# (--dist worksteal), so that what comes last should be short; tests that share a fixture stay together.
_FIRST = (
    *("tests/test_readme.py", "tests/test_notebooks.py", "tests/export/compress", "tests/test_cli.py"),
    *("tests/training/test_resume.py", "tests/training/test_distribution.py", "tests/studies", "tests/export"),
)
_NEEDED = {"node": "node", "npm": "npm", "Chromium": "chromium"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first."""
    items.sort(key=lambda item: next((i for i, name in enumerate(_FIRST) if item.nodeid.startswith(name)), len(_FIRST)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out tests marked `browser` where their programs are missing."""
    missing = [name for name, command in _NEEDED.items() if shutil.which(command) is None]
    if missing and item.get_closest_marker("browser"):
        pytest.skip(f"{' and '.join(missing)} missing; on Debian: apt-get install nodejs npm chromium")


def pytest_terminal_summary(terminalreporter) -> None:
    """Say in one line for each reason how many tests were left out, and how to have them."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.items():
        terminalreporter.write_line(f"not run: {count} tests: {reason}")


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Call the command line in this process; return the exit code, stdout and stderr."""
    from pipeline.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pipeline", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return (code, *capsys.readouterr())

    return call
