"""Keras files of any origin are a model, or one sentence."""

import keras
import pytest

from pipeline.errors import UserError
from pipeline.models.files import load_model_file
from pipeline.registry import MODELS

DAMAGES = [lambda whole: b"", lambda whole: whole[:-40], lambda whole: whole.replace(b"PK\1\2", b"PK\0\0")]


@pytest.mark.parametrize("damage", DAMAGES, ids=["empty", "cut short", "no directory"])
def test_a_damaged_file_is_named_with_its_mend(tmp_path, damage):
    path = tmp_path / "model.keras"
    MODELS.build("lenet5").save(path)
    assert isinstance(load_model_file(path, ""), keras.Model)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"model\.keras cannot be read as a Keras model \(.+\); train it again$"):
        load_model_file(path, "train it again")
