"""Any image file becomes the same pixels everywhere; what cannot be read says so in one sentence."""

import io
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.data.decoding import decode_image, decode_mask, turn_upright
from pipeline.data.preprocess import VOID, Preprocess
from pipeline.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
RGB = Image.fromarray(PIXELS)


def palette_image(indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette([value for i in range(8) for value in (i * 30, 255 - i * 30, i)])
    return image


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


INDICES = np.arange(120).reshape(12, 10) % 8
FILES = {
    "jpeg": encode(RGB, "JPEG"),
    "jpeg grey": encode(RGB.convert("L"), "JPEG"),
    "jpeg cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    "png": encode(RGB, "PNG"),
    "png grey": encode(RGB.convert("L"), "PNG"),
    "png grey alpha": encode(RGB.convert("LA"), "PNG"),
    "png rgba": encode(RGB.convert("RGBA"), "PNG"),
    "png palette": encode(palette_image(INDICES), "PNG"),
    "png palette 4 bit": encode(palette_image(INDICES), "PNG", bits=4),
    "png 1 bit": encode(RGB.convert("1"), "PNG"),
    "gif": encode(RGB.convert("P"), "GIF"),
    "gif animation": encode(RGB.convert("P"), "GIF", save_all=True, append_images=[palette_image(INDICES)]),
    "bmp": encode(RGB, "BMP"),
    "bmp grey": encode(RGB.convert("L"), "BMP"),
    "bmp palette": encode(palette_image(INDICES), "BMP"),
    "bmp 1 bit": encode(RGB.convert("1"), "BMP"),
    "bmp rgba": encode(RGB.convert("RGBA"), "BMP"),
    "webp": encode(RGB, "WEBP", lossless=True),
    "webp rgba": encode(RGB.convert("RGBA"), "WEBP", lossless=True),
    "webp animation": encode(RGB, "WEBP", lossless=True, save_all=True, append_images=[RGB.rotate(180)]),
}
decode_in_graph = tf.function(decode_image, input_signature=[tf.TensorSpec((), tf.string)])
decode_mask_in_graph = tf.function(decode_mask, input_signature=[tf.TensorSpec((), tf.string)])


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_decodes_to_what_pillow_sees(name):
    expected = np.asarray(Image.open(io.BytesIO(FILES[name])).convert("RGB")).astype(int)
    for decode in (decode_image, decode_in_graph):
        np.testing.assert_array_equal(decode(FILES[name]).numpy(), expected)


def test_sixteen_bit_images_keep_their_high_byte():
    deep = (np.arange(120).reshape(12, 10) * 500).astype(np.uint16)
    image = decode_image(encode(Image.fromarray(deep), "PNG"))
    np.testing.assert_array_equal(image[..., 0], deep >> 8)


@pytest.mark.parametrize("name", [name for name in FILES if "animation" not in name])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_cut_short_files_drop_out_of_a_dataset(name, share):
    cut = FILES[name][: int(len(FILES[name]) * share)]
    files = tf.data.Dataset.from_tensor_slices([FILES[name], cut, FILES[name]])
    assert len(list(files.map(decode_image).ignore_errors())) == 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_follows_exif(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encode(RGB, "PNG", exif=exif)))))
    graph = tf.function(turn_upright)
    np.testing.assert_array_equal(graph(tf.constant(PIXELS), tf.constant(orientation)), expected)
    path = tmp_path / "photo.png"
    path.write_bytes(encode(RGB, "PNG", exif=exif))
    np.testing.assert_array_equal(Preprocess(expected.shape[:2]).read_file(path), expected)


