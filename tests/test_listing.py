"""What can be named is listed, and models are counted, not described from memory."""

import pytest

from pipeline import listing
from pipeline.errors import UserError
from pipeline.registry import MODELS


def test_every_kind_is_listed_without_building_anything():
    tables = listing.tables()
    assert set(tables) == {
        "sources", "augmentations", "models", "tasks", "optimizers", "schedules", "recipes", "presets",
        "compressions",
    }  # fmt: skip
    assert list(tables["models"]["name"]) == MODELS.names()
    assert "width=16" in tables["models"].set_index("name").loc["resnet20", "options"]


def test_names_are_sorted_by_their_numbers():
    names = MODELS.names()
    assert names.index("resnet8") < names.index("resnet14") < names.index("resnet101")


def test_unknown_kind_is_refused():
    with pytest.raises(UserError, match="did you mean 'sources'"):
        listing.tables("source")


def test_models_are_counted(monkeypatch):
    """Some of them here: that all can be is shown by the README's test."""
    monkeypatch.setattr(MODELS, "names", lambda: ["applications:VGG16", "lenet5", "resnet50"])
    table = listing.tables("models")["models"].set_index("name")
    assert list(table.index) == ["lenet5", "resnet50"]
    assert table.loc["resnet50", "parameters"] == 25_610_152
    assert table.loc["lenet5", "MACs (M)"] == pytest.approx(0.4165, abs=1e-3)
