"""Augmentations: drawn once per sample, applied to image, mask and boxes alike, on whole batches."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import tensorflow as tf

from pipeline.data.augment.color import Color, recolor
from pipeline.data.augment.draw import Batch, Step
from pipeline.data.augment.geometric import Geometric, Windows, move
from pipeline.errors import UserError
from pipeline.registry import AUGMENTATIONS


class _Part(NamedTuple):
    """One fusable piece of an augmentation; the pieces of one augmentation share its number, and so its seed."""

    name: str
    number: int
    change: Geometric | Color | Step


@dataclass(frozen=True)
class Augment:
    """A function of a batch and a seed (2,) to an augmented batch."""

    parts: tuple[_Part, ...]
    classes: int

    @tf.autograph.experimental.do_not_convert
    def __call__(self, batch: Batch, seed: tf.Tensor) -> Batch:
        batch = dict(batch)
        if any(_mixes(part) for part in self.parts) and len(batch["label"].shape) == 1:
            batch["label"] = tf.one_hot(batch["label"], self.classes)
        for group in _groups(self.parts):
            batch = _apply(batch, group, seed)
        return _as_float(batch)

    @property
    def interpolates(self) -> bool:
        """Whether pixels are moved to between pixels, so that how they were resized before hardly matters."""
        return any(isinstance(part.change, Geometric) and not part.change.exact for part in self.parts)

    @property
    def begins_with_windows(self) -> bool:
        """Whether the first thing is a zoom into a window."""
        return bool(self.parts) and isinstance(self.parts[0].change, Geometric) and bool(self.parts[0].change.windows)

    def windows(self, shape: tuple[int, int, int], seed: tf.Tensor) -> Windows:
        """Draw the windows it begins with: top, left, height and width for images (B, H, W)."""
        return self.parts[0].change.windows(shape, _seed(seed, self.parts[0]))

    def after_windows(self) -> Self:
        """Return what is left to do for images that are their window already."""
        return replace(self, parts=self.parts[1:])


def compile_augmentations(
    augmentations: Sequence[tuple[str, Mapping[str, Any]]], classes: int, fields: Collection[str]
) -> Augment:
    """Make one function of a batch and a seed (2,) from registered names and their options, in order.

    The batch holds `image` (B, H, W, 1 or 3), any real type, values 0..255, and those `fields` of `label` int32 (B,)
    or float32 (B, classes), `weight` float32 (B,), `mask` int32 (B, H, W), `boxes` float32 (B, N, 4) with `classes`
    int32 (B, N), -1 where a row is padding. All shapes are static. It gives `image` float32; Mixup and CutMix make
    `label` float32 (B, classes). Consecutive geometric augmentations are one warp, consecutive colour ones one colour
    map. Everything random comes from the seed.

    Raises UserError when an augmentation cannot keep one of the fields true.
    """
    parts = tuple(
        _Part(name, number, change)
        for number, (name, options) in enumerate(augmentations)
        for change in _changes(AUGMENTATIONS.build(name, **options))
    )
    _check_fields([part.name for part in parts if _mixes(part)], fields)
    return Augment(parts, classes)


def _changes(built: Any) -> tuple[Geometric | Color | Step, ...]:
    return built if isinstance(built, tuple) else (built,)


def _mixes(part: _Part) -> bool:
    return isinstance(part.change, Step) and part.change.mixes


def _seed(seed: tf.Tensor, part: _Part) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, part.number)


def _groups(parts: tuple[_Part, ...]) -> list[list[_Part]]:
    """Cut the list into runs that are computed as one."""
    groups: list[list[_Part]] = []
    for part in parts:
        if groups and all(_fuse(other.change, part.change) for other in groups[-1]):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _fuse(first: Any, second: Any) -> bool:
    if isinstance(first, Geometric) and isinstance(second, Geometric):
        return first.fuses(second)
    return isinstance(first, Color) and isinstance(second, Color)


def _apply(batch: Batch, group: list[_Part], seed: tf.Tensor) -> Batch:
    drawn = [(part.change, _seed(seed, part)) for part in group]
    if isinstance(group[0].change, Geometric):
        return move(batch, drawn)  # of bytes, where nothing came before it: less memory to read
    batch = _as_float(batch)
    if isinstance(group[0].change, Color):
        return recolor(batch, drawn)
    [(step, step_seed)] = drawn
    return step.apply(batch, step_seed)


def _as_float(batch: Batch) -> Batch:
    return batch | {"image": tf.cast(batch["image"], tf.float32)}


def _check_fields(mixing: list[str], fields: Collection[str]) -> None:
    for name in mixing:
        for field in ("mask", "boxes", "labels"):
            if field in fields:
                raise UserError(f"data.augment: {name} mixes whole labels and cannot mix {field}; leave it out.")
        if "label" not in fields:
            raise UserError(f"data.augment: {name} mixes labels, and these samples have none; leave it out.")
