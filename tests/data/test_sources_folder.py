"""Folders of a person's own images: every layout that works, and one sentence for each that does not."""

import logging
import os
import shutil
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.data.preprocess import Preprocess
from pipeline.errors import UserError
from pipeline.registry import SOURCES


def picture(path, seed=0, size=(6, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def class_folders(root, counts):
    for name, count in counts.items():
        for index in range(count):
            picture(root / name / f"{index}.png", index)
    return root


def mask(path, indices, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(indices, np.uint8), mode="P" if palette else "L")
    if palette:
        image.putpalette(palette)
    image.save(path)


def png_bomb(path, side=40_000):
    """Write a valid PNG of side × side white pixels in a few kilobytes."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def folder(path, **options):
    return SOURCES.build("folder", path=str(path), **options)


def counts(source):
    return {name: split.count for name, split in source.splits.items()}


def ids(split):
    return [sample["id"].numpy().decode() for sample in split.dataset()]


class TestClassFolders:
    def test_split_folders(self, tmp_path):
        class_folders(tmp_path / "train", {"cat": 3, "dog": 2})
        class_folders(tmp_path / "test", {"dog": 1, "cat": 1})
        source = folder(tmp_path)
        assert source.classes == ("cat", "dog")
        assert source.fields == {"label"}
        assert counts(source) == {"train": 5, "test": 2}
        assert ids(source.splits["train"]) == [
            "train/cat/0.png",
            "train/cat/1.png",
            "train/cat/2.png",
            "train/dog/0.png",
            "train/dog/1.png",
        ]
        assert source.splits["train"].labels.tolist() == [0, 0, 0, 1, 1]
        assert [int(s["label"]) for s in source.splits["train"].dataset()] == [0, 0, 0, 1, 1]

    @pytest.mark.parametrize("names", [("Training", "Valid", "testing"), ("train", "val", "test")])
    def test_usual_split_names(self, tmp_path, names):
        for name in names:
            class_folders(tmp_path / name, {"a": 2, "b": 2})
        assert counts(folder(tmp_path)) == {"train": 4, "validation": 4, "test": 4}

    def test_no_split_folders(self, tmp_path):
        class_folders(tmp_path, {"cat": 10, "dog": 20})
        source = folder(tmp_path, test=0.3)
        assert counts(source) == {"train": 21, "test": 9}
        assert np.bincount(source.splits["test"].labels).tolist() == [3, 6]
        assert not set(ids(source.splits["train"])) & set(ids(source.splits["test"]))
        assert ids(folder(tmp_path, test=0.3).splits["test"]) == ids(source.splits["test"])

    def test_validation_serves_as_test(self, tmp_path):
        for name in ("train", "val"):
            class_folders(tmp_path / name, {"a": 2, "b": 2})
        assert counts(folder(tmp_path)) == {"train": 4, "test": 4}

    def test_everything_is_test(self, tmp_path):
        class_folders(tmp_path, {"a": 2, "b": 1})
        assert counts(folder(tmp_path, test=1.0)) == {"test": 3}

    def test_name_that_is_not_utf8_is_refused(self, tmp_path):
        class_folders(tmp_path / "train", {"a": 2, "b": 1})
        class_folders(tmp_path / "test", {"a": 1, "b": 1})
        os.rename(os.fsencode(tmp_path / "train/a/0.png"), os.fsencode(tmp_path / "train/a") + b"/caf\xe9.png")
        split = folder(tmp_path).splits["train"]
        assert split.refused == {"train/a/caf\\udce9.png": "has a name that is not UTF-8"}
        assert ids(split) == ["train/a/1.png", "train/b/0.png"]

    def test_class_folder_whose_name_is_not_utf8(self, tmp_path):
        class_folders(tmp_path / "train", {"a": 2, "b": 1})
        class_folders(tmp_path / "test", {"a": 1, "b": 1})
        for split in ("train", "test"):
            os.rename(os.fsencode(tmp_path / split / "b"), os.fsencode(tmp_path / split) + b"/caf\xe9")
        with pytest.raises(UserError, match=r"no image of the class .* can be used: .* has a name that is not UTF-8"):
            folder(tmp_path)

    @pytest.mark.parametrize("name", ["test", "val"])
    def test_split_without_class_folders(self, tmp_path, name):
        class_folders(tmp_path / "train", {"a": 2, "b": 2})
        picture(tmp_path / name / "0.png")
        with pytest.raises(UserError, match=rf"{name} holds no class folders; sort its images into them, or remove it"):
            folder(tmp_path)

    def test_class_named_twice(self, tmp_path):
        class_folders(tmp_path / "train", {"a": 2, "b": 2})
        with pytest.raises(UserError, match="names a class twice"):
            folder(tmp_path, classes=["a", "a", "b"])

    def test_names_in_any_language(self, tmp_path):
        class_folders(tmp_path / "test", {"γάτα ü": 1, "犬": 1})
        source = folder(tmp_path)
        assert source.classes == ("γάτα ü", "犬")
        assert Preprocess((4, 4)).apply(next(iter(source.splits["test"].dataset())))["image"].shape == (4, 4, 3)

    def test_a_class_may_be_called_test(self, tmp_path):
        class_folders(tmp_path, {"test": 5, "control": 5})
        assert folder(tmp_path).classes == ("control", "test")

    def test_only_a_test_folder(self, tmp_path):
        class_folders(tmp_path / "test", {"a": 1, "b": 1})
        assert counts(folder(tmp_path)) == {"test": 2}

    def test_chosen_classes_and_their_order(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        class_folders(tmp_path / "train", {"a": 1, "b": 2, "c": 1})
        class_folders(tmp_path / "test", {"c": 1})
        source = folder(tmp_path, classes=["c", "b"])
        assert source.classes == ("c", "b")
        assert source.splits["train"].labels.tolist() == [0, 1, 1]
        assert "left out a, which data.source.classes does not name" in caplog.text

    def test_files_that_do_not_count(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        class_folders(tmp_path / "train", {"a": 1, "b": 1})
        class_folders(tmp_path / "test", {"a": 1, "b": 1})
        (tmp_path / "train" / "a" / "notes.txt").write_text("x")
        (tmp_path / "train" / "a" / ".hidden.png").write_bytes(b"x")
        (tmp_path / "train" / ".cache").mkdir()
        (tmp_path / "__MACOSX").mkdir()
        picture(tmp_path / "train" / "a" / "deeper" / "more.JPG", format="JPEG")
        picture(tmp_path / "elsewhere.png")
        (tmp_path / "train" / "b" / "link.png").symlink_to(tmp_path / "elsewhere.png")
        assert ids(folder(tmp_path).splits["train"]) == [
            "train/a/0.png",
            "train/a/deeper/more.JPG",
            "train/b/0.png",
            "train/b/link.png",
        ]
        assert "train: ignored 1 of its files, whose extensions are no image's" in caplog.text

    @pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp", "webp"])
    def test_formats_decode(self, tmp_path, kind):
        for name in ("train", "test"):
            for label in ("a", "b"):
                pixels = picture(
                    tmp_path / name / label / f"x.{kind}", **({"lossless": True} if kind == "webp" else {})
                )
        image = Preprocess(pixels.shape[:2]).apply(next(iter(folder(tmp_path).splits["train"].dataset())))["image"]
        with Image.open(tmp_path / "train" / "a" / f"x.{kind}") as reference:
            expected = np.asarray(reference.convert("RGB")).astype(int)
        assert np.abs(expected - image.numpy()).max() <= (3 if kind == "jpg" else 0)
        if kind in ("png", "bmp", "webp"):
            np.testing.assert_array_equal(image, pixels)

    def test_orientation_reaches_the_sample(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        for name in ("train", "test"):
            pixels = picture(tmp_path / name / "a" / "x.png", exif=exif)
            picture(tmp_path / name / "b" / "x.png")
        source = folder(tmp_path)
        upright = Preprocess((8, 6)).apply(next(iter(source.splits["train"].dataset())))
        np.testing.assert_array_equal(upright["image"], np.rot90(pixels, -1))

    def test_unusable_files_are_refused_with_a_reason(self, tmp_path):
        class_folders(tmp_path / "train", {"a": 2, "b": 2})
        class_folders(tmp_path / "test", {"a": 1, "b": 1})
        bad = tmp_path / "train" / "b"
        (bad / "empty.jpg").write_bytes(b"")
        (bad / "text.jpg").write_text("I am no image. " * 50)
        png_bomb(bad / "bomb.png")
        (bad / "gone.png").symlink_to(tmp_path / "nowhere.png")
        split = folder(tmp_path).splits["train"]
        assert split.count == 4
        assert split.refused == {
            "train/b/bomb.png": "has more pixels than the limit of 89,478,485",
            "train/b/empty.jpg": "is empty (0 bytes)",
            "train/b/gone.png": "does not exist",
            "train/b/text.jpg": "is not a JPEG, PNG, GIF, BMP or WebP image",
        }

    def test_truncated_files_pass_the_header_and_drop_out_when_decoded(self, tmp_path):
        class_folders(tmp_path, {"a": 5, "b": 5})
        whole = (tmp_path / "a" / "0.png").read_bytes()
        (tmp_path / "a" / "0.png").write_bytes(whole[: len(whole) * 3 // 4])
        source = folder(tmp_path)
        decoded = [
            sample["id"].numpy().decode()
            for split in source.splits.values()
            for sample in split.dataset().map(Preprocess((6, 8)).apply).ignore_errors()
        ]
        assert sum(counts(source).values()) == 10
        assert len(decoded) == 9
        assert "a/0.png" not in decoded


class TestFolderErrors:
    def check(self, path, message, **options):
        with pytest.raises(UserError, match=message) as caught:
            folder(path, **options)
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path):
        self.check(tmp_path / "nowhere", r"the folder .*nowhere does not exist; set data\.source\.path")

    def test_file(self, tmp_path):
        (tmp_path / "a.csv").write_text("x")
        self.check(tmp_path / "a.csv", r"the folder .*a\.csv is a file")

    def test_nothing_inside(self, tmp_path):
        self.check(tmp_path, r"holds neither class folders nor images/ and masks/")

    def test_empty_class(self, tmp_path):
        class_folders(tmp_path, {"cat": 3})
        (tmp_path / "dog").mkdir()
        self.check(tmp_path, r"the class folder .*dog holds no images; fill it or remove it")

    def test_one_class(self, tmp_path):
        class_folders(tmp_path, {"cat": 3})
        self.check(tmp_path, r"holds one class, 'cat'; make a folder for each of at least two classes")

    def test_class_without_a_usable_image(self, tmp_path):
        class_folders(tmp_path, {"cat": 3})
        (tmp_path / "dog").mkdir()
        (tmp_path / "dog" / "x.jpg").write_bytes(b"")
        self.check(tmp_path, r"no image of the class 'dog' can be used: .*x\.jpg is empty \(0 bytes\)")

    def test_no_usable_image(self, tmp_path):
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "x.jpg").write_bytes(b"")
        self.check(tmp_path, r"none of 2 images below .* can be used: cat/x\.jpg is empty")

    def test_class_that_train_lacks(self, tmp_path):
        class_folders(tmp_path / "train", {"a": 1, "b": 1})
        class_folders(tmp_path / "test", {"a": 1, "c": 1})
        self.check(tmp_path, r"test has the class 'c', which train does not have")

    def test_named_class_without_a_folder(self, tmp_path):
        class_folders(tmp_path, {"a": 1, "b": 1})
        self.check(tmp_path, r"has no folder for the class 'x' of data\.source\.classes", classes=["a", "x"])

    def test_two_folders_for_one_split(self, tmp_path):
        for name in ("train", "val", "valid"):
            class_folders(tmp_path / name, {"a": 1, "b": 1})
        self.check(tmp_path, r"holds both val and valid for the validation split; keep one of them")

    def test_no_mask_of_the_same_name(self, tmp_path):
        picture(tmp_path / "images" / "a.jpg")
        mask(tmp_path / "masks" / "b.png", np.zeros((6, 8)))
        self.check(tmp_path, r"holds no image in images/ with a PNG of the same name in masks/")

    def test_two_images_of_one_name(self, tmp_path):
        picture(tmp_path / "images" / "a.jpg")
        picture(tmp_path / "images" / "a.png")
        self.check(tmp_path, r"holds both images/a\.jpg and images/a\.png; two files of one name")

    def test_masks_of_0_and_255(self, tmp_path):
        for index in range(4):
            picture(tmp_path / "images" / f"{index}.jpg")
            mask(tmp_path / "masks" / f"{index}.png", np.eye(6, 8) * 255)
        self.check(tmp_path, r"hold one class only \(0 beside 255, which is no class\)")


class TestMasks:
    @pytest.fixture
    def root(self, tmp_path):
        """Ten images; mask i holds the indices 0, 1, i % 3 and 5."""
        for index in range(10):
            picture(tmp_path / "images" / f"{index}.jpg", index)
            indices = np.zeros((6, 8))
            indices[1], indices[2], indices[3] = 1, index % 3, 5
            mask(tmp_path / "masks" / f"{index}.png", indices)
        return tmp_path

    def test_pairs_by_name(self, root):
        source = folder(root, test=0.2)
        assert source.fields == {"mask"}
        assert source.classes == tuple(f"class {index}" for index in range(6))
        assert counts(source) == {"train": 8, "test": 2}
        for sample in source.splits["train"].dataset():
            index = int(sample["id"].numpy().decode().removeprefix("images/").removesuffix(".jpg"))
            assert sample["mask"].dtype == tf.int32
            assert sample["mask"].numpy()[:4, 0].tolist() == [0, 1, index % 3, 5]

    def test_split_folders(self, root):
        for name in ("train", "val"):
            (root / name).mkdir()
            for part in ("images", "masks"):
                shutil.copytree(root / part, root / name / part)
        assert counts(folder(root)) == {"train": 10, "test": 10}

    def test_void(self, root):
        source = folder(root, void=5)
        assert source.classes == ("class 0", "class 1", "class 2")
        values = {int(v) for split in source.splits.values() for s in split.dataset() for v in np.unique(s["mask"])}
        assert values == {0, 1, 2, 255}

    @pytest.mark.parametrize("name", ["classes.txt", "labels.txt"])
    def test_names_in_a_file(self, root, name):
        (root / name).write_text("ground\nroad \n\nsky\n", encoding="utf-8")
        assert folder(root).classes == ("ground", "road", "sky")

    def test_names_of_a_windows_editor(self, root):
        (root / "classes.txt").write_text("ground\nroad\nsky\n", encoding="utf-8-sig")
        assert folder(root).classes == ("ground", "road", "sky")
        (root / "classes.txt").write_text("straße\nroad\nsky\n", encoding="latin-1")
        with pytest.raises(UserError, match=r"classes\.txt is not text in UTF-8"):
            folder(root)

    def test_mask_cut_short_while_classes_are_counted(self, root):
        (root / "masks" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        assert any("images/0.jpg" in (split.refused or {}) for split in folder(root).splits.values())

    def test_names_as_an_option(self, root):
        assert folder(root, classes=["x", "y"]).classes == ("x", "y")

    def test_palette_index_is_the_class(self, root):
        mask(root / "masks" / "0.png", np.eye(6, 8) * 3, palette=[90, 90, 90, 0, 0, 0, 1, 1, 1, 255, 0, 0])
        values = {
            int(value)
            for split in folder(root).splits.values()
            for sample in split.dataset()
            if sample["id"] == b"images/0.jpg"
            for value in np.unique(sample["mask"])
        }
        assert values == {0, 3}

    def test_masks_that_cannot_belong_to_their_image_are_refused(self, root):
        mask(root / "masks" / "0.png", np.zeros((5, 5)))
        picture(root / "masks" / "1.png")
        (root / "masks" / "2.png").write_bytes(b"")
        refused = {}
        for split in folder(root).splits.values():
            refused |= split.refused or {}
        assert refused == {
            "images/0.jpg": "has the mask masks/0.png, which is 5×5 pixels large where the image is 8×6",
            "images/1.jpg": "has the mask masks/1.png, which holds colours instead of one class index per pixel",
            "images/2.jpg": "has the mask masks/2.png, which is empty (0 bytes)",
        }

    def test_lonely_files_are_told(self, root, caplog):
        caplog.set_level(logging.INFO)
        (root / "masks" / "3.png").unlink()
        assert sum(counts(folder(root)).values()) == 9
        assert "left out 1 files without a partner, as images/3.jpg" in caplog.text
