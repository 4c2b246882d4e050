"""What every test shares: quiet output, the fake processors that distribution tests need, and what needs a browser."""

import shutil

import pytest

import pipeline  # noqa: F401  sets TensorFlow's environment before any test imports it

_NEEDED = {"node": "node", "npm": "npm", "Chromium": "chromium"}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out tests marked `browser` where their programs are missing."""
    missing = [name for name, command in _NEEDED.items() if shutil.which(command) is None]
    if missing and item.get_closest_marker("browser"):
        pytest.skip(f"{' and '.join(missing)} missing; on Debian: apt-get install nodejs npm chromium")


def pytest_terminal_summary(terminalreporter) -> None:
    """Say in one line which tests were left out for want of a browser, and how to have them."""
    left_out = [report for report in terminalreporter.stats.get("skipped", ()) if "browser" in report.keywords]
    if left_out:
        reason = left_out[0].longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(f"not run: {len(left_out)} tests of the demo in a browser ({reason})")
