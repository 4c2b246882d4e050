"""The report: self-contained, escaped, from whatever a run holds."""

import html.parser
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.pictures import base64_pngs
from pipeline.evaluation.report import write_report
from pipeline.evaluation.report.tables import flat_table, metrics_table, to_table
from pipeline.runs import write_atomically

EVIL = "<script>alert(1)</script>"
_VOID = {"meta", "img", "source", "line", "br", "link"}


class Page(html.parser.HTMLParser):
    """Collect tags, attributes and text, and fail on tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def add_evaluation(run, classes, name="test"):
    """Write an evaluation's files as `evaluate` does, with these class names."""
    folder = run.evaluation_dir(name)
    kinds = len(classes)
    counts = np.eye(kinds, dtype=int) * 9 + np.eye(kinds, k=1, dtype=int)
    confusion = pd.DataFrame(counts, pd.Index(classes, name="truth"), list(classes))
    per_class = pd.DataFrame({"class": classes, "recall": 0.9, "recall_low": 0.8, "recall_high": 0.95, "support": 10})
    metrics = {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.94, "n": 1234}}
    metrics["log_loss"] = {"value": 1.5, "low": 1.4, "high": 1.6, "n": 1234}
    about = {
        "source": {"name": "folder", "path": EVIL}, "corrupt": [EVIL, "b.jpg"], "split": name, "legend": {},
        "lower_is_better": ["log_loss"],
    }  # fmt: skip
    mistakes = [{"id": EVIL, "caption": f"{EVIL} → 3", "png": "AAAA"}]
    write_atomically(folder / "confusion.csv", confusion.to_csv())
    write_atomically(folder / "per_class.csv", per_class.to_csv(index=False))
    for file, content in (("metrics", metrics), ("about", about), ("mistakes", mistakes)):
        write_atomically(folder / f"{file}.json", json.dumps(content))


@pytest.fixture
def hostile_run(make_run, tmp_path):
    classes = (EVIL, 'a"b', "NA", "{{ 7 * 7 }}", "id")
    run = make_run(tmp_path / "a&b", ["data.image_size=[8,8]"], classes)
    add_evaluation(run, classes)
    return run


def test_a_run_that_was_only_trained_has_a_report(digits_run):
    found = page(digits_run)
    assert "Not evaluated yet" in found.text
    assert "simple_cnn" in found.text
    assert found.tags.count("picture") == 2  # loss and learning rate


def test_nothing_is_loaded_from_anywhere(digits_run):
    evaluate(digits_run)
    text = digits_run.report_path.read_text()
    assert not re.search(r"""(src|srcset|href|action)=(?!"data:)|url\(|@import|<link|<script|<iframe""", text)
    assert "http:" not in text
    assert "https:" not in text
    policy = [value for _, name, value in Page(text).attributes if name == "content" and "default-src" in value]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_every_picture_has_words_and_a_dark_version(digits_run):
    evaluate(digits_run)
    found = page(digits_run)
    words = [value for tag, name, value in found.attributes if tag == "img" and name == "alt"]
    assert len(words) == found.tags.count("img") > 5
    assert found.tags.count("source") == found.tags.count("picture") == 4  # curves, confusion, calibration


def test_text_of_the_data_is_escaped(hostile_run):
    text = write_report(hostile_run).read_text()
    assert "<script" not in text
    found = Page(text)
    assert found.text.count(EVIL) >= 6  # per class, confusions, source, corrupt, caption, id
    assert "script" not in found.tags
    assert "{{ 7 * 7 }}" in found.text
    assert "NA" in found.text
    assert "a&b" in found.text


def test_the_headline_says_what_the_score_is_with_its_interval_and_n(hostile_run):
    add_evaluation(hostile_run, hostile_run.classes, "earlier-split")
    found = page(hostile_run)
    assert "accuracy 90.0 % (95 % interval 85.0 to 94.0 %, n = 1,234)" in found.text
    assert found.text.index("Scores on test") < found.text.index("Scores on earlier-split")


def test_results_of_an_export_are_shown_with_a_picture(hostile_run):
    results = pd.DataFrame(
        {"variant": ["float32", "int8"], "file": ["float32.tflite", "int8.tflite"], "bytes": [400_000, 100_000],
         "score": [0.9, 0.89], "low": [0.85, 0.84], "high": [0.94, 0.93], "p_value": [1.0, 0.25],
         "verdict": ["ok", "not shown"], "latency_ms_p50": [0.1, 0.05]}
    )  # fmt: skip
    before = page(hostile_run).tags.count("picture")
    write_atomically(hostile_run.export_dir / "results.csv", results.to_csv(index=False))
    found = page(hostile_run)
    for text in ("int8.tflite", "400,000", "0.890 (0.840 to 0.930)", "not shown", "0.2500", "pipeline export"):
        assert text in found.text
    assert found.tags.count("picture") == before + 1


