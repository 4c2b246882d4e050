"""What zeros and shared values are worth: sizes of files as they are, zipped, and with zeros left out."""

import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.convert import OUTPUT, convert, rebuild, run_converter
from pipeline.export.latency import measure_all

log = logging.getLogger(__name__)

# Below this change a machine's noise (4 % between equal runs) says nothing.
_NOISE = 0.05
_COUNTED = ("float32", "float16", "int8", "int16")


def zipped_size(content: bytes) -> int:
    """Return the bytes of a file after deflate, as in a zip archive or an application package."""
    return len(zlib.compress(content, 9))


def zero_shares(content: bytes) -> dict[str, float]:
    """Return the share of zeros in every constant of two axes or more in a .tflite file, by tensor name.

    Raises UserError for a sparsely encoded file, which does not hold its zeros.
    """
    shares = {}
    model = flatbuffer.read(content)
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        data, kind = model.buffers[tensor.buffer].data, flatbuffer.TYPE_NAMES[tensor.type]
        if data is None or len(data) == 0 or len(tensor.shape) < 2 or kind not in _COUNTED:
            continue
        if tensor.sparsity is not None:
            raise UserError("the file is sparsely encoded, its zeros are not in it; count them in the dense file")
        values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), kind)
        shares[tensor.name.decode()] = float(np.mean(values == 0))
    return shares


def convert_sparse(model: keras.Model, decode: Callable[[Any], Any]) -> bytes:
    """Convert a model as `pipeline.export.convert` does, with kernels that have many zeros stored without them.

    Float32 only, and the last step: LiteRT cannot load such files of int8 kernels. Quantise the dense file instead.
    """
    single = rebuild(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(single.input, {OUTPUT: decode(single.output)}))
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    return run_converter(converter, model)


def compare_sparse(dense: keras.Model, sparse: keras.Model, decode: Callable[[Any], Any], folder: Path) -> pd.DataFrame:
    """Write a dense model's float file, a sparse model's, and its sparsely encoded one; measure and tell.

    Columns: file, bytes, zipped, latency_ms_p50, latency_ratio (of the dense file's).
    """
    plain = convert(sparse, decode)
    contents = {"dense": convert(dense, decode), "sparse": plain, "sparse_encoded": convert_sparse(sparse, decode)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.tflite" for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    measured = measure_all(list(paths.values()), threads=(1,))
    times = {name: measured[path, 1].p50 for name, path in paths.items()}
    rows = [
        {
            "file": paths[name].name,
            "bytes": len(content),
            "zipped": zipped_size(content),
            "latency_ms_p50": times[name],
            "latency_ratio": times[name] / times["dense"],
        }
        for name, content in contents.items()
    ]
    table = pd.DataFrame(rows)
    _tell(table)
    return table


def _tell(table: pd.DataFrame) -> None:
    dense, sparse, encoded = table.to_dict("records")
    ratio = min(sparse["latency_ratio"], encoded["latency_ratio"])
    speed = f"{1 / ratio:.2f} times as fast" if ratio < 1 - _NOISE else "no faster"
    log.info(
        "sparsity: zipped %.0f%% of the dense file, sparsely encoded %.0f%% of it; %s (latency %.2f and %.2f of it)",
        *(100 * sparse["zipped"] / dense["zipped"], 100 * encoded["bytes"] / dense["bytes"], speed),
        *(sparse["latency_ratio"], encoded["latency_ratio"]),
    )
