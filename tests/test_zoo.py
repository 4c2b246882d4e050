"""The table of the zoo is made in pieces, and says what was not measured."""

import re

import numpy as np
import pytest

from benchmarks import zoo
from pipeline.registry import MODELS

SIZES = {"large": 4_000_000_000, "middle": 2_000_000, "small": 1_000_000}


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Replace the registry and the measurements by quick ones, which note what they were asked."""
    asked = []

    def stand_in(kind: str, **values):
        def measure(name: str) -> dict:
            asked.append(f"{kind} {name}")
            return values | ({"macs": SIZES[name]} if kind == "count" else {})

        return measure

    monkeypatch.setattr(MODELS, "names", lambda: ["applications:VGG16", *SIZES])
    monkeypatch.setattr(zoo, "count", stand_in("count", input="8×8×1", classes=10, parameters=1234))
    files = {"float32_bytes": 2048, "float32_ms": 0.5, "int8_bytes": 1024, "int8_ms": 0.25, "measured": "an Abacus"}
    monkeypatch.setattr(zoo, "measure_files", stand_in("files", **files))
    digits = {"digits_macs": 9, "accuracy": 0.9, "low": 0.85, "high": 0.95, "n": 899}
    monkeypatch.setattr(zoo, "learn_digits", stand_in("digits", **digits))
    return asked


def test_what_is_measured_is_kept_and_not_measured_again(measured, tmp_path):
    path = tmp_path / "zoo.csv"
    zoo.fill(path, seconds=0)
    assert measured == []
    zoo.fill(path, np.inf)
    assert measured == [
        *("count large", "count middle", "count small"),
        *("files small", "files middle", "files large", "digits small", "digits middle", "digits large"),
    ]
    zoo.fill(path, np.inf)
    assert len(measured) == 9
    table = zoo.read(path)
    table.loc["small", ["float32_bytes", "float32_ms", "int8_bytes", "int8_ms"]] = np.nan
    table.drop("middle").to_csv(path)
    zoo.fill(path, np.inf)
    assert measured[9:] == ["count middle", "files small", "files middle", "digits middle"]


def test_the_page_says_what_was_measured_and_where(measured, tmp_path):
    zoo.fill(tmp_path / "zoo.csv", np.inf)
    table = zoo.read(tmp_path / "zoo.csv")
    table.loc["middle", ["float32_ms", "int8_ms"]] = 1234.5, 0.012345
    table.loc["large", table.columns.difference(["input", "classes", "parameters", "macs"])] = np.nan
    lines = zoo.page(table).splitlines()
    assert lines[-3:] == [
        "| small | 8×8×1 → 10 | 1,234 | 1.0 | 2 | 1 | 0.5 | 0.25 | 90.0 % [85.0, 95.0] |",
        "| middle | 8×8×1 → 10 | 1,234 | 2.0 | 2 | 1 | 1,230 | 0.0123 | 90.0 % [85.0, 95.0] |",
        "| large | 8×8×1 → 10 | 1,234 | 4,000.0 | — | — | — | — | — |",
    ]
    assert "Milliseconds measured on an Abacus." in lines
    assert "899 test images" in "\n".join(lines)


def test_the_committed_page_is_that_of_the_committed_figures():
    table = zoo.read(zoo.TABLE)
    assert zoo.PAGE.read_text(encoding="utf-8") == zoo.page(table)
    assert set(table.index) <= set(MODELS.names())


@pytest.mark.slow
def test_small_members_have_the_committed_counts():
    table = zoo.read(zoo.TABLE).query("parameters < 500_000")
    assert len(table) > 30
    for name, row in table.iterrows():
        found = zoo.count(name)
        assert {key: row[key] for key in found} == found, name


def test_a_small_model_is_counted_exported_and_trained():
    assert zoo.count("lenet5")["parameters"] == 61_706
    files = zoo.measure_files("lenet5")
    assert files["float32_bytes"] > 61_706 * 4 > files["int8_bytes"] > 61_706
    assert min(files["float32_ms"], files["int8_ms"]) > 0
    assert re.fullmatch(r"\d+ cores of an .+ \(.*\), \d+ [A-Z][a-z]+ 20\d\d", files["measured"])
    learned = zoo.learn_digits("lenet5")
    assert learned["n"] == 899
    assert learned["low"] < learned["accuracy"] < learned["high"]
    assert learned["accuracy"] > 0.5
    assert set(zoo.learn_digits("unet")) == set(zoo.learn_digits("resnet50")) == {"digits_macs"}  # dense; too large
