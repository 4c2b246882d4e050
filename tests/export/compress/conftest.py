"""Mark the full-size keras.applications: they take half an hour and are asked for by name."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/export/compress" in item.path.as_posix() and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.applications)
