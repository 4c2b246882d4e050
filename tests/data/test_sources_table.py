"""Tables of images and labels: CSV, TSV and Parquet, and one sentence for each that cannot be used."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.registry import SOURCES


def table(path, **options):
    return SOURCES.build("table", path=str(path), **options)


def counts(source):
    return {name: split.count for name, split in source.splits.items()}


def ids(split):
    return [sample["id"].numpy().decode() for sample in split.dataset()]


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "pictures").mkdir()
    for index in range(10):
        Image.new("L", (8, 6), index).save(tmp_path / "pictures" / f"{index}.png")
    return pd.DataFrame(
        {
            "path": [f"pictures/{index}.png" for index in range(10)],
            "label": ["NA", "007"] * 5,
            "split": ["train"] * 6 + ["val"] * 2 + ["Test"] * 2,
        }
    )


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_columns(rows, kind, tmp_path):
    path = tmp_path / f"table.{kind}"
    if kind == "parquet":
        rows.to_parquet(path)
    else:
        rows.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    source = table(path)
    assert source.classes == ("007", "NA")
    assert counts(source) == {"train": 6, "validation": 2, "test": 2}
    assert source.splits["train"].labels.tolist() == [1, 0] * 3
    assert ids(source.splits["test"]) == ["pictures/8.png", "pictures/9.png"]


def test_other_column_names_and_no_split(rows, tmp_path):
    renamed = rows.drop(columns="split").rename(columns={"path": "file", "label": "kind"})
    renamed.to_csv(tmp_path / "t.csv", index=False)
    source = table(tmp_path / "t.csv", image_column="file", label_column="kind", test=0.4)
    assert counts(source) == {"train": 6, "test": 4}
    assert np.bincount(source.splits["test"].labels).tolist() == [2, 2]


def test_byte_order_mark_of_a_spreadsheet(rows, tmp_path):
    rows.to_csv(tmp_path / "t.csv", index=False, encoding="utf-8-sig")
    assert counts(table(tmp_path / "t.csv")) == {"train": 6, "validation": 2, "test": 2}


def test_integer_labels_sort_by_value(rows, tmp_path):
    rows["label"] = [2, 10] * 5
    rows.to_parquet(tmp_path / "t.parquet")
    assert table(tmp_path / "t.parquet").classes == ("2", "10")


def test_integer_labels_that_are_equal_have_one_order(rows, tmp_path):
    rows["label"] = ["1", "01"] * 5
    rows.to_parquet(tmp_path / "t.parquet")
    assert table(tmp_path / "t.parquet").classes == ("01", "1")


def test_a_comma_too_many_in_each_row(rows, tmp_path):
    head, *lines = rows.to_csv(index=False).splitlines()
    (tmp_path / "t.csv").write_text("\n".join([head, *(f"{line}," for line in lines)]))
    with pytest.raises(UserError, match=r"t\.csv cannot be read as CSV: rows have more cells than the header"):
        table(tmp_path / "t.csv")


def test_absolute_path_inside_the_folder(rows, tmp_path):
    rows["path"] = [str(tmp_path / path) for path in rows["path"]]
    rows.to_csv(tmp_path / "t.csv", index=False)
    assert ids(table(tmp_path / "t.csv").splits["test"]) == ["pictures/8.png", "pictures/9.png"]


def test_missing_images_are_refused(rows, tmp_path):
    (tmp_path / "pictures" / "2.png").unlink()
    rows.to_csv(tmp_path / "t.csv", index=False)
    split = table(tmp_path / "t.csv").splits["train"]
    assert split.refused == {"pictures/2.png": "does not exist"}
    assert split.labels.tolist() == [1, 0, 0, 1, 0]
    assert split.count == 5


@pytest.mark.parametrize("how", ["up", "absolute", "through a link", "link"])
def test_paths_that_leave_the_folder(rows, tmp_path, how):
    inside = tmp_path / "set"
    inside.mkdir()
    (tmp_path / "pictures").rename(inside / "pictures")
    shutil.copytree(inside / "pictures", tmp_path / "secret")
    (inside / "other").symlink_to(tmp_path / "secret")
    (inside / "x.png").symlink_to(tmp_path / "secret" / "1.png")
    bad = {
        "up": "../../etc/passwd",
        "absolute": "/etc/passwd",
        "through a link": "other/1.png",
        "link": "x.png",
    }[how]
    rows.loc[4, "path"] = bad
    rows.to_csv(inside / "t.csv", index=False)
    check(inside / "t.csv", rf"t\.csv, row 5: '{bad}' leaves the table's folder; images must lie below it\.")


def test_label_that_train_lacks(rows, tmp_path):
    rows.loc[9, "label"] = "zebra"
    rows.to_csv(tmp_path / "t.csv", index=False)
    check(tmp_path / "t.csv", r"t\.csv, row 10: the test label 'zebra' is not in train\.")


@pytest.mark.parametrize(
    ("options", "missing"),
    [({"label_column": "kind"}, "kind"), ({"image_column": "file"}, "file"), ({"split_column": "part"}, "part")],
)
def test_missing_column(rows, tmp_path, options, missing):
    rows.to_csv(tmp_path / "t.csv", index=False)
    message = rf"t\.csv has no column '{missing}'; its columns are 'path', 'label', 'split'\."
    check(tmp_path / "t.csv", message, **options)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (2, "split", "holdout", r"row 3: 'holdout' is no split; write train, validation or test\."),
        (3, "label", " ", r"row 4: the label is empty\."),
        (3, "path", "", r"row 4: '' is no path of an image\."),
        (5, "path", "./pictures/2.png", r"row 6: the image 'pictures/2\.png' already stands in row 3\."),
    ],
)
def test_bad_cells(rows, tmp_path, row, column, value, message):
    rows.loc[row, column] = value
    rows.to_csv(tmp_path / "t.csv", index=False)
    check(tmp_path / "t.csv", message)


def test_one_class(rows, tmp_path):
    rows["label"] = "cat"
    rows.to_csv(tmp_path / "t.csv", index=False)
    check(tmp_path / "t.csv", r"t\.csv holds one class, 'cat'; at least two are needed\.")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x81" * 20], ids=["empty", "binary"])
def test_unreadable_table(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    kind = name.rpartition(".")[2].upper()
    check(tmp_path / name, rf"{name} cannot be read as {kind}: ")


def test_missing_table(tmp_path):
    check(tmp_path / "t.csv", r"the table .*t\.csv does not exist; set data\.source\.path\.")


def test_table_without_rows(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\n")
    check(tmp_path / "t.csv", r"t\.csv has no rows\.")


def check(path, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        table(path, **options)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def several(rows, tmp_path, columns, **changes):
    rows.assign(**{"shape": ["disc", "bar"] * 5, "size": ["10", "9"] * 5} | changes).to_csv(
        tmp_path / "t.csv", index=False
    )
    return table(tmp_path / "t.csv", label_column=columns)


def test_several_columns_of_labels(rows, tmp_path):
    source = several(rows, tmp_path, ["shape", "size"])
    assert source.classes == ("shape=bar", "shape=disc", "size=9", "size=10")
    assert source.fields == {"labels"}
    samples = [sample["labels"].numpy().tolist() for sample in source.splits["train"].dataset()]
    assert samples == [[1, 1], [0, 0]] * 3
    assert source.splits["train"].labels is None
    assert counts(source) == {"train": 6, "validation": 2, "test": 2}


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        (["shape", "colour"], {}, r"t\.csv has no column 'colour'; its columns are 'path', 'label', 'split', 'shape'"),
        (["shape", "size"], {"size": "9"}, r"holds one class as 'size' label, '9'; at least two are needed"),
        (["shape", "size"], {"size": [""] + ["1", "2", "3"] * 3}, r"row 1: the 'size' label is empty"),
        (["shape", "size"], {"size": ["1", "2"] * 4 + ["3", "1"]}, r"row 9: the test 'size' label '3' is not in train"),
        (["shape", "shape"], {}, "names a column twice, or none"),
        ([], {}, "names a column twice, or none"),
        (["shape", "a=b"], {"a=b": ["1", "2"] * 5}, "the column 'a=b' cannot name a head: use letters, digits"),
    ],
)
def test_columns_that_cannot_be_heads(rows, tmp_path, columns, changes, message):
    with pytest.raises(UserError, match=message):
        several(rows, tmp_path, columns, **changes)
