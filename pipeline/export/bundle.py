"""One zip of a run's export folder, for whoever builds the app."""

import io
import zipfile
from pathlib import Path

from pipeline.errors import UserError
from pipeline.export.certificate import FILE, Certificate
from pipeline.runs import Run, write_atomically

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of zip; a clock would make two bundles of one export differ


def pack(run: Run, out: Path | None = None, *, force: bool = False) -> Path:
    """Write the certified files of a run as a zip, RUN.zip beside it unless `out` says otherwise; return its path.

    Raises UserError for a run that was not exported, or a file that is there already, unless `force`.
    """
    certificate = Certificate.read(run.export_dir)
    path = out or run.path.parent / f"{run.path.resolve().name}.zip"
    if path.exists() and not force:
        raise UserError(f"{path} is there already; --force replaces it")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted([*certificate.files, FILE]):
            source = run.export_dir / name
            if not source.is_file():
                raise UserError(f"{source} is missing; export the run again")
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), source.read_bytes(), zipfile.ZIP_DEFLATED)
    write_atomically(path, content.getvalue())
    return path
