"""Weights trained by others: downloaded, read from a file, and put into a network that was built anew."""

import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from pipeline.errors import UserError
from pipeline.models.stages import stages
from pipeline.models.weights import put


def download(build: Callable[..., keras.Model], options: dict[str, Any]) -> keras.Model:
    """Build a network of keras.applications with published weights; raises UserError that names the file to bring."""
    try:
        return build(**options)
    except ValueError as error:  # a width that was not published
        raise UserError(f"model.weights: {build.__name__} with imagenet: {' '.join(str(error).split())}") from None
    except Exception as error:  # which is all that Keras raises
        failed = re.match(r"URL fetch failure on (\S+):", str(error))
        if not failed:
            raise
        url = failed[1]
        file = url.rpartition("/")[2].replace("NASNet-", "nasnet_").replace("-no-top", "_no_top")
        raise UserError(
            f"model.weights: imagenet could not be downloaded; bring {url} from elsewhere as ~/.keras/models/{file}, "
            "or give its path as model.weights"
        ) from None


def load(model: keras.Model, path: Path, architecture: str) -> bool:
    """Fill the network from a file, whole or not at all, and say whether one of this package's models is in it."""
    if not path.is_file():
        raise UserError(f"model.weights: there is no file {path}; give imagenet or the path of a file with weights")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # layers that a file left as they were
            if path.suffix != ".keras":
                model.load_weights(path)
                return False
            source = keras.saving.load_model(path, compile=False, safe_mode=True)
        found = places(source)
        for name, layer in places(model).items():
            if getattr(layer, "weights", ()):
                put(layer, found[name].get_weights())
        return bool(stages(source))
    except (ValueError, TypeError, KeyError, AttributeError, OSError, UserWarning, zipfile.BadZipFile):
        raise UserError(
            f"model.weights: {path} does not hold the weights of {architecture} without its top; give a .weights.h5, "
            ".h5 or .keras file of keras.applications with include_top=False, or a run's model.keras"
        ) from None


def copy(theirs: keras.Model, ours: keras.Model, swapped: bool) -> None:
    """Copy the weights; `swapped` turns the first kernel, which was trained on blue, green, red, to the usual order."""
    kernels = [layer for layer in theirs.layers if hasattr(layer, "kernel")]
    for name, layer in places(theirs).items():
        if getattr(layer, "weights", ()):
            values = layer.get_weights()
            if swapped and layer is kernels[0]:
                values[0] = values[0][:, :, ::-1]
            put(ours.get_layer(name), values)


def places(model: keras.Model) -> dict[str, keras.Operation]:
    """Return layers and operations by name; where Keras made it of a count over the process, the count starts anew."""
    places: dict[str, keras.Operation] = {}
    counted: dict[str, list[tuple[int, keras.Operation]]] = {}
    for layer in model.operations:
        kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()
        automatic = re.fullmatch(rf"{kind}(?:_(\d+))?", layer.name)
        if automatic:
            counted.setdefault(kind, []).append((int(automatic[1] or 0), layer))
        else:
            places[layer.name] = layer
    for kind, layers in counted.items():
        for rank, (_, layer) in enumerate(sorted(layers, key=lambda pair: pair[0])):
            places[f"{kind}_{rank}" if rank else kind] = layer
    return places