def test_what_the_export_found_in_the_layers_is_shown_and_escaped(hostile_run):
    results = pd.DataFrame({"variant": ["mixed"], "file": ["mixed.tflite"], "bytes": [1]})
    write_atomically(hostile_run.export_dir / "results.csv", results.to_csv(index=False))
    assert "What may hurt the integer files" not in page(hostile_run).text
    lint = pd.DataFrame({"rule": ["channels"], "layers": [EVIL], "hurts": ["slows"], "mend": ["round"]})
    sensitivity = pd.DataFrame({"layer": ["conv"], "operator": ["CONV_2D"], "sqnr_db": [41.5], "share": [1.0]})
    write_atomically(hostile_run.export_dir / "lint.csv", lint.to_csv(index=False))
    write_atomically(hostile_run.export_dir / "sensitivity.csv", sensitivity.to_csv(index=False))
    found = page(hostile_run)
    for text in ("What may hurt the integer files", EVIL, "What int8 costs, layer by layer", "41.5"):
        assert text in found.text
    assert "script" not in found.tags
    write_atomically(hostile_run.export_dir / "lint.csv", lint[:0].to_csv(index=False))
    assert "What may hurt the integer files" not in page(hostile_run).text


def test_the_data_is_counted_and_shown_after_an_evaluation(digits_run):
    assert "<h2>Data</h2>" not in write_report(digits_run).read_text(encoding="utf-8")
    evaluate(digits_run)
    page = digits_run.report_path.read_text(encoding="utf-8")
    assert "<h2>Data</h2>" in page
    assert "A grid of augmented training images" in page
    counts = pd.read_csv(digits_run.data_dir / "counts.csv").set_index("class")
    assert counts.loc["all images"].sum() == 1797


def test_the_experiment_the_environment_and_the_commands_are_there(digits_run):
    found = page(digits_run)
    assert digits_run.experiment.to_yaml().strip() in found.text
    assert digits_run.facts["python"] in found.text
    assert f"pipeline eval {digits_run.path}" in found.text


def test_the_page_stays_below_5_mb_with_the_largest_pictures(make_run, tmp_path):
    classes = tuple(f"class {i}" for i in range(12))
    run = make_run(tmp_path / "large", ["data.image_size=[8,8]"], classes)
    noise = np.random.default_rng(0).integers(0, 256, (200, 600, 3), np.uint8)  # image, truth and answer of a mask
    pngs = base64_pngs([noise] * 24)
    for name in ("test", "validation"):
        add_evaluation(run, classes, name)
        mistakes = [{"id": f"{i}", "caption": "a → b", "png": png} for i, png in enumerate(pngs)]
        write_atomically(run.evaluation_dir(name) / "mistakes.json", json.dumps(mistakes))
    heats = [{"caption": "keras: a", "png": pngs[1]}, {"caption": "int8: b", "png": pngs[2]}]
    cards = [{"id": "1", "caption": "a → b", "png": png, "heats": heats} for png in pngs[:8]]
    flips = {"variant": "int8", "count": 12, "of": 1000, "cards": cards}
    write_atomically(run.export_dir / "flips.json", json.dumps(flips))
    write_atomically(run.export_dir / "measures.csv", pd.DataFrame({"measure": ["accuracy"], "keras": [1]}).to_csv())
    write_atomically(run.data_dir / "counts.csv", pd.DataFrame({"class": classes, "train": 1}).to_csv(index=False))
    write_atomically(run.data_dir / "samples.png", Image.fromarray(np.tile(noise, (8, 1, 1))).save)
    assert 2_500_000 < write_report(run).stat().st_size < 5_000_000


def test_metrics_say_which_way_is_better():
    table = metrics_table({"mean_iou": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 7}}, ["mean_iou"])
    assert [cell.text for cell in table.rows[0]] == ["mean IoU (lower is better)", "0.500 (0.400 to 0.600)", "7"]


def test_intervals_are_merged_and_what_is_missing_is_a_dash():
    frame = pd.DataFrame(
        {"class": ["a", "b"], "recall": [0.5, np.nan], "recall_low": [0.25, 0], "recall_high": [0.75, 1],
         "images": [1500, np.nan], "f1": [1.0, 0.25], "note": ["x", None]}
    )  # fmt: skip
    table = to_table(frame, bars=True)
    assert [cell.text for cell in table.head] == ["class", "recall, 95 % interval", "images", "F1", "note"]
    assert [cell.text for cell in table.rows[0]] == ["a", "0.500 (0.250 to 0.750)", "1,500", "1.0000", "x"]
    assert [cell.text for cell in table.rows[1]] == ["b", "–", "–", "0.2500", "–"]
    bar = table.rows[0][1].bar
    assert (bar.low, bar.value, bar.high) == (25, 50, 75)


def test_facts_are_flattened():
    table = flat_table({"a": {"b": 1, "c": [1, 2]}, "d": None})
    assert [[cell.text for cell in row] for row in table.rows] == [["a.b", "1"], ["a.c", "1, 2"], ["d", "None"]]
