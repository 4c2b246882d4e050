"""What an experiment says about its data, done: the source with its splits, and a split decoded."""

from pipeline.data.input import Prepared, prepare
from pipeline.data.preprocess import Preprocess
from pipeline.data.source import Source, Split
from pipeline.data.split import with_fold, with_validation
from pipeline.errors import UserError
from pipeline.registry import SOURCES
from pipeline.sections import Data


def open_source(data: Data, seed: int, *, validated: bool = True) -> Source:
    """Open the source; no image is decoded. `validated` cuts a validation split from train where there is none."""
    source = SOURCES.build(data.source.name, **data.source.options)
    broken = next((name for name in source.classes if name.splitlines() != [name]), None)
    if broken is not None:  # labels.txt has a line for each
        raise UserError(f"the class name {broken!r} is no single line of text; rename the class")
    if data.folds:
        source = with_fold(source, data.folds.of, data.folds.index)
    return with_validation(source, data.validation, seed) if validated else source


def preprocess_of(data: Data) -> Preprocess:
    """Return how any image becomes input of the model."""
    return Preprocess(data.image_size, data.channels, data.resize)


def decode_split(data: Data, split: Split, fields: tuple[str, ...], classes: int, name: str) -> Prepared:
    """Decode a split, within the cache and the share of corrupt images that the experiment allows.

    Raises what `prepare` raises.
    """
    return prepare(
        split,
        preprocess_of(data),
        fields=fields,
        classes=classes,
        cache_bytes=data.cache_mb * 2**20,
        max_corrupt=data.max_corrupt,
        name=name,
    )
