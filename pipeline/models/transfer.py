"""Transfer: the weights of a trained network in one for other classes, and its layers in the order of learning."""

from collections.abc import Collection
from dataclasses import dataclass

import keras

from pipeline.errors import UserError
from pipeline.models.inspect.calls import calls, functional
from pipeline.models.pretrained import places
from pipeline.models.stages import stages
from pipeline.models.weights import put

_LOGITS = "logits"  # the last layer of every network (heads.py)


@dataclass(frozen=True)
class Group:
    """Layers that begin to learn together."""

    name: str
    layers: tuple[keras.Layer, ...]


def groups(model: keras.Model, fresh: Collection[str] = ()) -> list[Group]:
    """Return the layers that have weights, in the order in which they should learn.

    The `head` comes first: the logits and the layers named in `fresh`. What else lies above the stages is `top`, and
    then come the stages, from the coarsest down to the one that sees the image.
    """
    levels = _levels(model)
    found: dict[str, list[keras.Layer]] = {}
    for name, layer in _weighted(model).items():
        head = name == _LOGITS or name in fresh
        group = "head" if head else f"c{levels[name]}" if name in levels else "top"
        found.setdefault(group, []).append(layer)
    order = ["head", "top", *(f"c{level}" for level in sorted(set(levels.values()), reverse=True))]
    return [Group(name, tuple(found[name])) for name in order if name in found]


def adopt(model: keras.Model, source: keras.Model, where: str) -> frozenset[str]:
    """Copy the weights of a network with the same stages, and return the names of the layers that stay fresh.

    Those are the logits and, above the stages, what the source lacks or has in another shape: a decoder that is put on
    the encoder of a classifier. A network without stages has to agree in everything but the logits.

    Raises UserError, which begins with `where`, for another architecture and for images of other channels.
    """
    source = functional(source)
    ours, theirs = _weighted(model), _weighted(source)
    channels = source.inputs[0].shape[-1]
    if channels != model.inputs[0].shape[-1]:
        raise UserError(f"{where} has learned from images of {channels} channels; set data.channels={channels}")
    needed = _body(model) | _body(source)
    for name in [*ours, *theirs]:
        if name in needed and _kind(ours.get(name)) != _kind(theirs.get(name)):
            raise UserError(
                f"{where} holds another architecture ({source.name}, here {model.name}): its layer {name} is "
                f"{_describe(theirs.get(name))}, here {_describe(ours.get(name))}; give model the same name and options"
            )
    copied = {name for name in ours if name != _LOGITS and _kind(ours[name]) == _kind(theirs.get(name))}
    for name in copied:
        put(ours[name], theirs[name].get_weights())
    return frozenset(ours.keys() - copied)


def _levels(model: keras.Model) -> dict[str, int]:
    """Map the place of each layer below a mark to the finest level that it is part of."""
    names = {layer: name for name, layer in places(model).items()}
    reached = {id(tensor): level for level, tensor in stages(model).items()}
    found: dict[str, int] = {}
    for call in reversed([*calls(model)]):
        above = [reached[id(y)] for y in call.output_tensors if id(y) in reached]
        if above:
            name = names[call.operation]
            found[name] = min(*above, found.get(name, above[0]))
            for x in call.input_tensors:
                reached[id(x)] = min(*above, reached.get(id(x), above[0]))
    return found


def _weighted(model: keras.Model) -> dict[str, keras.Layer]:
    return {name: layer for name, layer in places(model).items() if getattr(layer, "weights", ())}


def _body(model: keras.Model) -> set[str]:
    """Return the places that only another architecture has otherwise."""
    weighted = _weighted(model)
    return _levels(model).keys() & weighted.keys() if stages(model) else weighted.keys() - {_LOGITS}


def _kind(layer: keras.Layer | None) -> tuple[str, list[tuple[int, ...]]] | None:
    return None if layer is None else (type(layer).__name__, [weight.shape for weight in layer.weights])


def _describe(layer: keras.Layer | None) -> str:
    if layer is None:
        return "missing"
    return f"a {type(layer).__name__} of {' and '.join('×'.join(map(str, w.shape)) for w in layer.weights)}"
