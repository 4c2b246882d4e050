"""A table of images and labels: CSV or Parquet, read with pandas."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from pipeline.data.files import labelled_files
from pipeline.data.source import Source
from pipeline.data.split import SPLIT_NAMES, with_test
from pipeline.errors import UserError
from pipeline.registry import SOURCES, Fraction


@SOURCES.register
def table(
    *,
    path: str,
    image_column: str = "path",
    label_column: str = "label",
    split_column: str | None = None,
    test: Fraction = 0.2,
) -> Source:
    """A CSV or Parquet table with a column of image paths, one of labels and, if you like, one of splits.

    Paths are relative to the table's folder and may not leave it. Without test rows, validation rows serve as test;
    without either, a fraction of train does, the same in every run. Labels are sorted, by value if all are integers.

    Args:
        split_column: holds train, val(idation) or test; without it a column named "split" is used if there is one.
        test: the share of images kept for test where no row says test or validation; 1 is all of them.
    """
    file = Path(path).expanduser()
    rows = _read(file)
    if split_column is None and "split" in rows:
        split_column = "split"
    wanted = [image_column, label_column, *([split_column] if split_column else [])]
    for column in wanted:
        if column not in rows:
            raise UserError(f"{file} has no column {column!r}; its columns are {', '.join(map(repr, rows.columns))}.")
    rows = rows[wanted].set_axis(["image", "label", "split"][: len(wanted)], axis=1)
    rows["split"] = [_split_name(file, *cell) for cell in rows["split"].items()] if split_column else "train"
    root, real_folder = file.resolve().parent, functools.cache(os.path.realpath)
    rows["image"] = [_inside(file, root, real_folder, *cell) for cell in rows["image"].items()]
    _require_distinct(file, rows)
    names = _classes(file, rows)
    rows["label"] = rows["label"].map({name: label for label, name in enumerate(names)})
    parts = {name: rows[rows["split"] == name] for name in ("train", "validation", "test")}
    splits = {
        name: labelled_files(root, part["image"].tolist(), part["label"].tolist())
        for name, part in parts.items()
        if len(part)
    }
    return Source(tuple(names), frozenset({"label"}), with_test(splits, test))


def _read(file: Path) -> pd.DataFrame:
    """Read all cells as text, rows numbered from 1."""
    if not file.is_file():
        raise UserError(f"the table {file} does not exist; set data.source.path.")
    kind = file.suffix.lstrip(".").upper() or "CSV"
    try:
        if kind == "PARQUET":
            rows = pd.read_parquet(file).astype("string").fillna("").astype(object)
        else:  # a class may be called NA, or 007
            rows = pd.read_csv(file, dtype=str, keep_default_na=False, sep="\t" if kind == "TSV" else ",")
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parsers raise kinds of ValueError
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"{file} cannot be read as {kind}: {reason}.") from None
    if rows.empty:
        raise UserError(f"{file} has no rows.")
    return rows.set_axis(range(1, len(rows) + 1))


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


def _classes(file: Path, rows: pd.DataFrame) -> list[str]:
    """Return the labels of train, sorted. Raises UserError for one class, and for a label that train does not have."""
    unlabelled = rows.index[rows["label"].str.strip() == ""]
    if len(unlabelled):
        raise UserError(f"{file}, row {unlabelled[0]}: the label is empty.")
    trained = set(rows["label"][rows["split"] == "train"]) or set(rows["label"])
    unknown = rows[~rows["label"].isin(trained)]
    if len(unknown):
        first = unknown.iloc[0]
        raise UserError(
            f"{file}, row {unknown.index[0]}: the {first['split']} label {first['label']!r} is not in train."
        )
    if len(trained) < 2:
        raise UserError(f"{file} holds one class, {min(trained)!r}; at least two are needed.")
    return sorted(trained, key=int) if all(_is_integer(label) for label in trained) else sorted(trained)


def _is_integer(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit()
