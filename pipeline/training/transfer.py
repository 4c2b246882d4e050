"""Where the weights of a training come from that does not start afresh."""

from pathlib import Path

import keras

from pipeline.errors import UserError
from pipeline.models.files import load_model_file
from pipeline.models.transfer import Group, adopt, groups
from pipeline.sections import Transfer
from pipeline.training.learned import model_file


def start(transfer: Transfer, model: keras.Model, run: Path) -> list[Group]:
    """Give a new model the weights to start from, all but its head, and return its layers in the order of learning.

    Raises UserError where the base is no finished run and no .keras file, is `run` itself, which is about to be
    written, or is of another architecture.
    """
    if transfer.base is None:  # they came with the model
        return groups(model)
    path = model_file(transfer.base, "transfer.base")
    if path.resolve().is_relative_to(run.resolve()):
        raise UserError(f"{run} is the run to start from; give another --run", usage=True)
    base = load_model_file(path, "give a run or a .keras file")
    return groups(model, adopt(model, base, f"transfer.base: {transfer.base}"))
