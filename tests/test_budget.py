"""Budgets in words."""

import pytest

from pipeline.budget import Budget
from pipeline.errors import UserError


def test_a_budget_is_read_with_its_units():
    budget = Budget.parse("size<60kB, latency<0.4ms, drop<0.5pp")
    assert budget == Budget(size=60_000, latency=0.4, drop=0.5)
    assert str(budget) == "size < 60,000 B, latency < 0.4 ms, drop < 0.5 pp"
    assert Budget.parse(" SIZE <= 1.5 MiB") == Budget(size=1.5 * 2**20)
    assert Budget.parse("latency<250us").latency == pytest.approx(0.25)


def test_what_it_allows():
    budget = Budget.parse("size<1kB,drop<0.5pp")
    assert budget.allows(size=999, latency=1e9)
    assert not budget.allows(size=1000, latency=0)
    assert not budget.allows(size=1, latency=0, drop=0.5)
    assert budget.allows(size=1, latency=0, drop=-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size<60furlong", r"the budget's size has the unit 'furlong'; choose from B, kB, KiB, MB, MiB"),
        ("size<60", r"the budget's size has the unit ''; choose from"),
        ("drop<0.5%", r"the budget's drop has the unit '%'; choose from pp"),
        ("sizes<60kB", r"a budget has no 'sizes'; did you mean 'size'"),
        ("size>60kB", r"the budget has 'size>60kB'; write it like"),
        ("", r"the budget has ''; write it like"),
        ("size<1kB, size<2kB", r"the budget gives size twice"),
    ],
)
def test_wrong_budgets_are_named(text: str, message: str):
    with pytest.raises(UserError, match=message) as caught:
        Budget.parse(text)
    assert caught.value.usage
