"""Models read from files, whatever may be in them."""

import zipfile
from pathlib import Path

import keras

import pipeline.models.layers  # noqa: F401  a model may hold them
from pipeline.errors import UserError


def load_model_file(path: Path, mend: str) -> keras.Model:
    """Load a .keras or .h5 file, without its optimizer; code inside it is never run.

    Raises UserError for what is no model; `mend` is the clause that says what to do then.
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be read as a Keras model ({reason}); {mend}") from None
