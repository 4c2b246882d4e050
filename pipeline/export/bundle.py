"""One zip of a run's export folder, for whoever builds the app; unpacked again without trust in it."""

import io
import lzma
import zipfile
import zlib
from pathlib import Path

from pipeline.errors import UserError
from pipeline.runs import Run, write_atomically

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of zip; a clock would make two bundles of one export differ
_MOST_BYTES = 2**32  # of an unpacked bundle
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


def pack(run: Run, out: Path | None = None, *, force: bool = False) -> Path:
    """Write the certified files of a run as a zip, RUN.zip beside it unless `out` says otherwise; return its path.

    Raises UserError for a run that was not exported or was changed since, or a file that is there already, unless
    `force`.
    """
    from pipeline.export.certificate import FILE, Certificate, sha256  # it brings Keras, which the demo does without

    certificate = Certificate.read(run.export_dir)
    path = out or run.path.parent / f"{run.path.resolve().name}.zip"
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the zip a name, as in --out {path / run.path.resolve().name}.zip")
    if path.exists() and not force:
        raise UserError(f"{path} is there already; --force replaces it")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted([*certificate.files, FILE]):
            source = run.export_dir / name
            if not source.is_file():
                raise UserError(f"{source} is missing; export the run again")
            found = source.read_bytes()
            if name != FILE and sha256(found) != certificate.files[name]:
                raise UserError(f"{source} was changed after it was certified; export the run again")
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), found, zipfile.ZIP_DEFLATED)
    write_atomically(path, content.getvalue())
    return path


def unpack(path: Path, folder: Path) -> None:
    """Unpack a bundle's zip; raises UserError for one that is none, is damaged, too large or leaves the folder."""
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is neither an export folder nor the zip of one, or it was cut short")
    require_whole(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not (folder / entry.filename).resolve().is_relative_to(folder.resolve()):
                    raise UserError(f"{path} has an entry that leaves its folder: {entry.filename}")
            archive.extractall(folder)
    except OSError as error:  # a full disk, or a file where another entry needs a folder
        raise UserError(f"{path} cannot be unpacked ({error.strerror or error})") from None


def require_whole(path: Path) -> None:
    """Raise UserError for a zip that is damaged, or holds more than any bundle."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise UserError(f"{path} unpacks to more than {_MOST_BYTES / 2**30:.0f} GiB")
            broken = archive.testzip()
    except _DAMAGED as error:
        broken = repr(error)
    if broken is not None:
        raise UserError(f"{path} is damaged: it cannot be unpacked ({broken})")
