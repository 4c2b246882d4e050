"""The table of docs/layers.md: what each part of a network becomes in a .tflite file.

python -m benchmarks.layers            # print it
python -m benchmarks.layers --write    # put it into docs/layers.md
"""

import argparse
import itertools
from pathlib import Path

import keras
import numpy as np

from pipeline.export import flatbuffer
from pipeline.export.convert import convert
from pipeline.models.layers.catalogue import PARTS, Part

PAGE = Path(__file__).parent.parent / "docs" / "layers.md"
SHAPE = (8, 8, 8)
HEAD = (
    "| kind | part | written as | operators in the file | loads without this package | source |",
    "|---|---|---|---|---|---|",
)


def example(part: Part) -> keras.Model:
    """Build the smallest model that has the part: (B, 8, 8, 8) in, a second branch through a ReLU where it has two.

    Its weights are moved away from zeros and ones, which the converter would leave out, and which hide mistakes.
    """
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE, name="image")
    others = [keras.layers.ReLU(name=f"branch{index}")(image) for index in range(1, part.branches)]
    model = keras.Model(image, part.apply([image, *others] if others else image), name="example")
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype == "float32":  # not the state of a generator of random numbers
            weight.assign(weight + rng.uniform(0.05, 0.3, weight.shape))
    return model


def to_file(model: keras.Model) -> bytes:
    """Convert a model as it is, without anything behind its output."""
    return convert(model, lambda outputs: outputs)


def is_plain(model: keras.Model) -> bool:
    """Say whether the saved model loads in a process that does not know this package."""
    return not any(type(layer).__module__.startswith("pipeline.") for layer in model.layers)


def row(part: Part, model: keras.Model, content: bytes) -> str:
    """Write one part as a line of the table."""
    names = [operator.name for operator in flatbuffer.operators(content)]
    counted = [(name, len(list(same))) for name, same in itertools.groupby(names)]
    operators = ", ".join(f"{count} {name}" if count > 1 else name for name, count in counted) or "none"
    alone = "yes" if is_plain(model) else "**no**"
    source = f"arXiv {part.source}" if part.source else ""
    return f"| {part.kind} | {part.name} | `{part.written}` | {operators} | {alone} | {source} |"


def main() -> None:
    """Convert every part, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"replace the table in {PAGE.name}")
    write = parser.parse_args().write
    rows = [row(part, model, to_file(model)) for part in PARTS for model in [example(part)]]
    if not write:
        print("\n".join([*HEAD, *rows]))
        return
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    before = list(itertools.takewhile(lambda line: line != HEAD[0], lines))
    after = itertools.dropwhile(lambda line: line.startswith("|"), lines[len(before) :])
    PAGE.write_text("\n".join([*before, *HEAD, *rows, *after]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
