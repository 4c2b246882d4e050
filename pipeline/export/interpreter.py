"""Run a .tflite file as a phone does: images in 0..255 in, floats out, whatever types the file has inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from pipeline.errors import UserError
from pipeline.quiet import quiet

INPUT, OUTPUT, SIGNATURE = "image", "probabilities", "serving_default"


@dataclass(frozen=True)
class Port:
    """One input or output of a file: where it is, and `real = scale * (stored - zero_point)` for integer types."""

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float
    zero_point: int

    @classmethod
    def of(cls, details: dict[str, Any]) -> Self:
        """Read the interpreter's description of a tensor."""
        scale, zero_point = details["quantization"]
        return cls(details["index"], tuple(details["shape"].tolist()), np.dtype(details["dtype"]), scale, zero_point)

    def store(self, real: np.ndarray) -> np.ndarray:
        """Turn real numbers into the file's type; integers are rounded to nearest and clipped."""
        if np.issubdtype(self.dtype, np.floating):
            return real.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(real / self.scale) + self.zero_point, limits.min, limits.max).astype(self.dtype)

    def load(self, stored: np.ndarray) -> np.ndarray:
        """Turn the file's type into real numbers, float32."""
        if np.issubdtype(self.dtype, np.floating):
            return stored.astype(np.float32)
        return ((stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)).astype(np.float32)


class LiteModel:
    """A loaded .tflite file with the signature `serving_default`: `image` → `probabilities`."""

    def __init__(self, content: bytes, *, name: str = "the model", threads: int = 1) -> None:
        """Load a file's bytes; raises UserError, with `name` in it, when they are not such a file."""
        try:
            with quiet():
                self._interpreter = Interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{name} is not a .tflite file that LiteRT can run ({reason}); export it again") from None
        if self._interpreter.get_signature_list().get(SIGNATURE) != {"inputs": [INPUT], "outputs": [OUTPUT]}:
            raise UserError(
                f"{name} has no signature {SIGNATURE!r} from {INPUT!r} to {OUTPUT!r}; "
                "only files that pipeline export wrote can be used here"
            )
        # Found by the signature's names, as the order of a file's tensors is not that of the Keras model.
        # The runner is not kept: while one is held, the interpreter refuses to run.
        runner = self._interpreter.get_signature_runner(SIGNATURE)
        self.input = Port.of(runner.get_input_details()[INPUT])
        self.output = Port.of(runner.get_output_details()[OUTPUT])

    @classmethod
    def open(cls, path: Path, *, threads: int = 1) -> Self:
        """Load a file."""
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        return cls(path.read_bytes(), name=str(path), threads=threads)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map images (N, H, W, C) in 0..255 to probabilities, float32 (N, ...), one image at a time."""
        if images.shape[1:] != self.input.shape[1:]:
            raise UserError(f"the file takes images of {self.input.shape[1:]}, not of {images.shape[1:]}")
        results = np.empty((len(images), *self.output.shape[1:]), np.float32)
        for i, image in enumerate(self.input.store(np.asarray(images, np.float32))):
            self.set_image(image[None])
            self.invoke()
            results[i] = self.output.load(self._interpreter.get_tensor(self.output.index))[0]
        return results

    def set_image(self, stored: np.ndarray) -> None:
        """Fill the input, in the file's own type and shape."""
        self._interpreter.set_tensor(self.input.index, stored)

    def invoke(self) -> None:
        """Run once."""
        self._interpreter.invoke()
