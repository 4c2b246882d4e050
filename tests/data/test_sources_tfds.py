"""TensorFlow Datasets: by name through its own mock, and from a directory prepared here. Nothing is downloaded."""

import logging

import numpy as np
import pytest
import tensorflow_datasets
from tensorflow_datasets.core import DatasetInfo, GeneratorBasedBuilder, Version

from pipeline.data.preprocess import Preprocess
from pipeline.data.split import with_validation
from pipeline.errors import UserError
from pipeline.registry import SOURCES

features = tensorflow_datasets.features


class Stripes(GeneratorBasedBuilder):
    """Example i is an image of the value i; its kind is i % 2."""

    VERSION = Version("1.0.0")

    def _info(self):
        return DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "picture": features.Image(shape=(None, None, 3)),
                    "kind": features.ClassLabel(names=["even", "odd"]),
                    "tens": features.ClassLabel(num_classes=3),
                }
            ),
            supervised_keys=("picture", "kind"),
        )

    def _split_generators(self, download_manager):
        return {
            "train": self._generate_examples(range(20)),
            "validation": self._generate_examples(range(20, 26)),
            "test": self._generate_examples(range(26, 30)),
            "unlabelled": self._generate_examples(range(2), unlabelled=True),
        }

    def _generate_examples(self, values, unlabelled=False):
        for value in values:
            kind = -1 if unlabelled else value % 2
            yield value, {"picture": np.full((4, 6, 3), value, np.uint8), "kind": kind, "tens": value // 10}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    tensorflow_datasets.disable_progress_bar()
    builder = Stripes(data_dir=tmp_path_factory.mktemp("tfds"))
    builder.download_and_prepare()
    return builder.data_path


def tfds(**options):
    return SOURCES.build("tfds", **options)


def values(split):
    """Return each example's value, read from its pixels."""
    fit = Preprocess((4, 6))
    return [int(fit.apply(sample)["image"][0, 0, 0]) for sample in split.dataset()]


class TestPreparedDirectory:
    def test_splits_and_samples(self, prepared):
        source = tfds(data_dir=str(prepared))
        assert source.classes == ("even", "odd")
        assert source.fields == {"label"}
        assert {name: split.count for name, split in source.splits.items()} == {"train": 20, "validation": 6, "test": 4}
        for split in source.splits.values():
            assert [value % 2 for value in values(split)] == split.labels.tolist()
            assert [int(sample["label"]) for sample in split.dataset()] == split.labels.tolist()
        assert sorted(values(source.splits["test"])) == [26, 27, 28, 29]
        first = next(iter(source.splits["train"].dataset()))
        assert first["image"].dtype == "string"  # still encoded
        assert first["id"] == b"train 0"

    def test_order_repeats(self, prepared):
        split = tfds(data_dir=str(prepared)).splits["train"]
        assert values(split) == values(split)

    def test_split_expressions(self, prepared):
        source = tfds(data_dir=str(prepared), train="train[:50%]+validation", test="train[50%:]")
        assert {name: split.count for name, split in source.splits.items()} == {"train": 16, "test": 10}
        assert not set(values(source.splits["train"])) & set(values(source.splits["test"]))

    def test_validation_is_cut_from_train(self, prepared):
        source = with_validation(tfds(data_dir=str(prepared), test="validation"), 0.2, 0)
        train, validation = values(source.splits["train"]), values(source.splits["validation"])
        assert sorted(train + validation) == list(range(20))
        assert sorted(value % 2 for value in validation) == [0, 0, 1, 1]

    def test_another_label(self, prepared):
        source = tfds(data_dir=str(prepared), label_feature="tens")
        assert source.classes == ("0", "1", "2")
        assert [value // 10 for value in values(source.splits["train"])] == source.splits["train"].labels.tolist()


class TestErrors:
    def check(self, message, **options):
        with pytest.raises(UserError, match=message) as caught:
            tfds(**options)
        assert str(caught.value).endswith((".", "?"))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("expression", ["holdout", "train[:x]", "all[:80%]"])
    def test_unknown_split(self, prepared, expression):
        message = r"stripes has no split '.*' for data\.source\.test; it has train, validation, test, unlabelled"
        self.check(message, data_dir=str(prepared), test=expression)

    def test_unknown_version(self):
        self.check(r"data\.source\.dataset 'mnist:9\.9\.9': .*9\.9\.9", dataset="mnist:9.9.9")

    def test_foreign_info(self, tmp_path):
        (tmp_path / "dataset_info.json").write_text('{"citation": "", "builder_name": "x", "homepage": ""}')
        self.check(r"holds no set of TensorFlow Datasets", data_dir=str(tmp_path))

    def test_overlapping_splits(self, prepared):
        message = r"data\.source\.train and data\.source\.test of stripes share examples"
        self.check(message, data_dir=str(prepared), test="train[90%:]")

    def test_unlabelled_split(self, prepared):
        message = r"the split 'unlabelled' of stripes has no labelled examples"
        self.check(message, data_dir=str(prepared), test="unlabelled")

    def test_unknown_feature(self, prepared):
        message = r"stripes needs one ClassLabel; set data\.source\.label_feature to one of: kind, tens\."
        self.check(message, data_dir=str(prepared), label_feature="label")

    def test_folder_without_a_set(self, tmp_path):
        self.check(
            r"holds no dataset_info\.json; set data\.source\.dataset, or data\.source\.data_dir", data_dir=str(tmp_path)
        )

    def test_nothing_given(self):
        self.check(r"no dataset is named; set data\.source\.dataset")

    def test_unknown_name(self, tmp_path):
        self.check(r"has no set 'cifar_10'; did you mean 'cifar10'\?", dataset="cifar_10", data_dir=str(tmp_path))

    def test_failed_download_says_how_to_prepare(self, monkeypatch, tmp_path):
        def fail(self):
            raise ConnectionError("Failed to resolve 'www.cs.toronto.edu'\nmore lines")

        monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", fail)
        self.check(
            r"cifar10 could not be downloaded \(Failed to resolve 'www\.cs\.toronto\.edu'\); where there is internet, "
            r"run `tfds build cifar10 --data_dir DIR`, copy DIR to this machine, and set data\.source\.data_dir=DIR\.",
            dataset="cifar10",
            data_dir=str(tmp_path),
        )

    def test_missing_shard(self, tmp_path):
        builder = Stripes(data_dir=tmp_path)
        builder.download_and_prepare()
        next(builder.data_path.glob("*train*")).unlink()
        self.check(r"cannot be read \(.*\); prepare it again\.", data_dir=str(builder.data_path))

    def test_array_record(self, tmp_path):
        builder = Stripes(data_dir=tmp_path, file_format="array_record")
        builder.download_and_prepare()
        self.check(r"is in the array_record format, which cannot be streamed", data_dir=str(builder.data_path))


def test_cifar10_by_name_through_the_mock(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with tensorflow_datasets.testing.mock_data(num_examples=7):
        source = tfds(dataset="cifar10", data_dir=str(tmp_path))
        assert len(source.classes) == 10
        assert {name: split.count for name, split in source.splits.items()} == {"train": 7, "test": 7}
        samples = list(source.splits["train"].dataset())
        assert [int(sample["label"]) for sample in samples] == source.splits["train"].labels.tolist()
        assert Preprocess((32, 32)).apply(samples[0])["image"].shape == (32, 32, 3)
    assert "is not prepared in" in caplog.text