def test_stretch_is_tensorflows_antialiased_resize_and_within_one_of_pillows():
    image = np.random.default_rng(1).integers(0, 256, (33, 47, 3), np.uint8)
    got = Preprocess((20, 14)).resize_image(tf.constant(image)).numpy()
    np.testing.assert_array_equal(got, tf.round(tf.image.resize(image, (20, 14), antialias=True)))
    pillow = np.asarray(Image.fromarray(image).resize((14, 20), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pillow - got).max() <= 1


def test_same_size_changes_no_pixel():
    np.testing.assert_array_equal(Preprocess((12, 10)).read(FILES["png"]), PIXELS)


def test_crop_is_the_centre_of_the_covering_picture():
    image = np.random.default_rng(2).integers(0, 256, (33, 47, 3), np.uint8)
    covering = tf.round(tf.image.resize(image, (20, 28), antialias=True))  # 33x47 times 20/33
    np.testing.assert_array_equal(Preprocess((20, 14), resize="crop").resize_image(image), covering[:, 7:21])


def test_pad_lays_the_fitting_picture_on_black():
    image = np.random.default_rng(3).integers(0, 256, (33, 47, 3), np.uint8)
    got = Preprocess((20, 14), resize="pad").resize_image(image).numpy()
    fitting = tf.round(tf.image.resize(image, (10, 14), antialias=True))  # 33x47 times 14/47
    np.testing.assert_array_equal(got[5:15], fitting)
    assert got[:5].max() == got[15:].max() == 0


def test_extreme_aspect_ratio_needs_no_giant_intermediate():
    line = np.zeros((1, 200_000, 3), np.uint8)
    assert Preprocess((64, 64), resize="crop").resize_image(line).shape == (64, 64, 3)


@pytest.mark.parametrize(("channels", "expected"), [(1, [[76], [150], [29], [255], [200]]), (3, None)])
def test_channels(channels, expected):
    colors = np.array([[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]], [[255] * 3], [[200] * 3]], np.uint8)
    image = Preprocess((5, 1), channels).read(encode(Image.fromarray(colors), "PNG"))
    np.testing.assert_array_equal(image[:, 0], colors[:, 0] if expected is None else expected)


def test_grey_arrays_become_rgb():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    np.testing.assert_array_equal(Preprocess((8, 8), 3).resize_image(grey), np.repeat(grey, 3, -1))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (Image.fromarray(INDICES.astype(np.uint8)), INDICES),
        (palette_image(INDICES), INDICES),
        (Image.fromarray(INDICES % 2 == 1), INDICES % 2),
        (Image.fromarray((INDICES * 100).astype(np.uint16)), INDICES * 100),
    ],
    ids=["grey", "palette", "one bit", "sixteen bits"],
)
def test_masks_hold_indices_whatever_the_png_kind(stored, expected):
    for decode in (decode_mask, decode_mask_in_graph):
        np.testing.assert_array_equal(decode(encode(stored, "PNG")), expected)


def test_four_bit_palette_and_grey_masks():
    np.testing.assert_array_equal(decode_mask(encode(palette_image(INDICES), "PNG", bits=4)), INDICES)
    np.testing.assert_array_equal(decode_mask(four_bit_grey_png(INDICES)), INDICES)


def four_bit_grey_png(indices: np.ndarray) -> bytes:
    """Write by hand what Pillow cannot: PNG with bit depth 4, colour type 0."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    height, width = indices.shape
    rows = b"".join(b"\0" + bytes(row[::2] * 16 + row[1::2]) for row in indices.astype(np.uint8))
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([4, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colour_mask_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="one class index per pixel, not colours"):
        decode_mask_in_graph(FILES["png"])


def test_mask_follows_the_image():
    """A mask that repeats the picture's blocks still does so after every kind of fit."""
    blocks = np.kron(np.arange(12).reshape(3, 4), np.ones((16, 16), int))
    picture = np.repeat((blocks * 20).astype(np.uint8)[..., None], 3, -1)
    for resize in ("stretch", "crop", "pad"):
        fit = Preprocess((24, 24), resize=resize)
        image = fit.resize_image(picture).numpy()[..., 0]
        mask = fit.resize_mask(tf.constant(blocks, tf.int32)).numpy()
        np.testing.assert_array_equal(image[mask == VOID], 0)

        def agree(found: np.ndarray, image: np.ndarray = image) -> float:
            inside = found != VOID
            return np.mean(np.abs(image[inside].astype(int) - found[inside] * 20) <= 10)

        shifted = [np.roll(mask, step, axis) for step in (-1, 1) for axis in (0, 1)]
        assert agree(mask) > max(0.7, *map(agree, shifted))  # the rest lies on block edges, where the image is blended


