"""What a mobile developer takes besides the files: a model card, and clients written from the model's own facts."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.config import Experiment
from pipeline.export.gates import golden_bound
from pipeline.export.interpreter import Port
from pipeline.export.metadata import Facts
from pipeline.ops.heads import heads_of
from pipeline.runs import write_atomically

# MediaPipe takes no grey images ("Only RGB color space is supported for now"), and stretches whatever it is given.
_MEDIAPIPE = "MediaPipeClient.kt"
CLIENTS = ("client.py", "client.mjs", "Client.kt", _MEDIAPIPE, "Client.swift", "client.cc")
# Clients take the first of these: floats or bytes in and floats out, which all of their runtimes accept.
_TAKEN = {"float16": "float32", "float32": "float32", "dynamic": "float32", "uint8": "uint8"}


def write_clients(folder: Path, facts: Facts, resize: str, variants: list[str]) -> list[Path]:
    """Write `clients/` for the first variant that every client can take; nothing where there is none."""
    for name in CLIENTS:
        (folder / "clients" / name).unlink(missing_ok=True)  # of an earlier export
    variant = _variant_of_clients(variants)
    if variant is None:
        return []
    height, width = facts.image_size
    shape = (height, width, len(facts.labels)) if facts.masks else (len(facts.labels),)
    values = {
        "variant": variant,
        "file": f"{variant}.tflite",
        "labels": facts.labels,
        "heads": [(part.start, part.stop) for part in heads_of(facts.labels).values()],
        "dtype": _TAKEN[variant],
        "height": height,
        "width": width,
        "channels": facts.channels,
        "masks": facts.masks,
        "resize": resize,
        "output_shape": shape,
        "outputs": height * width * len(facts.labels) if facts.masks else len(facts.labels),
        "tolerance": repr(golden_bound(variant)),
    }
    for_mediapipe = facts.channels == 3 and resize == "stretch"
    names = [name for name in CLIENTS if for_mediapipe or name != _MEDIAPIPE]
    return [_render(folder / "clients" / name, values) for name in names]


def write_card(
    folder: Path,
    experiment: Experiment,
    parameters: int,
    facts: Facts,
    results: pd.DataFrame,
    ports: Mapping[str, tuple[Port, Port]],
    verdicts: Mapping[str, str],
    command: str,
) -> Path:
    """Write MODEL_CARD.md: what the model is for, its files and scores, its training, its limits.

    `ports` are each variant's input and output.
    """
    data = experiment.data
    values = {
        **vars(facts),
        "height": facts.image_size[0],
        "width": facts.image_size[1],
        "resize": data.resize,
        "made": datetime.date.today().isoformat(),
        "command": command,
        "measure": results["measure"].iloc[0],
        "rows": [row | _told(*ports[row["variant"]]) for row in results.to_dict("records")],
        "verdicts": verdicts,
        "of_clients": _variant_of_clients(list(results["variant"])),
        "source": ", ".join(str(value) for value in (data.source.name, *data.source.options.values()) if value),
        "architecture": experiment.model.name,
        "parameters": parameters,
        "epochs": experiment.train.epochs,
        "augment": [one.name for one in data.augment],
        "base": experiment.compress.base if experiment.compress else None,
    }
    return _render(folder / "MODEL_CARD.md", values)


def _variant_of_clients(variants: list[str]) -> str | None:
    return next((name for name in _TAKEN if name in variants), None)


def _told(image: Port, probabilities: Port) -> dict[str, str]:
    """Say what a file takes for a pixel, and how to read what it gives."""
    pixel = "pixel" if image.scale in (0, 1) else f"pixel / {image.scale:.9g}"  # 0 where nothing is quantised
    takes, gives = f"{image.dtype}: {pixel}", f"{probabilities.dtype}: p"
    if image.zero_point:
        takes += f" {_signed(image.zero_point)}"
    if probabilities.scale:
        zero = -probabilities.zero_point
        gives += f" = {probabilities.scale:.9g} × {f'(q {_signed(zero)})' if zero else 'q'}"
    return {"takes": takes, "gives": gives}


def _signed(number: int) -> str:
    return f"{'-' if number < 0 else '+'} {abs(number)}"


def _plain(text: str) -> str:
    """Write a text in Markdown so that none of it is markup; an underline inside a word is none."""
    return re.sub(r"[\\`*<|~&\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def _code(text: str) -> str:
    """Write a text as code in Markdown, between more backticks than it has in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _render(path: Path, values: Mapping[str, Any]) -> Path:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Source code and Markdown. Free texts (class names, command, paths) are in the card only, by these filters.
        autoescape=False,
    )
    templates.filters |= {"plain": _plain, "code": _code}
    write_atomically(path, templates.get_template(f"{path.name}.j2").render(values))
    return path
