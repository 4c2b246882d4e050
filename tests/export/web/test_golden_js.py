"""'Check this browser' agrees where it should, and finds what was planted."""

import shutil
import zipfile

import pytest
from driving import drive, serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REFUSED = {"int8": "INT8", "w4a8": "INT8", "mixed": "INT8", "int16x8": "INT16"}
FILL = "new Float32Array(pixels)"
FAULTS = {
    "BGR": ["/variant.js", FILL, "new Float32Array(pixels).map((_, i, all) => all[i - (i % 3) + 2 - (i % 3)])"],
    "normalised twice": ["/variant.js", FILL, "new Float32Array(pixels).map((value) => value / 127.5 - 1)"],
    "half a grey level": ["/variant.js", FILL, "new Float32Array(pixels).map((value) => value + 0.5)"],
    "swapped answers": ["/variant.js", "return stored;", "return stored.reverse();"],
}


@pytest.fixture(scope="module")
def checked(classifier, variants):
    """What the page says of every variant that the runtime takes."""
    taken = [name for name in variants if name not in REFUSED]
    said = drive(classifier.url, [step for name in taken for step in (["choose", name], ["check"])])
    return said, dict(zip(taken, said.steps[2::2], strict=True))


def test_every_variant_that_is_taken_gives_the_recorded_answers(checked):
    said, verdicts = checked
    assert set(verdicts) >= {"float32", "float16", "dynamic", "uint8", "weight_int4"}
    assert said.violations == said.foreign == said.errors == []
    for name, step in verdicts.items():
        assert step["verdict"].startswith(f"✓ {name} gives the recorded answers on all 4 images"), step["verdict"]


def test_the_others_are_refused_with_the_runtime_s_reason(checked):
    rows = checked[0].steps[0]["rows"]
    assert {name for name, row in rows.items() if row["refused"]} == set(REFUSED)
    for name, kind in REFUSED.items():
        expected = f"not taken by the browser's runtime: Element type {kind} is not supported."
        assert rows[name]["cells"][1] == expected


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_planted_faults_are_found(classifier, fault):
    verdict = drive(classifier.url, [["check"]], faults=(fault,)).last["verdict"]
    assert verdict.startswith("✗ float32 gives other answers than recorded on 4 of 4 images"), verdict


def test_swapped_labels_are_found(classifier, tmp_path):
    """The labels behind the model, inside its file, tell that labels.txt is another list."""
    shutil.copytree(classifier.folder, tmp_path / "bundle")
    for path in (tmp_path / "bundle").glob("*.tflite"):
        with zipfile.ZipFile(path, "a") as archive:
            archive.write(classifier.folder / "labels.txt", "labels.txt")
    swapped = ["/bundle/labels.txt", "ant\nbee\n", "bee\nant\n"]
    with serve(tmp_path / "bundle") as url:
        right, wrong = (drive(url, [["check"]], faults=faults).last["verdict"] for faults in ((), (swapped,)))
    assert right.startswith("✓")
    assert wrong == "✗ labels.txt is not the list of labels inside float32."
