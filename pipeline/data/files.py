"""Splits whose samples are image files on disk: checked by their headers when opened, read when needed."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.data.decoding import decode_mask
from pipeline.data.headers import Header, Refusal, scan_headers
from pipeline.data.source import Sample, Split
from pipeline.errors import UserError
from pipeline.ops.segmentation import VOID

_INDEX_MODES = frozenset({"1", "L", "P", "I", "I;16"})  # Pillow's modes with one number per pixel


def labelled_files(root: Path, ids: Sequence[str], labels: Sequence[int] | Sequence[Sequence[int]]) -> Split:
    """Make a split of images `root`/id with one label each, or with as many each. Files that are no images are refused.

    Several labels are the field `labels`, int32 (heads,), and are not counted as one label is.
    """
    headers, refused = _sort_out(root, dict(zip(ids, _scan(root, ids), strict=True)))
    labels = np.array([label for name, label in zip(ids, labels, strict=True) if name in headers], np.int32)
    read, column, is_one = _reader(root, headers), tf.constant(labels), labels.ndim == 1
    return Split(
        len(headers),
        load=lambda index: {**read(index), "label" if is_one else "labels": tf.gather(column, index)},
        labels=labels if is_one else None,
        refused=refused,
    )


def unlabelled_files(root: Path, ids: Sequence[str]) -> Split:
    """Make a split of images `root`/id that nothing is known of. Files whose header is no image's are refused."""
    headers, refused = _sort_out(root, dict(zip(ids, _scan(root, ids), strict=True)))
    return Split(len(headers), load=_reader(root, headers), refused=refused)


def masked_files(root: Path, masks: Mapping[str, str], void: int | None = None) -> Split:
    """Make a split of images from a map of image to mask file, both below `root`.

    A mask is a PNG of class indices as large as its image; pixels of the index `void` become VOID.
    """
    pairs = zip(masks, masks.values(), _scan(root, list(masks)), _scan(root, list(masks.values())), strict=True)
    headers, refused = _sort_out(root, {image: _with_mask(header, mask, other) for image, mask, header, other in pairs})
    read, folder = _reader(root, headers), os.path.join(root, "")
    column = tf.constant([masks[image] for image in headers])

    def load(index: tf.Tensor) -> Sample:
        mask = decode_mask(tf.io.read_file(folder + tf.gather(column, index)))
        return {**read(index), "mask": mask if void is None else tf.where(mask == void, VOID, mask)}

    return Split(len(headers), load=load, refused=refused)


def list_images(root: Path, place: str, extensions: Collection[str]) -> tuple[list[str], int]:
    """Return the image files under a subfolder, relative to `root`, sorted, and the number of other files.

    Hidden files and folders do not count.
    """
    found, ignored = [], 0
    for folder, subfolders, files in os.walk(root / place):
        subfolders[:] = [name for name in subfolders if not is_hidden(name)]
        relative = os.path.relpath(folder, root)
        for name in files:
            if is_hidden(name):
                continue
            if os.path.splitext(name)[1].lower() in extensions:
                found.append(os.path.normpath(os.path.join(relative, name)))
            else:
                ignored += 1
    return sorted(found), ignored


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is none of the user's images."""
    return name.startswith((".", "__MACOSX"))  # the latter is what macOS adds to its zip files


def printable(name: str) -> str:
    """Return a file's name with those bytes that are not UTF-8 spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _scan(root: Path, names: Sequence[str]) -> list[Header | Refusal]:
    return scan_headers([os.path.join(root, name) for name in names])


def _with_mask(header: Header | Refusal, mask: str, mask_header: Header | Refusal) -> Header | Refusal:
    """Refuse an image whose mask cannot belong to it."""
    if isinstance(header, Refusal):
        return header
    if isinstance(mask_header, Refusal):
        return Refusal(f"has the mask {mask}, which {mask_header.reason}")
    if mask_header.mode not in _INDEX_MODES:
        return Refusal(f"has the mask {mask}, which holds colours instead of one class index per pixel")
    if mask_header.upright_size != header.upright_size:
        sizes = [f"{width}×{height}" for height, width in (mask_header.upright_size, header.upright_size)]
        return Refusal(f"has the mask {mask}, which is {sizes[0]} pixels large where the image is {sizes[1]}")
    return header


def _sort_out(root: Path, headers: Mapping[str, Header | Refusal]) -> tuple[dict[str, Header], dict[str, str]]:
    """Return the readable files and the reasons of the others. Raises UserError when none can be read."""
    readable, refused = {}, {}
    for name, header in headers.items():
        if isinstance(header, Refusal):
            refused[printable(name)] = header.reason
        elif printable(name) != name:
            refused[printable(name)] = "has a name that is not UTF-8"
        else:
            readable[name] = header
    if not readable:
        name, reason = next(iter(refused.items()))
        raise UserError(f"none of {len(refused)} images below {root} can be used: {name} {reason}.")
    return readable, refused


def _reader(root: Path, headers: Mapping[str, Header]) -> Callable[[tf.Tensor], Sample]:
    """Return the part of `load` that all file splits share: image, orientation and id."""
    ids, folder = tf.constant(list(headers)), os.path.join(root, "")
    orientations = tf.constant([header.orientation for header in headers.values()], tf.int32)

    def read(index: tf.Tensor) -> Sample:
        name = tf.gather(ids, index)
        return {"id": name, "image": tf.io.read_file(folder + name), "orientation": tf.gather(orientations, index)}

    return read
