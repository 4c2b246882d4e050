"""A table of images and labels: CSV or Parquet, read with pandas."""

import functools
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data.files import labelled_files
from pipeline.data.source import Source
from pipeline.data.split import SPLIT_NAMES, with_test
from pipeline.errors import UserError
from pipeline.ops.heads import class_of
from pipeline.registry import SOURCES, Fraction


@SOURCES.register
def table(
    *,
    path: str,
    image_column: str = "path",
    label_column: str | list[str] = "label",
    split_column: str | None = None,
    test: Fraction = 0.2,
) -> Source:
    """A CSV or Parquet table with a column of image paths, one or more of labels and, if you like, one of splits.

    Paths are relative to the table's folder and may not leave it. Without test rows, validation rows serve as test;
    without either, a fraction of train does, the same in every run. Labels are sorted, by value if all are integers.

    Args:
        label_column: a list of columns gives each image as many labels; its classes are then called `column=label`.
        split_column: holds train, val(idation) or test; without it a column named "split" is used if there is one.
        test: the share of images kept for test where no row says test or validation; 1 is all of them.
    """
    file = Path(path).expanduser()
    rows = _read(file)
    if split_column is None and "split" in rows:
        split_column = "split"
    columns = [label_column] if isinstance(label_column, str) else label_column
    _require_heads(label_column)
    for column in [image_column, *columns, *([split_column] if split_column else [])]:
        if column not in rows:
            raise UserError(f"{file} has no column {column!r}; its columns are {', '.join(map(repr, rows.columns))}.")
    splits = [_split_name(file, *cell) for cell in rows[split_column].items()] if split_column else "train"
    root, real_folder = file.resolve().parent, functools.cache(os.path.realpath)
    images = [_inside(file, root, real_folder, *cell) for cell in rows[image_column].items()]
    table = pd.DataFrame({"image": images, "split": splits}, rows.index)
    _require_distinct(file, table)
    names = {
        column: _classes(file, table.assign(label=rows[column]), _called(column, label_column)) for column in columns
    }
    labels = np.stack(
        [rows[column].map({name: i for i, name in enumerate(names[column])}) for column in columns], axis=1
    )
    one = isinstance(label_column, str)
    parts = {}
    for name in ("train", "validation", "test"):
        chosen = (table["split"] == name).to_numpy()
        if chosen.any():
            theirs = labels[chosen, 0] if one else labels[chosen]
            parts[name] = labelled_files(root, table["image"][chosen].tolist(), theirs.tolist())
    if one:
        return Source(tuple(names[label_column]), frozenset({"label"}), with_test(parts, test))
    classes = tuple(class_of(column, name) for column in columns for name in names[column])
    return Source(classes, frozenset({"labels"}), with_test(parts, test))


def _require_heads(columns: str | list[str]) -> None:
    """Raise UserError unless the columns of several labels can give their names to heads."""
    if isinstance(columns, str):
        return
    if not columns or len(set(columns)) < len(columns):
        raise UserError("data.source.label_column names a column twice, or none; name each column of labels once.")
    for column in columns:
        if not re.fullmatch(r"[\w -]+", column):
            raise UserError(
                f"the column {column!r} cannot name a head: use letters, digits, '_', '-' and spaces alone."
            )


def _called(column: str, label_column: str | list[str]) -> str:
    return "label" if column == label_column else f"{column!r} label"


def _read(file: Path) -> pd.DataFrame:
    """Read all cells as text, rows numbered from 1."""
    if not file.is_file():
        raise UserError(f"the table {file} does not exist; set data.source.path.")
    kind = file.suffix.lstrip(".").upper() or "CSV"
    try:
        if kind == "PARQUET":
            rows = pd.read_parquet(file).astype("string").fillna("").astype(object)
        else:
            rows = _read_text(file, "\t" if kind == "TSV" else ",")
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parsers raise kinds of ValueError
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"{file} cannot be read as {kind}: {reason}.") from None
    if rows.empty:
        raise UserError(f"{file} has no rows.")
    return rows.set_axis(range(1, len(rows) + 1))


def _read_text(file: Path, separator: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:  # a class may be called NA, or 007
            return pd.read_csv(file, dtype=str, keep_default_na=False, index_col=False, sep=separator)
        except pd.errors.ParserWarning:  # without index_col pandas would take the first column for row names
            raise ValueError("rows have more cells than the header; quote cells that hold a comma") from None


def _split_name(file: Path, row: int, value: str) -> str:
    split = SPLIT_NAMES.get(value.strip().lower())
    if split is None:
        raise UserError(f"{file}, row {row}: {value!r} is no split; write train, validation or test.")
    return split


def _inside(file: Path, root: Path, real_folder: Callable[[str], str], row: int, path: str) -> str:
    """Return the path relative to the table's folder, links resolved. Raises UserError when it leaves the folder."""
    if not path.strip() or "\0" in path:
        raise UserError(f"{file}, row {row}: {path!r} is no path of an image.")
    folder, name = os.path.split(root / path)
    real = os.path.join(real_folder(folder), name)
    if name == ".." or os.path.islink(real):
        real = os.path.realpath(real)
    prefix = os.path.join(root, "")
    if not real.startswith(prefix):
        raise UserError(f"{file}, row {row}: {path!r} leaves the table's folder; images must lie below it.")
    return real.removeprefix(prefix)


def _require_distinct(file: Path, rows: pd.DataFrame) -> None:
    twice = rows.index[rows["image"].duplicated()]
    if len(twice):
        first = rows.index[rows["image"] == rows["image"][twice[0]]][0]
        raise UserError(f"{file}, row {twice[0]}: the image {rows['image'][first]!r} already stands in row {first}.")


def _classes(file: Path, rows: pd.DataFrame, called: str) -> list[str]:
    """Return the labels of train, sorted. Raises UserError for one class, and for a label that train does not have.

    `called` is what messages call such a label.
    """
    unlabelled = rows.index[rows["label"].str.strip() == ""]
    if len(unlabelled):
        raise UserError(f"{file}, row {unlabelled[0]}: the {called} is empty.")
    trained = set(rows["label"][rows["split"] == "train"]) or set(rows["label"])
    unknown = rows[~rows["label"].isin(trained)]
    if len(unknown):
        first = unknown.iloc[0]
        raise UserError(
            f"{file}, row {unknown.index[0]}: the {first['split']} {called} {first['label']!r} is not in train."
        )
    if len(trained) < 2:
        where = "" if called == "label" else f" as {called}"
        raise UserError(f"{file} holds one class{where}, {min(trained)!r}; at least two are needed.")
    return (
        sorted(trained, key=lambda label: (int(label), label))
        if all(_is_integer(label) for label in trained)
        else sorted(trained)
    )


def _is_integer(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit()
