"""The page in Chromium: pictures from everywhere get the answers of ai_edge_litert, and nothing leaves the machine."""

import base64
import io

import numpy as np
import pytest
from driving import drive
from PIL import Image

from pipeline.data.preprocess import Preprocess
from pipeline.export.interpreter import LiteModel

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A picture of another size and shape than the model's, lying on its side as EXIF says."""
    colours = np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    image = Image.fromarray(colours).resize((90, 61), Image.Resampling.BICUBIC)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def used(classifier, photo, tmp_path_factory):
    """What the page said to one person's whole visit."""
    text = tmp_path_factory.mktemp("files") / "notes.txt"
    text.write_text("no picture")
    steps = [
        ["file", str(photo)],
        ["drop", str(photo)],
        ["sample", 2],
        ["badFile", str(text)],
        ["camera"],
        ["frame"],
        ["choose", "uint8"],
    ]
    said = drive(classifier.url, steps)
    names = ["loaded", *(step[0] for step in steps)]
    return said, dict(zip(names, said.steps, strict=True))


def test_page_is_alone_with_itself(used):
    said, _ = used
    assert said.violations == []
    assert said.foreign == []
    assert said.errors == []
    assert said.isolated  # or its clock would be too coarse for small models


@pytest.mark.parametrize("way", ["file", "drop"])
def test_picture_is_seen_and_answered_as_by_python(used, classifier, photo, way):
    step = used[1][way]
    pixels = Preprocess.from_json((classifier.folder / "preprocess.json").read_text()).read_file(photo)
    np.testing.assert_array_equal(decode(step["seen"]), pixels)
    [expected] = LiteModel.open(classifier.folder / "float32.tflite").predict(pixels[None])
    assert answer_of(step) == best(expected, classifier.labels)
    assert step["status"].startswith(f"{answer_of(step)[0]}, ")


def test_every_row_has_its_own_file_s_answer(used, classifier, photo):
    pixels = Preprocess.from_json((classifier.folder / "preprocess.json").read_text()).read_file(photo)
    compared = {name: row["cells"] for name, row in used[1]["file"]["rows"].items() if not row["refused"]}
    assert {"float32", "float16", "dynamic", "uint8"} <= set(compared)
    for name, (_, label, share, _, milliseconds) in compared.items():
        [expected] = LiteModel.open(classifier.folder / f"{name}.tflite").predict(pixels[None])
        assert label == best(expected, classifier.labels)[0]
        assert float(share.split()[0]) == pytest.approx(100 * expected.max(), abs=0.5)
        assert float(milliseconds) > 0


def test_a_picture_that_comes_before_the_files_waits_for_them(classifier, photo):
    slow = [
        "/page.js",
        "await startRuntime();",
        "await new Promise((go) => setTimeout(go, 1500)); await startRuntime();",
    ]
    said = drive(classifier.url, [], faults=[slow], early=str(photo))
    assert said.errors == []
    assert said.last["problem"] == ""
    assert said.last["rows"]["uint8"]["cells"][1] != "–"


def test_test_image_is_shown_as_it_is(used, images):
    np.testing.assert_array_equal(decode(used[1]["sample"]["seen"]), images[2])


def test_camera_is_answered_live_and_in_one_frame(used):
    for way in ("camera", "frame"):
        assert len(used[1][way]["bars"]) > 0
    assert used[1]["camera"]["rows"]["float16"]["cells"][1] == "–"  # one variant at a time
    assert used[1]["frame"]["rows"]["float16"]["cells"][1] != "–"


def test_what_is_no_picture_is_said(used):
    assert used[1]["badFile"]["problem"] == "notes.txt is not a picture that this browser can read."
    assert used[1]["camera"]["problem"] == ""


def test_mask_is_drawn_over_the_picture(segmenter, tmp_path):
    halves = np.zeros((40, 40, 3), np.uint8)
    halves[:, :10, 0] = halves[:, 10:, 2] = 255
    Image.fromarray(halves).save(tmp_path / "halves.png")
    said = drive(segmenter.url, [["file", str(tmp_path / "halves.png")]])
    assert said.violations == said.foreign == said.errors == []
    assert said.last["bars"] == [["blue", "75.0 %"], ["red", "25.0 %"]]
    assert said.last["rows"]["uint8"]["cells"][3] == "100.0 %"
    drawn = decode(said.last["drawn"]).astype(int)
    colours = {"left": ((255, 0, 0), (0, 0, 0)), "right": ((0, 0, 255), (86, 180, 233))}
    for column, (below, above) in zip((20, 100), colours.values(), strict=True):
        expected = 0.4 * np.array(below) + 0.6 * np.array(above)
        assert np.abs(drawn[80, column] - expected).max() <= 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(classifier, photo, scheme):
    view = {"viewport": {"width": 360, "height": 740}, "colorScheme": scheme}
    said = drive(classifier.url, [["file", str(photo)]], view=view)
    assert said.last["overflow"] == 0


def decode(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def answer_of(step: dict) -> tuple[str, str]:
    return tuple(step["bars"][0])


def best(probabilities: np.ndarray, labels: list[str]) -> tuple[str, str]:
    return labels[probabilities.argmax()], f"{100 * probabilities.max():.1f} %"
