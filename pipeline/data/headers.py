"""What the first bytes of an image file say, read without decoding a single pixel."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# WebP is named because Pillow loads its plugin only after another one has failed.
from PIL import ExifTags, Image, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp"})
MAX_PIXELS = Image.MAX_IMAGE_PIXELS  # 89,478,485: Pillow refuses to open more, so no such file is ever decoded


@dataclass(frozen=True)
class Header:
    """One image file: its size as stored, Pillow's pixel mode, and how to turn it upright (EXIF tag, 1 to 8)."""

    width: int
    height: int
    mode: str
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Return (height, width) as a person sees the picture."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


@dataclass(frozen=True)
class Refusal:
    """Why a file is left out, as a clause that follows its name: "is empty (0 bytes)"."""

    reason: str


def scan_headers(paths: Sequence[str | Path]) -> list[Header | Refusal]:
    """Read many headers in order. Files that cannot be images are refused, none is decoded."""
    # Parsing holds Python's lock, so threads only overlap the waiting for a slow disk; one task per file would cost
    # more than the parsing itself.
    chunks = [paths[start : start + 256] for start in range(0, len(paths), 256)]
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        # The filters are the process's, so the threads see them.
        warnings.simplefilter("ignore")  # broken EXIF blocks warn; such an image still is one
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return [header for chunk in pool.map(_read_headers, chunks) for header in chunk]


def _read_headers(paths: Sequence[str | Path]) -> list[Header | Refusal]:
    return [_read_header(path) for path in paths]


def _read_header(path: str | Path) -> Header | Refusal:
    try:
        with Image.open(path, formats=FORMATS) as image:
            return Header(*image.size, image.mode, _orientation(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Refusal(f"has more pixels than the limit of {MAX_PIXELS:,}")
    except FileNotFoundError:
        return Refusal("does not exist")
    except IsADirectoryError:
        return Refusal("is a folder")
    except PermissionError:
        return Refusal("may not be read by this user")
    except UnidentifiedImageError:
        if not Path(path).stat().st_size:
            return Refusal("is empty (0 bytes)")
        return Refusal("is not a JPEG, PNG, GIF, BMP or WebP image")
    except Exception as error:  # damaged headers surface as struct.error, SyntaxError, ValueError and more
        return Refusal(f"has a damaged header ({error})")


def _orientation(image: Image.Image) -> int:
    # PNG's getexif() decodes the whole picture to look for a late block, so it is asked only where one was seen.
    if "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return 1
    return orientation if orientation in range(1, 9) else 1
