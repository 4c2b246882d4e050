import numpy as np

from pipeline.export.compress.patterns import read_pattern


def test_the_smallest_by_hand():
    kept = read_pattern("unstructured").keep(np.array([[3.0, -1.0], [1.0, 2.0]]), 0.5)
    np.testing.assert_array_equal(kept, [[True, False], [False, True]])
    # Of equal ones the first go: the count is exact.
    assert read_pattern("unstructured").keep(np.ones((4, 5)), 0.3).sum() == 14


def test_n_of_m_by_hand():
    weights = np.array([[0.1, -3.0, 2.0, 0.2], [4.0, 3.0, 2.0, 1.0]])
    kept = read_pattern("1:4").keep(weights, 0.75)
    np.testing.assert_array_equal(kept, [[False, True, False, False], [True, False, False, False]])
    kept = read_pattern("1:4").keep(weights, 0.5)  # half-way of a schedule
    np.testing.assert_array_equal(kept, [[False, True, True, False], [True, True, False, False]])


def test_blocks_by_hand():
    weights = np.array([[1.0, 1.0, 9.0], [1.0, 2.0, 9.0], [5.0, 5.0, 0.0]])  # outputs x inputs
    kept = read_pattern("2x2").keep(weights, 0.5)  # means 1.25, 9, 5, 0: two go
    np.testing.assert_array_equal(kept, [[False, False, True], [False, False, True], [True, True, False]])
