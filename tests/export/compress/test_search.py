"""A budget finds a file that meets it, or says what could be reached."""

import keras
import numpy as np
import pandas as pd
import pytest

from pipeline import Experiment, Run, UserError, compress
from pipeline.budget import Budget
from pipeline.export.compress import prune_iteratively, reasons
from pipeline.export.compress.candidates import NUMBERS, RATIOS, Structure, propose, weigh
from pipeline.export.compress.resolution import at_resolution, enlarging
from pipeline.export.compress.search import Choice, judge, search
from pipeline.registry import MODELS, TASKS
from pipeline.sections import Channels


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
    assert [one.image_size for one in found if not one.ratio] == [(32, 32)]
    flattening = propose(MODELS.build("lenet5", (32, 32, 1), 5))
    assert {one.image_size for one in flattening} == {(32, 32)}


def small(size: int, channels: int = 16, *, head: bool = True) -> keras.Model:
    """Return a network of one prunable convolution, with scores or masks as its output."""
    image = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(channels, 3, padding="same", name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D()(x) if head else x
    return keras.Model(image, keras.layers.Dense(2)(x))


def test_a_model_keeps_its_own_image_size_whatever_it_is():
    assert {one.image_size for one in propose(small(36))} == {(36, 36), (24, 24)}
    assert {one.image_size for one in propose(small(28))} == {(28, 28)}


def test_masks_keep_their_size():
    assert {one.image_size for one in propose(small(64, head=False))} == {(64, 64)}


@pytest.mark.parametrize("options", [{"rounds": 2}, {"multiple": 1}, {"rounds": 3, "scope": "global", "multiple": 4}])
def test_structures_are_those_that_the_planned_rounds_leave(options, monkeypatch):
    monkeypatch.setattr("pipeline.export.compress.candidates.RATIOS", (0.0, 0.75))
    model, planned = small(24, 40), Channels(**options)
    pruning = planned.model_dump(include={"importance", "scope", "multiple"})
    expected = prune_iteratively(model, 0.75, planned.rounds, lambda smaller: smaller, **pruning)
    found = propose(model, planned)[Structure(0.75, (24, 24))]
    assert found.get_layer("conv").filters == expected.get_layer("conv").filters


def lossy(rows: list[tuple[str, float, int, float]]) -> pd.DataFrame:
    return points(rows).assign(difference_low=-9.0, difference_high=-1.0, n=100)


def test_of_lossy_files_only_those_that_fit_are_named():
    table = lossy([("base int8", 0.0, 900, 1.0), ("large", -1.0, 800, 1.0), ("fits", -4.0, 400, 0.1)])
    assert "the best is fits, which changes the score by -4.00" in reasons.too_lossy(table, Budget(size=500, drop=0.5))


def test_files_that_outgrow_the_budget_in_training_are_no_loss_of_accuracy():
    table = lossy([("base int8", 0.0, 900, 1.0), ("a", -1.0, 520, 1.1), ("b", -1.0, 510, 1.5)])
    reason = reasons.too_lossy(table, Budget(size=500, latency=1.0, drop=0.5))
    assert "is over a limit when trained; the nearest is a with 520 bytes and 1.1 ms, 10.0% over" in reason


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
    with pytest.raises(UserError, match=r"out is not the run of this search \(overrides differ\); give --force"):
        compress(digits_run, tmp_path / "out", budget="size<20kB, drop<60pp", overrides=[*short, "train.ema=0.9"])


@pytest.fixture
def unread(tmp_path) -> Run:
    """Return a run whose model nobody looks at."""
    run = Run.create(tmp_path / "base", Experiment.load("digits"))
    run.model_path.write_bytes(b"model")
    return run


def test_what_was_found_is_made_whatever_else_is_set(unread, tmp_path, monkeypatch):
    found = ["compress.channels.ratio=0.75", "compress.qat=null", "data.image_size=[16, 16]"]
    choice = Choice(found, "w4a8", pd.DataFrame(), "chosen: it")
    made = []

    def stop(experiment, out, *, force):
        made.append(experiment)
        raise UserError("stopped")

    monkeypatch.setattr("pipeline.export.compress.compress.search", lambda *_, **__: choice)
    monkeypatch.setattr("pipeline.export.compress.compress.compress_run", stop)
    more = ["compress.channels={epochs: 3}", "compress.qat.epochs=2", "export.variants=[float32]"]
    with pytest.raises(UserError, match="stopped"):
        compress(unread, tmp_path / "out", budget="size<1kB", overrides=more)
    [experiment] = made
    assert (experiment.compress.channels.ratio, experiment.compress.channels.epochs) == (0.75, 3)
    assert experiment.compress.qat is None
    assert experiment.export.variants == ["float32", "w4a8"]


@pytest.mark.parametrize(
    "override",
    ["compress.qat.bits=8", "compress.channels.ratio=0.5", "compress.channels={ratio: 0.5}", "data.image_size=[16,16]"],
)
def test_what_a_budget_finds_cannot_be_set_beside_it(override, unread, tmp_path):
    with pytest.raises(UserError, match=r"a budget finds .* by itself; leave out .*, or the budget") as raised:
        compress(unread, tmp_path / "out", budget="size<1kB", overrides=[override])
    assert raised.value.usage


def test_a_search_that_could_not_be_written_is_not_begun(unread, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.export.compress.compress.search", None)  # would fail if it were called
    for budget in ("size<1kB", None):
        with pytest.raises(UserError, match="is the run to compress; give another folder as --out"):
            compress(unread, unread.path, recipe="small", budget=budget, force=True)
    assert unread.finished
    other = Run.create(tmp_path / "other", unread.experiment)
    with pytest.raises(
        UserError, match=r"other is not the run of this search \(budget, base, recipe, overrides differ\)"
    ):
        compress(unread, other.path, budget="size<1kB")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("mine")
    with pytest.raises(UserError, match="notes exists and is not a run; name another folder"):
        compress(unread, tmp_path / "notes", budget="size<1kB", force=True)


def test_a_budget_that_cannot_be_met_says_what_can(digits_run):
    with pytest.raises(
        UserError, match=r"nothing is within size < 100 B: the smallest file has [\d,]+ bytes and takes"
    ):
        search(digits_run, Budget(size=100))
    with pytest.raises(UserError, match=r"no file within .*: what was small and fast enough untrained is over a limit"):
        search(digits_run, Budget(size=6_500, drop=1e-9), epochs=1)


def test_a_budget_that_the_run_itself_meets_is_said_at_once(few_structures, digits_run):
    with pytest.raises(UserError, match=r"nothing has to be compressed: the run's own float16 file has [\d,]+ bytes"):
        search(digits_run, Budget(size=10_000_000, drop=1))


def test_a_run_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        compress(Run(tmp_path / "gone").path, tmp_path / "out", budget="size<1kB")
