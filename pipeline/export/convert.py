"""Keras model → float32 .tflite, by one pinned path: rebuilt in float32, batch 1, builtin operators only."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.interpreter import INPUT, OUTPUT
from pipeline.models.weights import put
from pipeline.quiet import quiet

# `loc(… fused["Erfinv:", "model/my_layer_1/erfinv/Erfinv@…"] …)): 'tf.Erfinv' op is neither a custom op nor a flex op`
_FOREIGN_OPERATOR = re.compile(r'fused\["\w+:", "(?P<path>[^"@]+)[^\n]*?\'tf\.(?P<op>\w+)\' op is neither')

_SCOPE = re.compile(rb"\bfunctional(_\d+)*/")  # of the model around the model, numbered through


def convert(model: keras.Model, decode: Callable[[Any], Any]) -> bytes:
    """Convert a functional Keras model of one input to a float32 .tflite file.

    The file takes `image` float32 (1, H, W, C) and gives `probabilities` = decode(model(image)), under the one
    signature `serving_default`.

    Raises:
        UserError: the model has an operator that LiteRT does not have, or a shape that is not static; the message
            names the operator and the layer.
    """
    single = rebuild(model)
    serving = keras.Model(single.inputs[0], {OUTPUT: decode(single.outputs[0])})
    # Not from_concrete_functions: it leaves the variables in the file uninitialised and says nothing.
    converter = tf.lite.TFLiteConverter.from_keras_model(serving)
    return run_converter(converter, model)


def run_converter(converter: tf.lite.TFLiteConverter, model: keras.Model) -> bytes:
    """Run a converter with builtin operators only, check the file, and say which layer of `model` it cannot convert."""
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        with quiet():
            content = converter.convert()
    except Exception as error:
        raise _explain(error, model) from error
    check(content)
    return _without_counters(content)


def _without_counters(content: bytes) -> bytes:
    """Take out of a file what counts the conversions of this process, so that equal models give equal bytes."""
    model = flatbuffer.read(content)
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        tensor.name = _SCOPE.sub(b"", tensor.name)
    model.metadata = [entry for entry in model.metadata or () if entry.name != b"CONVERSION_METADATA"]
    return flatbuffer.write(model)


def rebuild(model: keras.Model) -> keras.Model:
    """Copy a functional model into float32 at batch 1, whatever precision it was trained in.

    A mixed-precision graph converts to casts that LiteRT cannot run, and an unknown batch size leaves
    SHAPE, GATHER and PACK around every reshape.
    """
    if len(model.inputs) != 1:
        raise UserError(f"the model {model.name!r} has {len(model.inputs)} inputs; only models of one image convert.")
    shape = model.inputs[0].shape[1:]
    if None in shape:
        raise UserError(f"the model {model.name!r} takes images of any size {shape}; build it for one size to export.")
    image = keras.Input(batch_shape=(1, *shape), dtype="float32", name=INPUT)
    copy = keras.models.clone_model(model, input_tensors=image, clone_function=_in_float32, recursive=True)
    put(copy, model.get_weights())
    return copy


def _in_float32(operation: keras.Operation) -> keras.Operation:
    return type(operation).from_config(_without_policies(operation.get_config()))


def _without_policies(config: Any) -> Any:
    # Wrappers hold the configurations of inner layers, each with a policy of its own.
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return "float32"
        return {key: _without_policies(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_without_policies(value) for value in config)
    return config


def check(content: bytes) -> None:
    """Raise UserError unless a file has builtin operators, static shapes and no variables that nobody sets."""
    for operator in flatbuffer.operators(content):
        where = f"at {operator.outputs[0].name!r}" if operator.outputs else "in the graph"
        if operator.custom:
            raise UserError(f"the operator {operator.name} {where} is not builtin in LiteRT; replace that layer.")
        if operator.name == "VAR_HANDLE":
            raise UserError(f"the file keeps a variable {where}: its value would be missing on the phone.")
        for tensor in operator.outputs:
            if -1 in tensor.shape:
                raise UserError(
                    f"the output {tensor.name!r} of {operator.name} has no static shape ({tensor.shape}); "
                    "compute shapes from the model's configuration, not from the tensor."
                )


def _explain(error: Exception, model: keras.Model) -> UserError:
    found = _FOREIGN_OPERATOR.search(str(error))
    if found is None:
        reason = str(error).strip().partition("\n")[0][:300]
        return UserError(f"the model {model.name!r} cannot be converted to .tflite: {reason}")
    layer = _layer_of(found["path"], model)
    return UserError(
        f"the layer {layer!r} uses the operator {found['op']}, which LiteRT does not have; "
        "replace that layer by builtin operations."
    )


def _layer_of(path: str, model: keras.Model) -> str:
    """Find the innermost layer in a graph path such as `model_1/my_layer_1/erfinv`."""
    names = set(_names(model))
    for part in reversed(path.split("/")):
        for name in (part, re.sub(r"_\d+$", "", part)):  # scopes end in a count that names lack
            if name in names:
                return name
    return path


def _names(model: keras.Model) -> Iterator[str]:
    for layer in model.layers:
        yield layer.name
        if isinstance(layer, keras.Model):
            yield from _names(layer)
