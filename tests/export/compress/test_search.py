"""A budget finds a file that meets it, or says what could be reached."""

import keras
import numpy as np
import pandas as pd
import pytest

from pipeline import Run, UserError, compress
from pipeline.budget import Budget
from pipeline.export.compress.candidates import NUMBERS, RATIOS, Structure, propose, weigh
from pipeline.export.compress.resolution import at_resolution, enlarging
from pipeline.export.compress.search import judge, search
from pipeline.registry import MODELS, TASKS


@pytest.fixture
def few_structures(monkeypatch):
    """Let a search choose from three networks: what it does with them does not depend on their number."""
    monkeypatch.setattr("pipeline.export.compress.candidates.RATIOS", (0.0, 0.5, 0.75))


def points(rows: list[tuple[str, float, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["variant", "difference", "bytes", "latency_ms_p50"])


def test_the_front_and_the_choice_of_a_hand_made_table():
    table = points(
        [
            ("base float32", 0.0, 1000, 1.0),
            ("a", -0.2, 400, 0.5),
            ("b", -0.2, 300, 0.6),  # neither a nor b beats the other
            ("c", -0.3, 400, 0.6),  # beaten by a and by b
            ("d", -2.0, 100, 0.1),
            ("e", -0.2, 400, 0.7),  # beaten by a
        ]
    )
    judged = judge(table, Budget(size=500, drop=0.5)).set_index("variant")
    assert list(judged.index[judged["on_front"]]) == ["base float32", "a", "b", "d"]
    assert list(judged.index[judged["within"]]) == ["a", "b", "c", "e"]
    assert list(judged.index[judged["chosen"]]) == ["a"]  # loses as little as b and e, and is faster


def test_nothing_is_chosen_where_nothing_is_within():
    judged = judge(points([("base float32", 0.0, 10, 0.1), ("a", -3.0, 10, 0.1)]), Budget(drop=1.0))
    assert not judged["chosen"].any()
    assert not judged["within"].any()  # not even the original's own file, which is no choice


def test_structures_are_smaller_and_what_cannot_shrink_keeps_its_images():
    found = propose(MODELS.build("resnet8", (32, 32, 3), 5))
    assert {one.image_size for one in found} == {(32, 32), (24, 24)}
    sizes = [model.count_params() for one, model in found.items() if one.image_size == (32, 32)]
    assert sizes == sorted(set(sizes), reverse=True)
    assert 3 <= len(sizes) <= len(RATIOS)
    flattening = propose(MODELS.build("lenet5", (32, 32, 1), 5))
    assert {one.image_size for one in flattening} == {(32, 32)}


def test_fewer_channels_and_bits_weigh_less(tmp_path):
    found = propose(MODELS.build("resnet8", (32, 32, 3), 5))
    chosen = {one: found[one] for one in (Structure(0.0, (32, 32)), Structure(0.5, (32, 32)))}
    table = weigh(chosen, TASKS.build("classification", tuple("abcde"), None), tmp_path)
    assert len(table) == 2 * len(NUMBERS)
    by_name = {(row.structure.ratio, str(row.numbers)): row.bytes for row in table.itertuples()}
    assert by_name[0.5, "int8"] < by_name[0.0, "int8"] < by_name[0.0, "float16"]
    assert by_name[0.0, "w4a8"] < by_name[0.0, "int8"]
    assert (table["latency_ms"] > 0).all()


def test_a_model_on_smaller_images_and_the_original_on_them_enlarged():
    model = MODELS.build("resnet8", (32, 32, 3), 5)
    small = at_resolution(model, (24, 24))
    assert small.input_shape == (None, 24, 24, 3)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), small.get_weights(), strict=True))
    images = np.random.default_rng(0).uniform(0, 255, (2, 24, 24, 3)).astype("float32")
    large = keras.ops.image.resize(images, (32, 32))
    np.testing.assert_allclose(enlarging(model, (24, 24))(images), model(large), rtol=1e-5, atol=1e-5)


def test_weights_that_depend_on_the_size_are_named():
    with pytest.raises(UserError, match=r"'lenet5' cannot take images of 24×24: .*; keep data\.image_size"):
        at_resolution(MODELS.build("lenet5", (32, 32, 1), 5), (24, 24))


def test_a_budget_makes_a_run_within_it_and_is_not_searched_twice(few_structures, digits_run, tmp_path, monkeypatch):
    short = ["compress.channels={epochs: 1, multiple: 1}", "compress.qat.epochs=1", "export.variants=[float32, int8]"]
    made = compress(digits_run, tmp_path / "out", budget="size<20kB, drop<60pp", overrides=short)
    table = pd.read_csv(made.run.search_dir / "points.csv").set_index("variant")
    assert table["chosen"].sum() == 1
    assert table.loc[table["chosen"], "bytes"].item() < 20_000
    assert (made.run.search_dir / "reason.txt").read_text().startswith("chosen: ")
    assert made.run.facts["budget"] == "size < 20,000 B, drop < 60 pp"
    assert "How it was chosen" in made.run.report_path.read_text(encoding="utf-8")
    monkeypatch.setattr("pipeline.export.compress.compress.search", None)  # would fail if it were called
    assert compress(digits_run, tmp_path / "out", budget="size<20kB, drop<60pp", overrides=short).run == made.run


def test_a_budget_that_cannot_be_met_says_what_can(digits_run):
    with pytest.raises(
        UserError, match=r"nothing is within size < 100 B: the smallest file has [\d,]+ bytes and takes"
    ):
        search(digits_run, Budget(size=100))
    with pytest.raises(UserError, match=r"no file within .*: of those that are small and fast enough, the best is"):
        search(digits_run, Budget(size=6_500, drop=1e-9), epochs=1)


def test_a_budget_that_the_run_itself_meets_is_said_at_once(few_structures, digits_run):
    with pytest.raises(UserError, match=r"nothing has to be compressed: the run's own float16 file has [\d,]+ bytes"):
        search(digits_run, Budget(size=10_000_000, drop=1))


def test_a_run_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        compress(Run(tmp_path / "gone").path, tmp_path / "out", budget="size<1kB")
