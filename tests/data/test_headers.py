"""Headers say what a file is without decoding it; what is no image is refused with a reason."""

import warnings

import numpy as np
import pytest
from PIL import Image

from pipeline.data.headers import Header, Refusal, scan_headers
from pipeline.data.preprocess import Preprocess
from pipeline.errors import UserError


def test_size_mode_and_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg", exif=exif)
    Image.new("P", (5, 7)).save(tmp_path / "mask.png")
    photo, mask = scan_headers([tmp_path / "photo.jpg", tmp_path / "mask.png"])
    assert photo == Header(30, 20, "RGB", 8)
    assert photo.upright_size == (30, 20)
    assert mask == Header(5, 7, "P", 1)
    assert mask.upright_size == (7, 5)


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_impossible_orientation_counts_as_upright(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    Image.new("RGB", (3, 2)).save(tmp_path / "x.jpg", exif=exif)
    assert scan_headers([tmp_path / "x.jpg"]) == [Header(3, 2, "RGB", 1)]


def test_broken_exif_does_not_refuse_the_picture(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "x.jpg", exif=b"Exif\0\0nonsense")
    assert scan_headers([tmp_path / "x.jpg"]) == [Header(3, 2, "RGB", 1)]


def test_pictures_of_a_camera_that_stores_two_in_a_file(tmp_path):
    red, blue = Image.new("RGB", (16, 8), (255, 0, 0)), Image.new("RGB", (16, 8), (0, 0, 255))
    red.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[blue])
    assert scan_headers([tmp_path / "x.jpg"]) == [Header(16, 8, "RGB", 1)]
    np.testing.assert_allclose(Preprocess((1, 1)).read_file(tmp_path / "x.jpg")[0, 0], [255, 0, 0], atol=3)


def test_order_is_kept_over_many_files(tmp_path):
    sizes = np.random.default_rng(0).integers(1, 30, (20, 2)).tolist()
    for index, size in enumerate(sizes):
        Image.new("L", size).save(tmp_path / f"{index}.png")
    headers = scan_headers([tmp_path / f"{index % 20}.png" for index in range(1000)])
    assert [[header.width, header.height] for header in headers] == [sizes[index % 20] for index in range(1000)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"just words", "is not a JPEG, PNG, GIF, BMP or WebP image"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "is not a JPEG, PNG, GIF, BMP or WebP image"),  # TIFF
    ],
)
def test_reasons(tmp_path, content, reason):
    (tmp_path / "x.jpg").write_bytes(content)
    assert scan_headers([tmp_path / "x.jpg"]) == [Refusal(reason)]


def test_missing_files_and_folders(tmp_path):
    refusals = scan_headers([tmp_path / "nowhere.jpg", tmp_path])
    assert refusals == [Refusal("does not exist"), Refusal("is a folder")]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_damaged_headers_never_raise(tmp_path, kind, share):
    path = tmp_path / "x"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)).save(path, kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    [found] = scan_headers([path])
    assert isinstance(found, Header | Refusal)


@pytest.mark.parametrize("limit", [150, 30], ids=["above Pillow's warning", "above Pillow's error"])
def test_too_many_pixels_are_refused_without_a_warning(tmp_path, monkeypatch, limit):
    Image.new("L", (20, 10)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        [found] = scan_headers([tmp_path / "bomb.png"])
        with pytest.raises(UserError, match=r"bomb\.png has more pixels than the limit of 89,478,485\."):
            Preprocess((8, 8)).read_file(tmp_path / "bomb.png")
    assert isinstance(found, Refusal)
    assert not caught
