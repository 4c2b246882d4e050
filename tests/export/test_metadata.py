"""What a file says of itself is read back equal, and its weights stay where kernels expect them."""

import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.interpreter import LiteModel
from pipeline.export.metadata import Facts, describe
from pipeline.export.metadata_schema import pack, unpack

FACTS = Facts("small", ("cat", "dog", "Größe 7", ""), (16, 16), 3, masks=False)


def starts(content: bytes) -> list[int]:
    """Return where each non-empty buffer of a file begins."""
    model = schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    return [one._tab.Vector(one._tab.Offset(4)) for one in buffers if one.DataLength()]


@pytest.mark.parametrize("variant", ["float32", "float16", "dynamic", "int8", "uint8", "int16x8", "w4a8"])
def test_every_variant_says_what_it_is_and_answers_as_before(variants, images, variant):
    content = describe(variants[variant], FACTS)
    assert Facts.read(content) == FACTS
    np.testing.assert_array_equal(
        LiteModel(content).predict(images[:4]), LiteModel(variants[variant]).predict(images[:4])
    )
    assert not any(start % 16 for start in starts(content)), "a buffer is not aligned to 16 bytes"


def test_the_same_facts_give_the_same_bytes(float_file):
    assert describe(float_file, FACTS) == describe(float_file, FACTS)
    again = describe(describe(float_file, FACTS), FACTS)
    assert Facts.read(again) == FACTS
    assert len(flatbuffer.read(again).metadata) == len(flatbuffer.read(describe(float_file, FACTS)).metadata)


def test_labels_lie_uncompressed_behind_the_model(float_file, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(describe(float_file, FACTS))
    with zipfile.ZipFile(path) as archive:
        [entry] = archive.infolist()
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(entry).decode() == "cat\ndog\nGröße 7\n"


def test_masks_and_grey_pictures_are_read_back(float_file):
    facts = Facts("unet", ("road", "sky"), (64, 96), 1, masks=True)
    assert Facts.read(describe(float_file, facts)) == facts


def test_a_file_without_metadata_or_labels_is_refused(float_file):
    with pytest.raises(UserError, match="no TFLite metadata"):
        Facts.read(float_file)
    content = describe(float_file, FACTS)
    with pytest.raises(UserError, match=r"labels that the metadata names \(labels.txt\) are not in the file"):
        Facts.read(content[: content.rindex(b"PK\x03\x04")])


def test_another_normalisation_is_refused(float_file):
    content = describe(float_file, FACTS)
    one = np.float32(1.0).tobytes()
    # The vector [1.0] of std: its length, then its value.
    faulty = content.replace(b"\x01\0\0\0" + one, b"\x01\0\0\0" + np.float32(127.5).tobytes())
    assert faulty != content
    with pytest.raises(UserError, match="asks for the normalisation"):
        Facts.read(faulty)


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)


@given(st.fixed_dictionaries({"name": texts, "min_parser_version": texts}), st.lists(st.floats(width=32), max_size=4))
def test_packing_is_undone_by_unpacking(values, numbers):
    values["subgraph_metadata"] = [{"output_tensor_metadata": [{"stats": {"min": numbers}}, {"name": "b"}]}]
    found = unpack("ModelMetadata", pack("ModelMetadata", values, b"M001"))
    [first, second] = found["subgraph_metadata"][0]["output_tensor_metadata"]
    np.testing.assert_array_equal(first["stats"]["min"], np.float32(numbers))
    assert second == {"name": "b"}
    assert {key: found[key] for key in ("name", "min_parser_version")} == {
        key: values[key] for key in ("name", "min_parser_version")
    }
