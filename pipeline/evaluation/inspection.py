"""What a model costs and sees, layer by layer: a table from the graph, and a picture that measures, too."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.errors import UserError
from pipeline.evaluation import figures
from pipeline.evaluation.scoring import load_model
from pipeline.models.files import load_model_file
from pipeline.models.inspect import Field, activation_memory, layer_costs, receptive_fields
from pipeline.models.stages import stages
from pipeline.registry import MODELS
from pipeline.runs import Run, write_atomically

_IMAGES = 8
# Of the largest: what lies outside two standard deviations of a Gaussian (arXiv 1701.04128, section 3).
_COUNTS = 1 - 0.9545
_SHOWN = 4


def open_model(subject: str) -> keras.Model:
    """Return the model of a finished run or of a `.keras` file, or a registered one with fresh weights.

    Raises UserError for what is none of these, and for a model of images of any size, whose costs have no number.
    """
    model = _open(subject)
    if None in model.inputs[0].shape[1:]:
        raise UserError(f"{subject} takes images of any size: what it costs depends on it; save it with a fixed size")
    return model


def _open(subject: str) -> keras.Model:
    path = Path(subject)
    if path.suffix == ".keras":
        return load_model_file(path, "give another, a run or the name of a model")
    if path.is_dir() or subject not in MODELS.names():
        if not path.exists():
            raise UserError(
                f"{subject!r} is no run, no .keras file and no model; {MODELS.nearest(subject)}", usage=True
            )
        return load_model(Run.open(path))
    keras.utils.set_random_seed(0)
    return MODELS.build(subject)


def inspect_model(model: keras.Model) -> pd.DataFrame:
    """Return one row per layer, in the order of the graph, of a functional model of one image.

    `parameters`, `macs`; `output_bytes`, which the layer writes, and `alive_bytes`, all that is held while it runs (for
    one image in float32; the largest is the peak); `field`, `field_stride` and `field_centre`, what its units see, in
    pixels of the image, as [rows, columns], or None where that is not known.
    """
    memory, fields = pd.DataFrame(activation_memory(model)).groupby("name"), receptive_fields(model)
    rows = []
    for cost in layer_costs(model):
        field = fields[cost.name]
        rows.append(
            {
                "layer": cost.name,
                "kind": cost.kind,
                "output": list(cost.output_shape),
                "parameters": cost.parameters,
                "macs": cost.macs,
                "output_bytes": int(memory["output"].sum()[cost.name]),
                "alive_bytes": int(memory["alive"].max()[cost.name]),
                "field": list(field.size) if field else None,
                "field_stride": list(field.stride) if field else None,
                "field_centre": list(field.centre) if field else None,
            }
        )
    return pd.DataFrame(rows)


def measure_fields(model: keras.Model, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with `effective`: the side in pixels of what each layer sees with the weights that it has.

    Measured on noise, as `effective_field` does; None where a layer's units have no place in the image. It takes a
    pass forth and back for each layer.
    """
    images, placed = _noise(model), set(_placed(table)["layer"])
    sizes = [
        effective_size(effective_field(model, name, images)) if name in placed else None for name in table["layer"]
    ]
    return table.assign(effective=sizes)


def shorten(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table for reading: millions, KiB, and one number where rows and columns agree."""
    return pd.DataFrame(
        {
            "layer": table["layer"],
            "output": table["output"].map(_by),
            "weights": table["parameters"],
            "MACs (M)": table["macs"] / 1e6,
            "KiB": table["output_bytes"] / 1024,
            "alive": table["alive_bytes"] / 1024,
            "sees": table["field"].map(_pair),
            **({"uses": table["effective"].round(1)} if "effective" in table else {}),
            "stride": table["field_stride"].map(_pair),
        }
    )


def describe(table: pd.DataFrame) -> str:
    """Sum the table up in one sentence."""
    peak = table.loc[table["alive_bytes"].idxmax()]
    return (
        f"{table['parameters'].sum():,} parameters, {table['macs'].sum() / 1e6:,.3f} M multiply-accumulates, "
        f"at most {peak['alive_bytes'] / 1024:,.0f} KiB of activations at once (at {peak['layer']}, float32, one image)"
    )


def effective_field(model: keras.Model, layer: str, images: np.ndarray) -> np.ndarray:
    """Measure how much each pixel of the image matters to the centre unit of a layer, (H, W), the largest 1.

    The absolute gradient of the unit's features, summed, averaged over images and colours (Luo et al., arXiv
    1701.04128). `images` are (N, H, W, C) in 0..255. Raises UserError for a layer whose output has no rows and columns.
    """
    feature = model.get_layer(layer).output
    if len(feature.shape) != 4:
        raise UserError(f"the layer {layer!r} gives {feature.shape}, which has no place in the image; name another")
    row, column = (size // 2 for size in feature.shape[1:3])
    part, pixels = keras.Model(model.inputs, feature), tf.constant(images, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        unit = tf.reduce_sum(part(pixels, training=False)[:, row, column])
    matters = np.abs(tape.gradient(unit, pixels).numpy()).mean(axis=(0, 3))
    return matters / max(matters.max(), np.finfo(np.float32).tiny)


def effective_size(matters: np.ndarray) -> float:
    """Return the side, in pixels, of a square with as many pixels as matter: above 4.55 % of the largest (ibid.)."""
    return float(np.sqrt(np.count_nonzero(matters > _COUNTS)))


def draw_inspection(model: keras.Model, table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Write a PNG of what the stages see, by theory and measured, and of the memory; return the measured sizes.

    Measured on noise, with the weights that the model has. At most four layers are shown, spread over the depth.
    """
    images = _noise(model)
    rows = table.set_index("layer")
    shown, measured = [], []
    for name in _layers_to_show(model, table):
        field = Field(*(tuple(rows.loc[name, key]) for key in ("field", "field_stride", "field_centre")))
        matters = effective_field(model, name, images)
        unit = [size // 2 for size in rows.loc[name, "output"][:2]]
        centre = tuple(c + s * u for c, s, u in zip(field.centre, field.stride, unit, strict=True))
        shown.append(figures.Seen(name, matters, field.size, centre, effective_size(matters)))
        measured.append((name, max(field.size), effective_size(matters)))
    write_atomically(path, figures.receptive_fields(shown, table))
    return pd.DataFrame(measured, columns=["layer", "sees", "effectively"])


def _noise(model: keras.Model) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (_IMAGES, *model.input.shape[1:])).astype(np.float32)


def _placed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the layers whose units have a place in the image."""
    return table[table["field"].notna() & table["output"].map(lambda shape: len(shape) == 3)]


def _layers_to_show(model: keras.Model, table: pd.DataFrame) -> list[str]:
    """Choose the marked stages, or layers with a kernel; only those whose units have a place and a known field."""
    known = _placed(table)
    names = [f"c{level}" for level in stages(model)] or list(known[known["macs"] > 0]["layer"])
    names = [name for name in names if name in set(known["layer"])]
    picked = np.unique(np.linspace(0, len(names) - 1, _SHOWN).round().astype(int)) if names else []
    return [names[index] for index in picked]


def _pair(values: list[float] | None) -> str | None:
    if values is None:
        return None
    return f"{values[0]:g}" if values[0] == values[1] else _by(values)


def _by(values: list[float]) -> str:
    return "×".join(f"{value:g}" for value in values)
