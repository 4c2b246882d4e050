import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Keras 3.15 saves TensorFlow variables through np.array(x), which NumPy 2 finds old-fashioned.
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))
