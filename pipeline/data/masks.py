"""The names of mask classes: written beside the masks, or counted from them."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipeline.data.decoding import read_indices
from pipeline.errors import UserError
from pipeline.ops.segmentation import VOID


def mask_classes(root: Path, folders: Sequence[Path], void: int | None) -> list[str]:
    """Return the lines of classes.txt or labels.txt in `root`, else "class 0" up to the largest index in the masks.

    Counting decodes every mask once. VOID and `void` are no classes.
    """
    for name in ("classes.txt", "labels.txt"):
        if (root / name).is_file():
            try:
                lines = (root / name).read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError:
                raise UserError(f"{root / name} is not text in UTF-8; save it as that.") from None
            return [line.strip() for line in lines if line.strip()]
    masks = [path for folder in folders for path in folder.rglob("*.[pP][nN][gG]")]
    with ThreadPoolExecutor() as pool:
        indices = {index for found in pool.map(_indices, masks) for index in found} - {VOID, void}
    if len(indices) < 2:
        found = ", ".join(str(index) for index in sorted(indices)) or "no index"
        raise UserError(
            f"the masks in {root} hold one class only ({found} beside {VOID}, which is no class); "
            "write the classes of the pixels as 0, 1, 2, ..."
        )
    return [f"class {index}" for index in range(max(indices) + 1)]


def _indices(path: Path) -> Iterable[int]:
    try:
        return np.unique(read_indices(path.read_bytes())).tolist()
    except (ValueError, OSError, IndexError):  # a damaged mask is counted as corrupt later, with its image
        return ()
