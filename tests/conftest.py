"""What every test shares: quiet output, the fake processors that distribution tests need, and what needs a browser."""

import shutil
from collections import Counter

import pytest

import pipeline  # noqa: F401  sets TensorFlow's environment before any test imports it

_NEEDED = {"node": "node", "npm": "npm", "Chromium": "chromium"}


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