def test_pad_marks_its_bars_as_void():
    mask = Preprocess((4, 4), resize="pad").resize_mask(tf.ones((2, 4), tf.int32))
    np.testing.assert_array_equal(mask, [[VOID] * 4, [1] * 4, [1] * 4, [VOID] * 4])


def test_boxes_follow_the_image():
    boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.75, 0.5]])
    size = tf.constant([50, 100])
    np.testing.assert_allclose(Preprocess((20, 20)).resize_boxes(boxes, size), boxes)
    padded = Preprocess((20, 20), resize="pad").resize_boxes(boxes, size)
    np.testing.assert_allclose(padded, [[0.25, 0, 0.75, 1], [0.375, 0.25, 0.625, 0.5]], atol=1e-6)
    cropped = Preprocess((20, 20), resize="crop").resize_boxes(boxes, size)
    np.testing.assert_allclose(cropped, [[0, 0, 1, 1], [0.25, 0, 0.75, 0.5]], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["stretch", "crop", "pad"]),
)
def test_shapes_hold_for_any_size(size, image_size, resize):
    fit = Preprocess(image_size, resize=resize)
    image = fit.resize_image(tf.fill((*size, 3), tf.constant(200, tf.uint8))).numpy()
    mask = fit.resize_mask(tf.ones(size, tf.int32)).numpy()
    assert image.shape == (*image_size, 3)
    np.testing.assert_array_equal(image[..., 0] == 200, mask == 1)  # picture and mask cover the same pixels
    assert resize == "pad" or (mask == 1).all()


def test_apply_fits_a_whole_sample():
    sample = {
        "image": tf.constant(FILES["png"]),
        "orientation": tf.constant(6),
        "mask": tf.constant(encode(palette_image(INDICES.T), "PNG")),
        "boxes": tf.constant([[0.0, 0.0, 0.5, 0.5]]),
        "label": tf.constant(3),
        "id": tf.constant("a.png"),
    }
    fitted = Preprocess((10, 12)).apply(sample)
    np.testing.assert_array_equal(fitted["image"], np.rot90(PIXELS, -1))
    np.testing.assert_array_equal(fitted["mask"], INDICES.T)
    assert set(fitted) == {"image", "mask", "boxes", "label", "id"}


def test_json_round_trip():
    fit = Preprocess((224, 320), 1, "pad")
    assert Preprocess.from_json(fit.to_json()) == fit


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"image_size": [8, 8], "channels": 2, "resize": "pad"}'])
def test_broken_json_says_how_to_mend_it(text):
    with pytest.raises(UserError, match=r"preprocess\.json does not say image_size, channels and resize"):
        Preprocess.from_json(text)


@pytest.mark.parametrize("name", FILES)
def test_damage_of_any_kind_is_one_sentence(name, tmp_path):
    """Change, cut out and overwrite bytes at random: an image or a sentence comes back, nothing else."""
    random = np.random.default_rng(0)
    path = tmp_path / "photo.jpg"
    messages = []
    for _ in range(40):
        content = bytearray(FILES[name])
        for _ in range(random.integers(1, 6)):
            start = random.integers(len(content))
            content[start : start + random.integers(1, 9)] = random.bytes(random.integers(0, 9))
        path.write_bytes(content)
        try:
            assert Preprocess((4, 4)).read_file(path).shape == (4, 4, 3)
        except UserError as error:
            messages.append(str(error))
    assert messages
    for message in messages:
        assert message.startswith(f"{path} ")
        assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"photo\.jpg is empty \(0 bytes\)\."),
        (b"hello, this is text\n" * 50, r"photo\.jpg is not a JPEG, PNG, GIF, BMP or WebP image\."),
        (FILES["jpeg"][: len(FILES["jpeg"]) * 9 // 10], r"photo\.jpg is damaged or cut short"),
        (FILES["bmp"][:-9], r"photo\.jpg is damaged or cut short"),
        (None, r"photo\.jpg does not exist\."),
    ],
    ids=["empty", "text", "truncated", "truncated bmp", "missing"],
)
def test_read_file_says_what_is_wrong(content, message, tmp_path):
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        Preprocess((8, 8)).read_file(path)
