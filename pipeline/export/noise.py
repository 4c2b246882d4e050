"""How far the answers of a quantised file are from those of the float file that it was made from."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from pipeline.export import flatbuffer
from pipeline.export.interpreter import Port
from pipeline.quiet import quiet

SILENCE = 1e-12  # a power that is no signal; of a signal, one that is no noise


@dataclass(frozen=True)
class Answers:
    """What a file gives: its last kernel's result, before a softmax that hides its noise, and the decoded output."""

    logits: np.ndarray
    decoded: np.ndarray


def output_noise(float_file: bytes, content: bytes, images: Sequence[np.ndarray]) -> float:
    """Return the mean square of the error before the decoding, relative to the variance over images (H, W, C)."""
    exact, rounded = (answers(float_file, each, images).logits for each in (float_file, content))
    return relative_noise(exact, rounded)


def relative_noise(exact: np.ndarray, rounded: np.ndarray) -> float:
    """Return the mean square of the error, relative to the variance."""
    return float(np.mean((rounded - exact) ** 2) / max(np.var(exact), SILENCE))


def decibels(noise: float) -> float:
    """Return the signal to noise of a noise relative to its signal: at most 120 dB, -inf where it is no number."""
    return float(10 * np.log10(1 / max(noise, SILENCE))) if np.isfinite(noise) else -np.inf


def answers(float_file: bytes, content: bytes, images: Sequence[np.ndarray]) -> Answers:
    """Run a file made from `float_file` on images (H, W, C) in 0..255; float32 (N, ...)."""
    last = [op.outputs[0].name for op in flatbuffer.operators(float_file) if op.name in flatbuffer.WITH_WEIGHTS][-1]
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # keeping all tensors costs memory, and is what is wanted
        interpreter = Interpreter(
            model_content=content,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    [given] = map(Port.of, interpreter.get_input_details())
    [logits] = [Port.of(each) for each in interpreter.get_tensor_details() if each["name"] == last]
    [decoded] = map(Port.of, interpreter.get_output_details())
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for image in images:
        interpreter.set_tensor(given.index, given.store(np.asarray(image, np.float32))[None])
        interpreter.invoke()
        found.append(tuple(port.load(interpreter.get_tensor(port.index)) for port in (logits, decoded)))
    return Answers(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
