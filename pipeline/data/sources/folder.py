"""A folder of a person's own images: class folders, or images with masks, with or without split folders."""

import logging
import os
from pathlib import Path

from pipeline.data.files import is_hidden, labelled_files, list_images, masked_files, printable
from pipeline.data.headers import EXTENSIONS
from pipeline.data.masks import mask_classes
from pipeline.data.source import Source, Split
from pipeline.data.split import SPLIT_NAMES, with_test
from pipeline.errors import UserError
from pipeline.registry import SOURCES, Fraction

log = logging.getLogger(__name__)


@SOURCES.register
def folder(*, path: str, test: Fraction = 0.2, classes: list[str] | None = None, void: int | None = None) -> Source:
    """A folder of images: a folder per class, or images/ and masks/; with or without train/, val/ and test/.

    Without a test folder, val serves as test; without either, a fraction of train does, the same in every run.
    A mask is a PNG with one class index per pixel (grey values, or the indices of a palette) and the name of its
    image; 255 is no class. Mask classes are named by the lines of classes.txt or labels.txt in the folder.

    Args:
        test: the share of images kept for test where the folder has neither test nor val; 1 is all of them, as
            evaluation on other images needs it.
        classes: names in label order, instead of the class folders in alphabetical order or of classes.txt.
        void: one more mask index that is no class; its pixels become 255.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(
            f"the folder {path} {'is a file' if root.exists() else 'does not exist'}; set data.source.path."
        )
    folders = _split_folders(root)
    if any((root / place / "images").is_dir() for place in folders.values()):
        splits = {name: _paired(root, place, void) for name, place in folders.items()}
        names = classes or mask_classes(root, [root / place / "masks" for place in folders.values()], void)
        return Source(tuple(names), frozenset({"mask"}), with_test(splits, test))
    if classes and len(set(classes)) < len(classes):
        raise UserError("data.source.classes names a class twice; name each once.")
    names = classes or _class_folders(root, folders.get("train", next(iter(folders.values()))))
    if len(names) < 2:
        raise UserError(f"{root} holds one class, {names[0]!r}; make a folder for each of at least two classes.")
    splits = {name: _classified(root, place, names, classes is not None) for name, place in folders.items()}
    return Source(tuple(names), frozenset({"label"}), with_test(splits, test))


def _split_folders(root: Path) -> dict[str, str]:
    """Map split names to subfolders, or train to the folder itself where there are none."""
    names = _subfolders(root)
    found: dict[str, str] = {}
    for name in names:
        split = SPLIT_NAMES.get(name.lower())
        if split in found:
            raise UserError(f"{root} holds both {found[split]} and {name} for the {split} split; keep one of them.")
        if split:
            found[split] = name
    if "train" not in found and len(found) < len(names):  # classes, of which one may be called "test"
        found = {}
    others = [name for name in names if name not in found.values()]
    if found and others:
        log.info("%s: left out %s, which name no split.", root, ", ".join(others))
    return {split: found[split] for split in ("train", "validation", "test") if split in found} or {"train": ""}


def _class_folders(root: Path, place: str) -> list[str]:
    names = _subfolders(root / place)
    if not names:
        raise UserError(f"{root / place} holds neither class folders nor images/ and masks/.")
    return names


def _classified(root: Path, place: str, names: list[str], chosen: bool) -> Split:
    """Make a split of class folders; `chosen` says that a person gave the names, so that others may be left out."""
    there = _subfolders(root / place)
    unknown = [name for name in there if name not in names]
    if unknown and not chosen:
        raise UserError(f"{root / place} has the class {unknown[0]!r}, which train does not have.")
    if unknown:
        log.info("%s: left out %s, which data.source.classes does not name.", root / place, ", ".join(unknown))
    absent = [name for name in names if name not in there]
    if absent and SPLIT_NAMES.get(place.lower(), "train") == "train":
        raise UserError(f"{root / place} has no folder for the class {absent[0]!r} of data.source.classes.")
    ids, labels, ignored = [], [], 0
    for label, name in enumerate(names):
        if name in there:
            images, others = list_images(root, os.path.join(place, name), EXTENSIONS)
            if not images:
                raise UserError(f"the class folder {root / place / name} holds no images; fill it or remove it.")
            ids += images
            labels += [label] * len(images)
            ignored += others
    if not ids:
        raise UserError(f"{root / place} holds no class folders; sort its images into them, or remove it.")
    _tell_ignored(root / place, ignored)
    split = labelled_files(root, ids, labels)
    for label in sorted(set(labels) - set(split.labels.tolist())):
        example = ids[labels.index(label)]
        raise UserError(
            f"no image of the class {names[label]!r} can be used: {root / example} {split.refused[printable(example)]}."
        )
    return split


def _paired(root: Path, place: str, void: int | None) -> Split:
    """Make a split of images/ and masks/ whose files share their names up to the extension."""
    images = _by_stem(root, os.path.join(place, "images"), EXTENSIONS)
    masks = _by_stem(root, os.path.join(place, "masks"), frozenset({".png"}))
    pairs = {image: masks[stem] for stem, image in images.items() if stem in masks}
    if not pairs:
        raise UserError(f"{root / place} holds no image in images/ with a PNG of the same name in masks/.")
    if len(pairs) < max(len(images), len(masks)):
        lonely = [image for stem, image in images.items() if stem not in masks]
        lonely += [mask for stem, mask in masks.items() if stem not in images]
        log.info("%s: left out %d files without a partner, as %s.", root / place, len(lonely), lonely[0])
    return masked_files(root, pairs, void)


def _by_stem(root: Path, place: str, extensions: frozenset[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    names, ignored = list_images(root, place, extensions)
    _tell_ignored(root / place, ignored)
    for name in names:
        stem = os.path.splitext(os.path.relpath(name, place))[0]
        if stem in files:
            raise UserError(f"{root} holds both {files[stem]} and {name}; two files of one name cannot be told apart.")
        files[stem] = name
    return files


def _tell_ignored(folder: Path, count: int) -> None:
    if count:
        log.info("%s: ignored %d of its files, whose extensions are no image's.", folder, count)


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))
