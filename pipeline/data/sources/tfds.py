"""Any image classification set of TensorFlow Datasets, by name or from a folder where it is already prepared."""

import difflib
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.data.source import Sample, Source, Split
from pipeline.errors import UserError
from pipeline.registry import SOURCES

log = logging.getLogger(__name__)


@SOURCES.register
def tfds(
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    train: str = "train",
    validation: str | None = None,
    test: str = "test",
    image_feature: str | None = None,
    label_feature: str | None = None,
) -> Source:
    """A set of TensorFlow Datasets: by name (downloaded if need be), or a folder where it is prepared.

    Splits are split expressions, such as train[:90%] or train+validation; no two may share an example.
    https://www.tensorflow.org/datasets/splits

    Args:
        dataset: such as cifar10, or cifar10:3.0.2.
        data_dir: the folder that holds prepared sets (~/tensorflow_datasets without it), or one prepared set itself:
            the folder with dataset_info.json.
        validation: without it, the set's own validation split if it has one that is not used otherwise.
        image_feature: the key of the image, where the set has several.
        label_feature: the key of the label, where the set has several.
    """
    builder = _prepared(dataset, data_dir)
    image, label = _features(builder, image_feature, label_feature)
    expressions = {"train": train, "validation": validation, "test": test}
    if validation is None and "validation" in builder.info.splits and "validation" not in train + test:
        expressions["validation"] = "validation"
    expressions = {split: expression for split, expression in expressions.items() if expression}
    _require_disjoint(builder, expressions)
    splits = {split: _split(builder, expression, image, label) for split, expression in expressions.items()}
    return Source(tuple(builder.info.features[label].names), frozenset({"label"}), splits)


def _prepared(dataset: str | None, data_dir: str | None) -> Any:
    """Return the builder of a set that is on this disk, after downloading it if need be."""
    import tensorflow_datasets  # takes seconds to import, and no other source needs it

    folder = Path(data_dir).expanduser() if data_dir else None
    if folder and (folder / "dataset_info.json").is_file():
        try:
            return tensorflow_datasets.builder_from_directory(folder)
        except Exception as error:  # what a foreign or damaged dataset_info.json makes of protobuf's and TFDS's readers
            raise UserError(f"{folder} holds no set of TensorFlow Datasets: {_first_line(error)}.") from None
    if dataset is None:
        where = f"{folder} holds no dataset_info.json" if folder else "no dataset is named"
        raise UserError(f"{where}; set data.source.dataset, or data.source.data_dir to the folder of one prepared set.")
    try:
        builder = tensorflow_datasets.builder(dataset, data_dir=folder)
    except AssertionError as error:  # a version that the set does not have
        raise UserError(f"data.source.dataset {dataset!r}: {_first_line(error)}.") from None
    except (ValueError, ImportError, AttributeError) as error:
        close = difflib.get_close_matches(dataset, tensorflow_datasets.list_builders(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else _first_line(error)
        raise UserError(f"TensorFlow Datasets has no set {dataset!r}; {hint}") from None
    if not builder.is_prepared():
        log.info("%s is not prepared in %s yet: downloading it.", dataset, builder.data_path)
        try:
            builder.download_and_prepare()
        except Exception as error:  # from the network, the disk, a host's checksum or a missing package
            raise UserError(
                f"{dataset} could not be downloaded ({_first_line(error)}); where there is internet, run "
                f"`tfds build {dataset} --data_dir DIR`, copy DIR to this machine, and set data.source.data_dir=DIR."
            ) from None
    return builder


def _features(builder: Any, image: str | None, label: str | None) -> tuple[str, str]:
    """Find the image and the label: as asked for, else those the set names as its input and target, else by type."""
    from tensorflow_datasets import features

    usual = {key for key in builder.info.supervised_keys or () if isinstance(key, str)}
    found = []
    for kind, asked, option in (
        (features.Image, image, "image_feature"),
        (features.ClassLabel, label, "label_feature"),
    ):
        keys = [key for key, feature in sorted(builder.info.features.items()) if isinstance(feature, kind)]
        chosen = [key for key in keys if key == asked] if asked else [key for key in keys if key in usual] or keys
        if len(chosen) != 1:
            there = ", ".join(keys) or "none"
            raise UserError(f"{builder.name} needs one {kind.__name__}; set data.source.{option} to one of: {there}.")
        found += chosen
    return found[0], found[1]


def _require_disjoint(builder: Any, expressions: dict[str, str]) -> None:
    """Refuse splits that share examples, and splits that the set does not have."""
    if not builder.info.splits:  # TFDS's mock_data: it invents whatever split is asked for
        return
    parts = []
    for split, expression in expressions.items():
        try:
            instructions = builder.info.splits[expression].file_instructions
        except (ValueError, KeyError, NotImplementedError):
            there = ", ".join(builder.info.splits)
            raise UserError(
                f"{builder.name} has no split {expression!r} for data.source.{split}; it has {there}, and parts of "
                "them such as train[:90%]."
            ) from None
        for part in instructions:
            take = part.examples_in_shard - part.skip if part.take < 0 else part.take
            parts.append((part.filename, part.skip, part.skip + take, split))
    for (file, _, stop, split), (next_file, start, _, other) in itertools.pairwise(sorted(parts)):
        if file == next_file and start < stop:
            raise UserError(
                f"data.source.{split} and data.source.{other} of {builder.name} share examples; choose parts that do "
                "not overlap, such as train[:90%] and train[90%:]."
            )


def _split(builder: Any, expression: str, image: str, label: str) -> Split:
    from tensorflow_datasets import ReadConfig, decode

    settings = {
        "decoders": {image: decode.SkipDecoding()},
        "read_config": ReadConfig(try_autocache=False, skip_prefetch=True),
        "shuffle_files": False,
    }

    def as_sample(index: tf.Tensor, example: dict[str, tf.Tensor]) -> Sample:
        name = tf.strings.join([expression, tf.strings.as_string(index)], separator=" ")
        return {"id": name, "image": example[image], "label": tf.cast(example[label], tf.int32)}

    def stream() -> tf.data.Dataset:
        return builder.as_dataset(split=expression, **settings).enumerate().map(as_sample)

    try:
        labels = [int(sample) for sample in stream().map(lambda sample: sample["label"]).as_numpy_iterator()]
    except NotImplementedError:
        raise UserError(
            f"{builder.data_path} is in the array_record format, which cannot be streamed; prepare {builder.name} "
            "again with `tfds build --file_format=tfrecord`."
        ) from None
    except tf.errors.OpError as error:
        raise UserError(f"{builder.data_path} cannot be read ({_first_line(error)}); prepare it again.") from None
    if not labels or min(labels) < 0:
        raise UserError(f"the split {expression!r} of {builder.name} has no labelled examples; choose another one.")
    return Split(len(labels), stream=stream, labels=np.array(labels, np.int32))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
