"""The data doctor: one picture twice, in two splits, or with two labels, and classes that are rare.

Pictures are the same when all pixels are, after they were decoded and fitted to the model's input: copies under other
names, with other metadata or in another lossless format are found, crops and new JPEGs of a picture are not.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.data.input import Prepared
from pipeline.data.source import Sample

_BATCH = 64
_NO_LABEL = -1
_EXAMPLES = 3
_RARE = 10  # times fewer images than the most frequent class


@dataclass(frozen=True)
class _Seen:
    split: str
    id: str
    label: int


def audit(prepared: Mapping[str, Prepared], classes: tuple[str, ...]) -> pd.DataFrame:
    """Return one row per finding: `finding`, `where`, `images` (how many it concerns), `examples` (ids).

    duplicate: the same picture more than once in one split. leak: a picture of the test or the validation split that is
    in another split, too. conflict: the same picture with different labels. rare: a class with ten times fewer training
    images than the most frequent one.
    """
    groups: dict[bytes, list[_Seen]] = defaultdict(list)
    for name, split in prepared.items():
        for digest, seen in _fingerprints(name, split):
            groups[digest].append(seen)
    same = [group for group in groups.values() if len(group) > 1]
    rows = [*_duplicates(same), *_leaks(same), *_conflicts(same, classes), *_rare(groups, classes)]
    return pd.DataFrame(rows, columns=["finding", "where", "images", "examples"])


def _fingerprints(name: str, split: Prepared) -> Iterator[tuple[bytes, _Seen]]:
    for batch in split.evaluation(_BATCH, _label):
        real = batch["weight"].numpy() > 0
        images = batch["image"].numpy()[real].astype(np.uint8)
        for image, label, one in zip(images, batch["y"].numpy()[real], batch["id"].numpy()[real], strict=True):
            yield hashlib.blake2b(image.tobytes(), digest_size=16).digest(), _Seen(name, one.decode(), int(label))


def _label(batch: Sample) -> tf.Tensor:
    if "label" in batch:
        return batch["label"]
    return tf.fill(tf.shape(batch["id"]), _NO_LABEL)


def _duplicates(same: list[list[_Seen]]) -> Iterator[tuple]:
    for split in dict.fromkeys(one.split for group in same for one in group):
        within = [[one for one in group if one.split == split] for group in same]
        repeated = [group for group in within if len(group) > 1]
        if repeated:
            yield "duplicate", split, sum(len(group) - 1 for group in repeated), _name(repeated)


def _leaks(same: list[list[_Seen]]) -> Iterator[tuple]:
    across: dict[tuple[str, ...], list[list[_Seen]]] = defaultdict(list)
    for group in same:
        across[tuple(dict.fromkeys(one.split for one in group))].append(group)
    for splits, groups in across.items():
        if len(splits) > 1:
            held_out = sum(one.split == splits[-1] for group in groups for one in group)
            yield "leak", " and ".join(splits), held_out, _name(groups)


def _conflicts(same: list[list[_Seen]], classes: tuple[str, ...]) -> Iterator[tuple]:
    torn = [group for group in same if len({one.label for one in group}) > 1]
    if torn:
        pairs = {classes[one.label] for one in torn[0]}
        yield "conflict", f"such as {' and '.join(sorted(pairs))}", sum(map(len, torn)), _name(torn)


def _rare(groups: Mapping[bytes, list[_Seen]], classes: tuple[str, ...]) -> Iterator[tuple]:
    labels = [one.label for group in groups.values() for one in group if one.split == "train"]
    if not labels or _NO_LABEL in labels:
        return
    counts = np.bincount(labels, minlength=len(classes))
    for label in np.flatnonzero(counts * _RARE <= counts.max()):
        yield "rare", classes[label], int(counts[label]), f"{counts.max():,} of {classes[int(counts.argmax())]}"


def _name(groups: list[list[_Seen]]) -> str:
    shown = [" = ".join(one.id for one in group[:2]) for group in groups[:_EXAMPLES]]
    return "; ".join(shown) + ("; …" if len(groups) > _EXAMPLES else "")
