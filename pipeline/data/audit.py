"""The data doctor: one picture twice or nearly so, in two splits, or with two labels, and classes that are rare.

Pictures are the same when all pixels are, after they were decoded and fitted to the model's input: copies under other
names, with other metadata or in another lossless format. New JPEGs of a picture, and copies at another size or a little
brighter, are nearly the same (pipeline.data.near); crops, mirrored and turned copies are not found.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.data import near
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


@dataclass(frozen=True, eq=False)
class _Look:
    digest: bytes
    seen: _Seen
    thumbnail: np.ndarray


def audit(prepared: Mapping[str, Prepared], classes: tuple[str, ...]) -> pd.DataFrame:
    """Return one row per finding: `finding`, `where`, `images` (how many it concerns), `examples` (ids).

    duplicate: the same picture more than once in one split. leak: a picture of the test or the validation split that is
    in another split, too. conflict: the same picture with different labels. near duplicate, near leak, near conflict:
    likewise, but nearly the same and not equal. rare: a class with ten times fewer training images than the most
    frequent one.
    """
    groups: dict[bytes, list[_Seen]] = defaultdict(list)
    looks: list[_Look] = []
    for name, split in prepared.items():
        for digest, seen, thumbnail in _fingerprints(name, split):
            # A picture's copies look alike: one of each split is enough.
            if not any(one.split == name for one in groups[digest]):
                looks.append(_Look(digest, seen, thumbnail))
            groups[digest].append(seen)
    same = [group for group in groups.values() if len(group) > 1]
    alike = _alike(looks)
    rows = [
        *_duplicates(same),
        *_leaks(same),
        *_near(alike, list(prepared)),
        *_conflicts("conflict", same, classes, " = "),
        *_conflicts("near conflict", alike, classes, " ≈ "),
        *_rare(groups, classes),
    ]
    return pd.DataFrame(rows, columns=["finding", "where", "images", "examples"])


def find_copies(images: Prepared, known: Mapping[str, Prepared]) -> dict[str, str]:
    """Map the ids of those images that are a picture of the known splits, or nearly one, to the split's name."""
    looks = [_Look(*look) for name, split in known.items() for look in _fingerprints(name, split)]
    new = [_Look(*look) for look in _fingerprints("", images)]
    splits = {look.digest: look.seen.split for look in looks}
    found = {look.seen.id: splits[look.digest] for look in new if look.digest in splits}
    every = [*looks, *new]
    for first, second in near.near_pairs(np.stack([look.thumbnail for look in every])):
        across = (first < len(looks)) & (second >= len(looks))
        for i, j in zip(first[across].tolist(), second[across].tolist(), strict=True):
            found.setdefault(every[j].seen.id, every[i].seen.split)
    return found


def _fingerprints(name: str, split: Prepared) -> Iterator[tuple[bytes, _Seen, np.ndarray]]:
    for batch in split.evaluation(_BATCH, _label):
        real = batch["weight"].numpy() > 0
        images = batch["image"].numpy()[real].astype(np.uint8)
        small = near.thumbnails(images).astype(np.float16)
        named = zip(batch["y"].numpy()[real], batch["id"].numpy()[real], strict=True)
        for image, thumbnail, (label, one) in zip(images, small, named, strict=True):
            digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            yield digest, _Seen(name, one.decode(), int(label)), thumbnail


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
            yield "leak", " and ".join(splits), held_out, _name([[group[0], group[-1]] for group in groups])


def _alike(looks: list[_Look]) -> list[list[_Seen]]:
    """Return the pairs that are nearly, but not quite, the same, in the order they were seen."""
    pairs = {
        pair
        for indices in near.near_pairs(np.stack([look.thumbnail for look in looks]))
        for pair in zip(*(part.tolist() for part in indices), strict=True)
    }
    return [[looks[i].seen, looks[j].seen] for i, j in sorted(pairs) if looks[i].digest != looks[j].digest]


def _near(alike: list[list[_Seen]], order: list[str]) -> Iterator[tuple]:
    """Count, for each pair of splits, the images of the later one that are nearly one of the earlier."""
    found: dict[tuple[str, str], dict[_Seen, list[_Seen]]] = defaultdict(dict)
    for pair in alike:
        found[pair[0].split, pair[1].split].setdefault(pair[1], pair)
    for earlier, later in sorted(found, key=lambda splits: (splits[0] != splits[1], *map(order.index, splits))):
        pairs = list(found[earlier, later].values())
        kind, where = ("near duplicate", later) if earlier == later else ("near leak", f"{earlier} and {later}")
        yield kind, where, len(pairs), _name(pairs, " ≈ ")


def _conflicts(finding: str, groups: list[list[_Seen]], classes: tuple[str, ...], sign: str) -> Iterator[tuple]:
    torn = [group for group in groups if len({one.label for one in group}) > 1]
    if torn:
        pair = sorted({classes[one.label] for one in torn[0]})
        images = {one for group in torn for one in group}
        shown = [[group[0], next(one for one in group if one.label != group[0].label)] for group in torn]
        yield finding, f"such as {' and '.join(pair)}", len(images), _name(shown, sign)


def _rare(groups: Mapping[bytes, list[_Seen]], classes: tuple[str, ...]) -> Iterator[tuple]:
    labels = [one.label for group in groups.values() for one in group if one.split == "train"]
    if not labels or _NO_LABEL in labels:
        return
    counts = np.bincount(labels, minlength=len(classes))
    for label in np.flatnonzero(counts * _RARE <= counts.max()):
        yield "rare", classes[label], int(counts[label]), f"{counts.max():,} of {classes[int(counts.argmax())]}"


def _name(groups: list[list[_Seen]], sign: str = " = ") -> str:
    shown = [sign.join(one.id for one in group[:2]) for group in groups[:_EXAMPLES]]
    return "; ".join(shown) + ("; …" if len(groups) > _EXAMPLES else "")
